"""Blocks that expand to layers: the formulas of TLEG and SWS, their gradients, and what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from search_spaces import UserError, build_space
from search_spaces.divided import at_depths
from supernet.engine.supernet import build_supernet
from supernet.sharing.expansion import LayerExpansion
from supernet.sharing.linear_expansion import LinearExpansion
from supernet.sharing.stage_expansion import StageExpansion
from supernet.training.gene_norms import GeneNorms
from supernet.weights.described import Weights

VIT = {"width": [8], "heads": [1], "mlp_ratio": [1.0], "head_dim": 8, "image_size": 4}
LANGUAGE = {
    "width": [8], "depth": [2, 4], "kv_heads": [1], "mlp_width": [8], "head_size": 8, "vocabulary": 5, "context": 3,
    "keep": "equidistant",
}  # fmt: skip


def vit(*depth: int, **settings: Any) -> Any:
    return build_space("vit", "small", {**VIT, "depth": list(depth), **settings})


def flat(tree: Any) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}


def drawn(scheme: LayerExpansion, blocks: int | None = None) -> Any:
    """Weights at random: of a scheme, or with as many blocks as are given."""
    rng, own = np.random.default_rng(0), {}
    shapes: dict[str, Any] = traverse_util.flatten_dict(Weights(scheme.space).shapes, sep="/")
    for path, leaf in shapes.items():
        shape = (blocks or scheme.blocks, *leaf.shape[1:]) if path in scheme.changed else leaf.shape
        own[path] = jnp.asarray(rng.normal(size=shape), jnp.float32)
    return traverse_util.unflatten_dict(own, sep="/")


def test_layers_are_the_base_and_a_growing_share_of_the_slope() -> None:
    scheme = LinearExpansion(vit(4))
    own = drawn(scheme)
    effective = flat(scheme.effective(own, jnp.asarray(scheme.space.largest.genes)))
    for path, blocks in flat(own).items():
        if path in scheme.changed:
            expected = np.stack([blocks[0] + np.float32(layer / 4) * blocks[1] for layer in range(4)])
            np.testing.assert_allclose(effective[path], expected, rtol=1e-6, atol=1e-7)
            np.testing.assert_array_equal(effective[path][0], blocks[0])
    assert all(path.startswith("layers/") == (path in scheme.changed) for path in effective)


def test_two_blocks_are_stored_for_any_depth() -> None:
    for depth in (2, 7):
        space = vit(depth)
        shapes = jax.eval_shape(LinearExpansion(space).init, Weights(space).shapes, jax.random.key(0))
        layers, one = (sum(leaf.size for leaf in jax.tree.leaves(tree["layers"])) for tree in
                       (shapes, Weights(vit(1)).shapes))  # fmt: skip
        assert layers == 2 * one


def test_stages_are_those_that_were_published() -> None:
    scheme = StageExpansion(vit(16))
    assert scheme.stages == (3, 3, 4, 3, 3)
    assert scheme.terms(12).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4]
    assert scheme.terms(16).tolist() == [0] * 3 + [1] * 3 + [2] * 4 + [3] * 3 + [4] * 3
    assert [StageExpansion(vit(depth)).stages for depth in (1, 3, 5, 6)] == [(1,), (3,), (3, 2), (2, 2, 2)]
    assert StageExpansion(vit(2, 12)).stages == (6, 6)


@pytest.mark.parametrize("scheme", [LinearExpansion, StageExpansion])
@pytest.mark.parametrize("space", [vit(2, 4), build_space("language", "small", LANGUAGE)], ids=["vit", "equidistant"])
def test_an_expansion_is_the_network_of_that_depth_exactly(scheme: type[LayerExpansion], space: Any) -> None:
    sharing = scheme(space)
    own, genes = drawn(sharing), np.array(space.largest.genes)
    for number, depth in enumerate(space.depth):
        genes[space.column("depth")] = number
        architecture, plain = space.architecture(space.canonical(genes[None])[0]), at_depths(space, (depth,))
        trees = sharing.effective(own, jnp.asarray(architecture.genes)), sharing.expanded(own, depth)
        effective, expanded = (jax.tree.map(np.asarray, tree) for tree in trees)
        expected = Weights(space).slice(effective, architecture, {})
        jax.tree.map(np.testing.assert_array_equal, Weights(plain).slice(expanded, plain.largest, {}), expected)


@pytest.mark.parametrize("scheme", [LinearExpansion(vit(4)), StageExpansion(vit(4), (3, 1))], ids=["linear", "stage"])
def test_gradients_of_blocks_are_sums_over_their_layers(scheme: LayerExpansion) -> None:
    own, given = drawn(scheme), drawn(scheme, blocks=4)
    genes = jnp.asarray(scheme.space.largest.genes)
    found = flat(
        jax.jit(lambda own, given: jax.vjp(lambda p: scheme.effective(p, genes), own)[1](given)[0])(own, given)
    )
    shares = {
        "linear_expansion": np.array([[1, 1, 1, 1], [0, 0.25, 0.5, 0.75]]),
        "stage_expansion": np.array([[1, 1, 1, 0], [0, 0, 0, 1]]),
    }[scheme.name]
    for path, gradient in flat(given).items():
        expected = np.tensordot(shares, gradient, 1) if path in scheme.changed else gradient
        np.testing.assert_allclose(found[path], expected, rtol=1e-5, atol=1e-6)


def test_fresh_slopes_are_drawn_as_the_base_and_those_of_constants_are_zero() -> None:
    scheme = LinearExpansion(vit(4))
    plain = drawn(scheme, blocks=4)
    for path, (base, slope) in flat(scheme.init(plain, jax.random.key(0))["layers"]).items():
        np.testing.assert_array_equal(base, flat(plain["layers"])[path][0])
        if path.endswith("kernel"):
            assert (base != slope).any()
            np.testing.assert_array_equal(np.sort(base, axis=None), np.sort(slope, axis=None))
        else:
            assert not slope.any()


def test_blocks_that_layers_share_are_no_part_of_genes_that_a_network_may_lack() -> None:
    space = vit(2, 3, heads=[1, 2])
    net = build_supernet(space, StageExpansion(space, (2, 1)))
    norms = np.asarray(GeneNorms(net)(jax.tree.map(lambda leaf: jnp.ones(leaf.shape), net.shapes)))
    heads = norms[space.columns["heads"].reshape(-1)]
    assert (heads[:2] > 0).all()
    assert heads[2] == 0


@pytest.mark.parametrize(
    ("depth", "stages", "expected"),
    [
        ((4,), (2, 3), r"supernet\.stages: \[2, 3\] are not the 4 layers of the deepest network\. .* such as \[2, 2\]"),
        ((4,), (5, -1), r"supernet\.stages: \[5, -1\] are not the 4 layers"),
        ((1, 4), (2, 2), r"space\.depth: 1 is less than the 2 stages of stage_expansion"),
    ],
)
def test_stages_that_do_not_fit_are_one_line(depth: tuple[int, ...], stages: tuple[int, ...], expected: str) -> None:
    with pytest.raises(UserError, match=f"^{expected}[^\n]*$"):
        StageExpansion(vit(*depth), stages)
