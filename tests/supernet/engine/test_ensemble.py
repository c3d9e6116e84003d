"""Ensembles compute the mean of their members, each of which is a network of the base family."""

from functools import cache, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, traverse_util

from experiments.contracts.families import check_family
from samplers.diversity import member_genes
from search_spaces import Architecture, build_space
from search_spaces.ensemble import Ensemble
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key
from supernet.engine.stages import Context
from supernet.engine.supernet import Params, Supernet, build_supernet
from supernet.export.subnet import compiled
from supernet.tasks.classes import CLASSES
from supernet.training.evaluation import calibrate
from supernet.training.training import TrainStep
from tests.marks import sampled, slow_but

SMALL: dict[str, dict[str, Any]] = {
    "vit_ensemble": {"width": [16], "depth": [2, 3], "heads": [1, 2], "mlp_ratio": [1.0, 2.0], "head_dim": 8},
    "mobilenet_ensemble": {
        "resolution": [8], "depth": [1, 2], "kernel": [3, 5], "expand": [1, 2], "widths": [8, 16], "strides": [1, 2],
        "squeeze_excite": [False, True], "activations": ["relu", "hard_swish"], "final_width": 16, "feature_width": 16,
        "stem_width": 8, "first_width": 8, "image_size": 8,
    },
    "nas_bench_201_ensemble": {
        "width": 4, "stages": 2, "image_size": 8, "cells": 2,
        # No node is without input: a batch norm of constant maps amplifies rounding.
        "edge_1_0": ["skip", "conv_1x1", "conv_3x3"], "edge_2_0": ["skip"], "edge_2_1": ["conv_1x1", "conv_3x3"],
        "edge_3_0": ["skip", "pool_3x3"], "edge_3_1": ["none", "conv_3x3"], "edge_3_2": ["conv_1x1"],
    },
}  # fmt: skip
every_family = pytest.mark.parametrize("family", list(SMALL))
one_family = pytest.mark.parametrize("family", slow_but(["vit_ensemble"], sampled(SMALL, ["vit_ensemble"])))


@cache
def made(family: str) -> tuple[Ensemble, Supernet, Params]:
    private = [0, 2] if family != "nas_bench_201_ensemble" else [1, 4]
    space = build_space(family, "small", {"members": [1, 2, 3], "private": private, **SMALL[family]})
    assert isinstance(space, Ensemble)
    net = build_supernet(space)
    params = net.init(key(0, Purpose.WEIGHTS))
    rng = np.random.default_rng(0)
    varied = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32), params)
    return space, net, varied


def images(space: Any, count: int = 4) -> jax.Array:
    shape = (count, space.image_size, space.image_size, space.channels)
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


def drawn(space: Ensemble, members: int, private: int) -> Architecture:
    row = space.sample(np.random.default_rng(members + 10 * private), 1)[0]
    row[space.column("members")], row[space.column("private")] = members - 1, space.private.index(private)
    return space.architecture(row)


def extracted(net: Supernet, params: Params, architecture: Architecture, x: jax.Array) -> nnx.Module:
    genes = jnp.asarray(architecture.genes, jnp.int32)
    program = net.space.program(architecture.genes)
    statistics = jax.jit(lambda params: calibrate(net, params, genes, x[None], program))(params)
    return net.extract(params, architecture, statistics)[0]


def alone(space: Ensemble, ensemble: nnx.Module, architecture: Architecture, member: int) -> Any:
    """One member on its own: layers of hand-written networks of the base family, with its weights and statistics."""
    base = build_supernet(space.base)
    members = member_genes(space, np.array([architecture.genes], np.int32))[0]
    modules: list[Any] = [base.module(space.base.architecture(members[m])) for m in (0, member - 1)]
    module = modules[0]
    given = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(ensemble)))
    own = {path[1:]: leaf for path, leaf in given.items() if path[0] == f"member_{member}"}
    own |= {path[1:]: leaf for path, leaf in own.items() if path[0] == "head"}
    behind: dict[tuple, int] = {}  # how many layers of each list are shared
    for of in {path[: place(path)] for path in own if place(path)}:
        layers, others = (reduce(getattr, of, one) for one in modules)
        behind[of] = len(layers) - len({path[len(of)] for path in own if path[: len(of)] == of})
        for number in range(behind[of], len(layers)):
            layers[number] = others[number]
    found = {}
    for path in traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(module))):
        mine, number = path, place(path)
        if number and path[:number] in behind:
            mine = (*path[:number], path[number] - behind[path[:number]], *path[number + 1 :])
        found[path] = own[mine] if mine in own else given[path]
    nnx.update(module, traverse_util.unflatten_dict(found))
    return module


def place(path: tuple) -> int:
    """Returns the place in a path of the number of a layer in a list; 0 without one."""
    return next((i for i, part in enumerate(path) if isinstance(part, int)), 0)


@every_family
def test_output_is_the_mean_of_the_members_alone(family: str) -> None:
    space, net, params = made(family)
    x = images(space)
    architecture = drawn(space, 3, space.private[1])
    ensemble: Any = extracted(net, params, architecture, x)
    each = [np.asarray(compiled(alone(space, ensemble, architecture, member))(x)) for member in (1, 2, 3)]
    assert np.abs(each[0] - each[1]).max() > 1e-2, "members that are alike test nothing"
    np.testing.assert_allclose(np.asarray(compiled(ensemble)(x)), np.mean(each, axis=0), atol=1e-5, rtol=1e-5)


