"""Elastic rank against LoRA in plain NumPy: merged weights, truncation, what gradients reach, what training moves."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from search_spaces import UserError, build_space
from supernet.engine.supernet import Params, Supernet, build_supernet
from supernet.sharing.elastic_rank import ADAPTERS, AdapterSettings, ElasticRank
from supernet.training.optimizer import OptimizerSettings
from supernet.training.training import TrainStep
from tests.supernet.families import SETTINGS

RANKS, ALPHA = (1, 2, 4), 6.0
SPACE: Any = build_space("language", "small", {
    **SETTINGS["language"], "width": [16], "depth": [2], "kv_heads": [2], "mlp_width": [16],
    "adapter_rank": list(RANKS),
})  # fmt: skip
X = jax.random.randint(jax.random.key(7), (4, 7), 0, 19)
PARTS = ("attention/k", "attention/out", "attention/q", "attention/v", "mlp/down", "mlp/gate", "mlp/up")


def of_rank(rank: int) -> np.ndarray:
    """Genes of the largest network with a rank."""
    genes = np.array(SPACE.largest.genes, np.int32)
    genes[SPACE.column("adapter_rank")] = RANKS.index(rank)
    return genes


@cache
def made(**settings: Any) -> tuple[Supernet, Params]:
    """A supernet, and weights whose adapters all matter."""
    net = build_supernet(SPACE, ElasticRank(SPACE, AdapterSettings(alpha=ALPHA, **settings)))
    params = net.init(jax.random.key(0))
    noise = np.random.default_rng(1)
    params[ADAPTERS] = jax.tree.map(
        lambda leaf: leaf + noise.normal(0, 0.3, leaf.shape).astype(np.float32), params[ADAPTERS]
    )
    return net, params


def logits(net: Supernet, params: Params, genes: np.ndarray) -> jax.Array:
    return net.compiled_apply(params, jnp.asarray(genes), X, program=SPACE.program(genes))[0]


def leaves(tree: Params) -> dict[str, np.ndarray]:
    flat: Any = traverse_util.flatten_dict(tree, sep="/")
    return {path: np.asarray(leaf) for path, leaf in flat.items()}


def by_lora(params: Params, rank: int, factor: float) -> dict[str, np.ndarray]:
    """Sums of matrices and adapters, a layer at a time: W + factor * A[:, :r] B[:r]."""
    own = leaves(params)
    found = {path: leaf for path, leaf in own.items() if not path.startswith(ADAPTERS)}
    for part in PARTS:
        path = f"layers/{part}/kernel"
        whole, a, b = own[path], own[f"{ADAPTERS}/{path}/a"], own[f"{ADAPTERS}/{path}/b"]
        sums = []
        for layer in range(2):
            left = a[layer].reshape(-1, RANKS[-1])[:, :rank]
            right = b[layer].reshape(RANKS[-1], -1)[:rank]
            sums.append(whole[layer] + (factor * left @ right).reshape(whole[layer].shape))
        found[path] = np.stack(sums)
    return found


def test_adapters_are_those_of_all_matrices_in_layers_and_of_those_that_are_named():
    net, params = made()
    assert sorted(net.sharing.changed) == sorted(f"layers/{part}/kernel" for part in PARTS)
    _, some = made(products=("q", "v"))
    assert set(some[ADAPTERS]["layers"]) == {"attention"}
    assert set(some[ADAPTERS]["layers"]["attention"]) == {"q", "v"}
    q = params[ADAPTERS]["layers"]["attention"]["q"]["kernel"]
    assert (q["a"].shape, q["b"].shape) == ((2, 16, 4), (2, 4, 2, 2, 8))


FACTORS = {"rank": lambda r: ALPHA / r, "square_root": lambda r: ALPHA / r**0.5, "largest": lambda r: ALPHA / RANKS[-1]}


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("scale", FACTORS)
def test_effective_weights_are_those_of_lora(scale: str, rank: int):
    net, params = made(scale=scale)
    found = leaves(net.sharing.effective(params, jnp.asarray(of_rank(rank))))
    expected = by_lora(params, rank, FACTORS[scale](rank))
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)


def test_fresh_adapters_leave_the_logits_of_the_frozen_network_bit_for_bit():
    net = build_supernet(SPACE, ElasticRank(SPACE, AdapterSettings(alpha=ALPHA)))
    params, plain = (of.init(jax.random.key(5)) for of in (net, build_supernet(SPACE)))
    expected = logits(build_supernet(SPACE), plain, of_rank(4))
    for rank in RANKS:
        np.testing.assert_array_equal(logits(net, params, of_rank(rank)), expected)


def test_a_matrix_with_its_adapter_is_the_sum_of_two_products():
    net, params = made()
    effective: Any = net.sharing.effective(params, jnp.asarray(of_rank(2)))
    x = np.random.default_rng(3).normal(size=(5, 16)).astype(np.float32)
    for part in ("up", "gate"):
        path = "layers", "mlp", part, "kernel"
        own, adapter, merged = params, params[ADAPTERS], effective
        for name in path:
            own, adapter, merged = own[name], adapter[name], merged[name]
        a, b = np.asarray(adapter["a"])[1][:, :2], np.asarray(adapter["b"])[1][:2]
        apart = x @ np.asarray(own)[1] + ALPHA / 2 * (x @ a) @ b
        np.testing.assert_allclose(x @ np.asarray(merged)[1], apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", RANKS)
def test_a_network_of_a_rank_is_that_of_the_first_ranks_alone(rank: int):
    """Ranks beyond its own may hold anything; exported, it has plain weights and the same logits."""
    net, params = made()
    other = jax.tree.map(lambda leaf: leaf, params)
    for adapter in (a for sub in other[ADAPTERS]["layers"].values() for part in sub.values() for a in part.values()):
        adapter["a"] = adapter["a"].at[..., rank:].set(7.0)
        adapter["b"] = adapter["b"].at[:, rank:].set(-7.0)
    expected = logits(net, params, of_rank(rank))
    np.testing.assert_array_equal(logits(net, other, of_rank(rank)), expected)
    module, weights = net.extract(params, SPACE.architecture(of_rank(rank)))
    assert ADAPTERS not in weights
    np.testing.assert_allclose(module(X), expected, rtol=1e-4, atol=1e-5)


def gradients(net: Supernet, params: Params, rank: int) -> dict[str, np.ndarray]:
    genes = of_rank(rank)

    def loss(adapters: Params) -> jax.Array:
        whole = {**params, ADAPTERS: adapters}
        return jnp.sum(jnp.sin(net.apply(whole, jnp.asarray(genes), X, program=SPACE.program(genes))[0]))

    return leaves(jax.jit(jax.grad(loss))(params[ADAPTERS]))


def reached(leaf: np.ndarray, path: str) -> list[int]:
    """Ranks of an adapter with a gradient."""
    ranks = np.moveaxis(leaf, -1 if path.endswith("/a") else 1, 0).reshape(RANKS[-1], -1)
    return np.flatnonzero(ranks.any(axis=1)).tolist()


def test_gradients_reach_the_ranks_of_a_network_or_only_those_that_are_new():
    (every, params), (last, _) = made(), made(trained_ranks="last")
    for rank, new in ((1, [0]), (2, [1]), (4, [2, 3])):
        whole, part = gradients(every, params, rank), gradients(last, params, rank)
        for path in whole:
            assert reached(whole[path], path) == list(range(rank)), path
            assert reached(part[path], path) == new, path
            axis = -1 if path.endswith("/a") else 1
            np.testing.assert_allclose(
                part[path].take(new, axis=axis), whole[path].take(new, axis=axis), rtol=1e-4, atol=1e-6
            )


def test_a_step_moves_adapters_alone_and_the_optimiser_and_average_hold_nothing_else():
    net, params = made()
    step = TrainStep(net, OptimizerSettings(weight_decay=0.1, untouched="hold").build(10), average_decay=0.9)
    before = leaves(jax.tree.map(jnp.copy, params))
    state = step.init(jax.tree.map(jnp.copy, params))
    for _ in range(2):
        state, result = step(state, of_rank(2)[None], ("random",), np.ones(1, np.float32), X, X)
        assert float(result.gradient_norm) > 0
    for path, leaf in leaves(state.params).items():
        if not path.startswith(ADAPTERS):
            np.testing.assert_array_equal(leaf.view(np.int32), before[path].view(np.int32), err_msg=path)
        else:
            moved = leaf != before[path]
            assert reached(moved, path) == [0, 1], path
    held = sum(leaf.size for leaf in jax.tree.leaves(state.optimizer))
    adapters = sum(leaf.size for leaf in jax.tree.leaves(params[ADAPTERS]))
    assert 2 * adapters <= held <= 2 * adapters + 8
    assert state.average is not None
    assert set(state.average) == {ADAPTERS}
    assert set(state.evaluation_params) == set(params)


def test_gene_norms_of_a_step_count_adapters_alone():
    net, params = made()
    step = TrainStep(net, OptimizerSettings().build(10), gene_norms=True)
    _, result = step(
        step.init(jax.tree.map(jnp.copy, params)), of_rank(2)[None], ("random",), np.ones(1, np.float32), X, X
    )
    (path,) = result.paths
    assert path.gene_norms is not None
    found = float(path.gene_norms[SPACE.column("adapter_rank")])
    # Of the first rank, no network of another rank does without.
    whole = float(result.gradient_norm)
    assert 0 < found <= whole * (1 + 1e-5)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"alpha": 0.0}, r"^supernet\.adapters\.alpha: 0\.0 is not positive\. Give a positive number\.$"),
        (
            {"products": ("q", "vv")},
            r"^supernet\.adapters\.products\[1\]: 'vv' is no matrix in a layer\. Did you mean 'v'",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(settings: dict[str, Any], text: str):
    with pytest.raises(UserError, match=text):
        ElasticRank(SPACE, AdapterSettings(**settings))
