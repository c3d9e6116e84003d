"""Modules: hybrids compute what the layers in a row compute, ends belong to their modules, what is frozen stays."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from search_spaces import build_space
from search_spaces.divided import divided
from supernet.engine.modules import (
    AFTER,
    BEFORE,
    MODULE,
    Ends,
    assembled_weights,
    ends_of,
    hybrid_weights,
    layers_of_hybrid,
)
from supernet.engine.supernet import build_supernet
from supernet.training.optimizer import OptimizerSettings
from supernet.training.training import TrainStep

_LANGUAGE = {"width": [16], "depth": [6], "kv_heads": [2], "mlp_width": [24], "head_size": 8, "context": 8}
SPACES = {
    "vit": build_space("vit", "small", {"width": [16], "depth": [6], "heads": [2], "mlp_ratio": [2.0], "head_dim": 8}),
    "class token": build_space("vit", "small", {
        "width": [16], "depth": [6], "heads": [2], "mlp_ratio": [2.0], "head_dim": 8, "class_token": True,
    }),
    "tied": build_space("language", "small", _LANGUAGE),
    "untied": build_space("language", "small", {**_LANGUAGE, "tied": False, "positions": "learned"}),
    "encoder": build_space("language", "small", {
        **_LANGUAGE, "causal": False, "post_norm": True, "head_transform": True, "positions": "learned",
    }),
}  # fmt: skip
ENDS = {
    "vit": Ends(frozenset({"patch", "position"}), frozenset({"norm", "head"}), frozenset()),
    "class token": Ends(frozenset({"patch", "position", "class_token"}), frozenset({"norm", "head"}), frozenset()),
    "tied": Ends(frozenset(), frozenset({"norm"}), frozenset({"embedding"})),
    "untied": Ends(frozenset({"embedding", "position"}), frozenset({"norm", "head"}), frozenset()),
    "encoder": Ends(
        frozenset({"position", "norm"}), frozenset({"transform", "head_bias"}), frozenset({"embedding"})
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_ends_belong_to_what_reads_them(name):
    net: Any = build_supernet(SPACES[name])
    ends = ends_of(net)
    assert ends == ENDS[name]
    assert ends.of(0, 3) == ends.first
    assert ends.of(1, 3) == frozenset()
    assert ends.of(2, 3) == ends.last


def random_weights(net, seed):
    """Weights that are all different, biases and scales too."""
    leaves, tree = jax.tree.flatten(net.shapes)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32) for leaf in leaves])


@pytest.mark.parametrize("name", ["class token", "tied"])
def test_a_hybrid_and_the_assembled_network_compute_the_layers_in_a_row(name):
    """A hybrid is the plain network of meta layers and fresh ones; of hybrids, each gives its own module and ends."""
    space, modules, layers = SPACES[name], 3, 2
    ends = ENDS[name]
    meta = random_weights(build_supernet(divided(space, {MODULE: modules})), 0)
    rows = meta[MODULE]["layers"]
    hybrids = []
    for index in range(modules):
        cut = divided(space, layers_of_hybrid(index, modules, layers))
        net, fresh = build_supernet(cut), random_weights(build_supernet(cut), index + 1)
        hybrid = hybrid_weights(meta, fresh, index, ends)
        assert jax.tree.map(jnp.shape, hybrid) == jax.tree.map(jnp.shape, fresh)
        stack = [
            jax.tree.map(lambda leaf, at=at: leaf[at], tree)
            for tree, at in ((rows, slice(0, index)), (fresh[MODULE]["layers"], slice(0, layers)),
                             (rows, slice(index + 1, modules)))
        ]  # fmt: skip
        outside = {n: (fresh if n in ends.of(index, modules) else meta)[n] for n in meta if n != MODULE}
        plain = dataclasses.replace(space, depth=(modules - 1 + layers,))  # type: ignore[type-var]
        expected = {**outside, "layers": jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *stack)}
        whole, x = build_supernet(plain), example(net)
        np.testing.assert_array_equal(logits(net, hybrid, x), logits(whole, expected, x))
        hybrids.append(hybrid)
    found = assembled_weights(meta, hybrids, ends, "layers")
    net = build_supernet(space)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(lambda leaf: leaf.shape, net.shapes)
    for index, hybrid in enumerate(hybrids):
        own = jax.tree.map(lambda leaf, i=index: leaf[i * layers : (i + 1) * layers], found["layers"])
        same(own, hybrid[MODULE]["layers"])
    for names, tree in ((ends.first, hybrids[0]), (ends.last, hybrids[-1]), (ends.shared, meta)):
        same({n: found[n] for n in names}, {n: tree[n] for n in names})


def same(a, b):
    """All leaves are equal, to the bit."""
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(bits(x), bits(y)), a, b)


def bits(leaf):
    return np.asarray(leaf).view(np.uint32)


def example(net):
    one = net.example(net.space.largest)
    if one.dtype == jnp.int32:
        return jnp.asarray(np.random.default_rng(0).integers(0, 250, (2, *one.shape)), jnp.int32)
    return jax.random.normal(jax.random.key(0), (2, *one.shape))


def logits(net, params, x):
    genes = jnp.asarray(net.space.largest.genes, jnp.int32)
    return net.apply(params, genes, x, program=net.space.program(net.space.largest.genes))[0]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_step_moves_the_module_as_a_whole_step_would_and_nothing_else(index):
    space, ends = SPACES["class token"], ENDS["class token"]
    cut = divided(space, layers_of_hybrid(index, 3, 2))
    net, names = build_supernet(cut), ends.of(index, 3) | {MODULE}
    params, x = random_weights(net, 5), example(net)
    # Zeros of both signs: adding an update of zero would lose the sign of one.
    frozen = next(name for name in (BEFORE, AFTER) if name in params)
    params[frozen]["layers"]["norm1"]["bias"] = params[frozen]["layers"]["norm1"]["bias"].at[:].set(-0.0)
    genes, targets = np.array([cut.largest.genes], np.int32), jnp.array([1, 2], jnp.int32)

    def stepped(trained, optimizer):
        step = TrainStep(net, optimizer, average_decay=0.9, trained=trained)
        state, result = step.init(jax.tree.map(jnp.copy, params)), None
        for _ in range(2):
            state, result = step(state, genes, ("random",), np.ones(1, np.float32), x, targets)
        return state, result

    state, result = stepped(names, optax.sgd(0.1))
    assert result is not None
    assert state.average is not None
    assert float(result.gradient_norm) > 0
    # One step of the whole, of which the frozen part is put back, is the same step.
    whole = TrainStep(net, optax.sgd(0.1), average_decay=0.9)
    expected = jax.tree.map(jnp.copy, params)
    for _ in range(2):
        moved, _ = whole(
            whole.init(jax.tree.map(jnp.copy, expected)), genes, ("random",), np.ones(1, np.float32), x, targets
        )
        expected = {name: (moved.params if name in names else expected)[name] for name in params}
    for name in params:
        if name in names:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.params[name], expected[name]
            )
            assert any(
                (bits(a) != bits(b)).any()
                for a, b in zip(*map(jax.tree.leaves, (state.params[name], params[name])), strict=True)
            )
        else:
            same(state.params[name], params[name])
            assert name not in state.average
    adam, _ = stepped(names, OptimizerSettings(weight_decay=0.1).build(10))
    moments = {path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(optax.tree.get(adam.optimizer, "mu"))}
    assert moments == names  # what is frozen is not in the optimiser
    same({n: adam.params[n] for n in params if n not in names}, {n: params[n] for n in params if n not in names})