@every_family
def test_one_member_is_the_plain_subnet(family: str) -> None:
    space, net, params = made(family)
    x, architecture = images(space), drawn(space, 1, space.private[0])
    ensemble: Any = extracted(net, params, architecture, x)
    base: Any = alone(space, ensemble, architecture, 1)
    states = [traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(module))) for module in (ensemble, base)]
    assert set(states[0]) == set(states[1])
    np.testing.assert_allclose(np.asarray(compiled(ensemble)(x)), np.asarray(compiled(base)(x)), atol=1e-5, rtol=1e-5)


def test_one_member_is_the_base_supernet_to_the_last_bit() -> None:
    space = build_space(
        "vit_ensemble", "small", {"members": [1], "private": [3], **SMALL["vit_ensemble"], "depth": [3]}
    )
    assert isinstance(space, Ensemble)
    net, base = build_supernet(space), build_supernet(space.base)
    params = base.init(key(0, Purpose.WEIGHTS))
    row = space.sample(np.random.default_rng(0), 1)[0]
    alone = row[space.member_columns[0]][None]
    found = net.apply(params, jnp.asarray(row), images(space), program=space.program(row))[0]
    expected = base.apply(params, jnp.asarray(alone[0]), images(space), program=space.base.program(alone[0]))[0]
    np.testing.assert_array_equal(found, expected)


@one_family
def test_members_with_equal_tails_are_one_network(family: str) -> None:
    space, net, params = made(family)
    private = space.private[1]
    row = np.array(drawn(space, 2, private).genes)
    row[space.member_columns[1]] = row[space.member_columns[0]]
    twins = space.architecture(row)
    row[space.column("members")] = 0
    single = space.architecture(row)
    flat = traverse_util.flatten_dict(params, sep="/")
    same = dict(flat)
    for path in flat:
        if path.startswith("member_2/head/"):
            same[path] = flat[path.removeprefix("member_2/head/")]
        elif path.startswith("member_2/"):
            same[path] = flat[path.removeprefix("member_2/")]
    same_params = traverse_util.unflatten_dict(same, sep="/")
    x = images(space)
    pair, one = (
        net.apply(same_params, jnp.asarray(a.genes, jnp.int32), x, program=space.program(a.genes))[0]
        for a in (twins, single)
    )
    np.testing.assert_allclose(pair, one, atol=1e-5)


@one_family
def test_passes_costs_and_exports_agree(family: str) -> None:
    check_family(made(family)[1], architectures=4)


@one_family
def test_gradients_are_each_members_own_and_the_mean_in_shared_layers(family: str) -> None:
    space, net, params = made(family)
    x, labels, architecture = images(space), jnp.array([0, 1, 2, 3]), drawn(space, 3, space.private[1])
    genes, program = jnp.asarray(architecture.genes, jnp.int32), space.program(architecture.genes)

    def losses(logits: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def of_member(params: Params, member: int) -> jax.Array:
        # The stream of the members, and heads as `apply` uses them, without what scales gradients.
        context = Context(x.shape, net.known(program), input=x)  # type: ignore[attr-defined]
        y, outside = net.streamed(params, genes, x, context)  # type: ignore[attr-defined]
        return losses(net._each(outside, y, context)[member])  # type: ignore[attr-defined]

    alone = [jax.grad(of_member)(params, member) for member in range(3)]
    found = jax.grad(lambda p: sum(map(losses, net.apply_members(p, genes, x, program=program))) / 3)(params)
    shared = own = 0
    for leaf, *each in zip(*(jax.tree.leaves(tree) for tree in (found, *alone)), strict=True):
        reached = sum(bool(jnp.abs(g).max() > 0) for g in each)
        expected = sum(each[1:], each[0]) / (1 if reached <= 1 else 3)
        np.testing.assert_allclose(leaf, expected, atol=1e-5)
        shared, own = shared + (reached == 3), own + (reached == 1)
    assert shared
    assert own


def test_a_step_reports_the_mean_loss_of_the_members() -> None:
    space, net, params = made("vit_ensemble")
    x, labels, architecture = images(space), np.array([0, 1, 2, 3]), drawn(space, 3, space.private[1])
    genes, program = np.array([architecture.genes], np.int32), space.program(architecture.genes)
    each = net.apply_members(params, jnp.asarray(genes[0]), x, program=program)
    mean = net.apply(params, jnp.asarray(genes[0]), x, program=program)[0]
    np.testing.assert_allclose(sum(each) / 3, mean, atol=1e-6)
    step = TrainStep(net, optax.sgd(0.1))
    targets = CLASSES.encode(labels)
    state = step.init(jax.tree.map(jnp.copy, params))
    _, result = step(state, genes, ("random",), np.ones(1, np.float32), x, jnp.asarray(targets))
    expected = [optax.softmax_cross_entropy_with_integer_labels(one, labels).mean() for one in each]
    np.testing.assert_allclose(result.paths[0].loss, np.mean(expected), rtol=1e-5)
    assert result.paths[0].logits is not None
    np.testing.assert_allclose(result.paths[0].logits, mean, atol=1e-6)
