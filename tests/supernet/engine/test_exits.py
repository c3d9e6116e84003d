"""Exits: the loss and gradient of several depths in one pass, and what cannot have exits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from search_spaces import build_space
from search_spaces.errors import UserError
from supernet.engine.exits import check_exits, exit_logits
from supernet.engine.supernet import build_supernet
from supernet.training.training import TrainStep

SIZES = {
    "width": [8], "depth": [1, 2, 3], "kv_heads": [1], "mlp_width": [8, 16], "head_size": 8, "vocabulary": 11,
    "context": 5,
}  # fmt: skip
EXITS = (1, 3)


def net_of(family: str = "language", **changed: Any) -> Any:
    return build_supernet(build_space(family, None, {**SIZES, **changed}))


@pytest.mark.parametrize(("parallel", "depth"), [(False, 3), (True, 2)])
def test_a_step_is_that_of_the_subnets_of_each_depth(parallel: bool, depth: int) -> None:
    net = net_of(parallel=parallel)
    space, rng = net.space, np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 11, (4, 5)), jnp.int32)
    labels, example_weights = jnp.roll(x, -1, axis=1), np.array([1, 0.5, 2, 1], np.float32)
    params = jax.tree.map(lambda leaf: leaf + np.float32(0.1) * rng.standard_normal(leaf.shape, np.float32),
                          net.init(jax.random.key(0)))  # fmt: skip
    subnets = [
        space.encode({"width": 8, "depth": layers, "kv_heads": [1] * layers, "queries": [1] * layers,
                      "mlp_width": [16, 8, 16][:layers]})
        for layers in (min(number, depth) for number in EXITS)
    ]  # fmt: skip

    def mean_loss(params: Any) -> tuple[jax.Array, jax.Array]:
        logits = [net.apply_sliced(params, subnet, x) for subnet in subnets]
        losses = [optax.softmax_cross_entropy_with_integer_labels(one, labels).mean(axis=1) for one in logits]
        return jnp.mean(example_weights * sum(losses) / len(losses)), logits[-1]

    (loss, logits), gradient = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(params)
    step = TrainStep(net, optax.sgd(1.0), exits=EXITS)
    genes = np.array([subnets[-1].genes], np.int32)
    state, result = step(
        step.init(jax.tree.map(jnp.copy, params)), genes, ("random",), np.ones(1, np.float32), x, labels,
        example_weights=example_weights,
    )  # fmt: skip
    np.testing.assert_allclose(result.paths[0].loss, loss, rtol=1e-5)
    assert result.paths[0].logits is not None
    np.testing.assert_allclose(result.paths[0].logits, logits, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose(new, old - g, rtol=1e-4, atol=1e-5),
        state.params, params, gradient,
    )  # fmt: skip


def test_exits_add_no_product_but_those_of_the_head() -> None:
    net = net_of()
    genes, x = jnp.array(net.space.largest.genes, jnp.int32), jnp.zeros((2, 5), jnp.int32)
    program = net.space.program(net.space.largest.genes)

    def products(*exits: int) -> int:
        def logits(params: Any) -> Any:
            if exits:
                return exit_logits(net, params, genes, x, program=program, exits=exits)
            return net.apply(params, genes, x, program=program)[0]

        return str(jax.make_jaxpr(logits)(net.shapes)).count("dot_general[")

    assert products(1, 3) == products() + 1
    assert products(1, 2, 3) == products() + 2


@pytest.mark.parametrize(
    ("exits", "changed", "expected"),
    [
        ((1, 2), {}, r"train.exits: \[1, 2\] are not depths of the space with the largest as the last. Set some of \["),
        ((2, 4), {}, r"train.exits: \[2, 4\] are not depths"),
        ((1, 3), {"keep": "equidistant"}, "train.exits: networks of family language here do not consist of one stack"),
    ],
)
def test_what_is_no_network_of_the_space_is_refused(
    exits: tuple[int, ...], changed: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        check_exits(exits, net_of(**changed))


def test_families_of_several_stacks_have_no_exits() -> None:
    with pytest.raises(UserError, match="of family mobilenet here do not consist of one stack"):
        check_exits((1, 2), build_supernet(build_space("mobilenet", "small", {})))
