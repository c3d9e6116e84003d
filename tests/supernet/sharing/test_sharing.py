"""The contract of sharing schemes, over all families and schemes; and OFA's kernel transform against its formula."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from search_spaces import FAMILIES, UserError, build_space
from search_spaces.registry import Registry
from supernet.engine.supernet import SUPERNETS, build_supernet
from supernet.engine.superposed import SuperposedSupernet, one_hot, values_of
from supernet.sharing import SHARING, WeightSharing
from supernet.training.gene_norms import GeneNorms
from supernet.weights.cuts import at
from tests.marks import COMPLETE, sampled, slow_but
from tests.supernet.engine.test_parity import assert_close, assert_gradients_close
from tests.supernet.families import SETTINGS, Family

# One program; one stage of two blocks, and kernels of three sizes.
SMALLER = {
    "mobilenet": {
        "resolution": [6], "depth": [1, 2], "kernel": [3, 5, 7], "expand": [1, 2], "widths": [8], "strides": [2],
        "squeeze_excite": [True], "activations": ["hard_swish"],
    },
    "vit": {"width": [16], "depth": [1, 2]},
    "language": {"width": [16], "depth": [1, 2], "adapter_rank": [1, 2]},
    "nas_bench_201": {"cells": 1, "stages": 1, "image_size": 4, "edge_3_2": ["pool_3x3"], "edge_3_0": ["skip"]},
    "darts": {
        "nodes": 1, "width": 2,
        "normal_operations": ["sep_conv_3x3", "sep_conv_5x5"], "reduction_operations": ["sep_conv_3x3", "skip_connect"],
    },
}  # fmt: skip
DRAWN = 6


def space_of(family: str) -> Any:
    return build_space(family, "small", SETTINGS.get(family, {}) | SMALLER.get(family, {}))


def fits(family: str, scheme: str) -> bool:
    try:
        SHARING[scheme](space_of(family))
    except UserError:
        return False
    return True


FAMILIES_TESTED = sorted(family for family in SUPERNETS if "small" in FAMILIES[family].presets)
PAIRS = [(family, scheme) for family in FAMILIES_TESTED for scheme in sorted(SHARING)]
FITTING = [pair for pair in PAIRS if fits(*pair)]
QUICK = [("vit", "entangled"), ("mobilenet", "kernel_transform"), ("vit", "mixture")]


@cache
def made(family: str, scheme: str) -> Family:
    return Family(build_supernet(space_of(family), scheme))


SAMPLED = [(family, scheme) for family, scheme in FITTING if family in sampled([family])]


@pytest.fixture(params=slow_but(QUICK, SAMPLED), ids="-".join)
def case(request: pytest.FixtureRequest) -> Family:
    return made(*request.param)


def test_every_scheme_fits_a_family() -> None:
    assert {scheme for _, scheme in FITTING} == set(SHARING)


@pytest.mark.parametrize(("family", "scheme"), [pair for pair in PAIRS if pair not in FITTING])
def test_a_scheme_that_does_not_fit_is_refused_in_one_line_that_names_both(family: str, scheme: str) -> None:
    with pytest.raises(UserError, match=rf"^supernet\.sharing: {scheme} .* family {family} .*\.$") as found:
        build_supernet(space_of(family), scheme)
    assert "\n" not in str(found.value)


def test_all_passes_are_one_network(case: Family) -> None:
    net: Any = case.net
    superposed = jax.jit(net.apply_superposed) if isinstance(net, SuperposedSupernet) else None
    for i, genes in enumerate(case.draw(DRAWN)):
        program, architecture = case.space.program(genes), case.space.architecture(genes)
        logits, gradients = case.switched(genes, program)
        masked, masked_gradients = case.masked(genes, program)
        assert_close(masked, logits)
        assert_gradients_close(masked_gradients, gradients)
        if superposed is not None:
            assert_close(superposed(case.params, one_hot(case.space, genes), case.x), logits)
        if i == 2:
            sliced, sliced_gradients = case.sliced(genes)
            assert_close(sliced, logits)
            assert_gradients_close(sliced_gradients, gradients)
        statistics, calibrated = case.calibrated(genes, program)
        module, _ = net.extract(case.params, architecture, statistics)
        assert_close(module(case.input(architecture)), calibrated)


def test_extraction_gives_plain_weights(case: Family) -> None:
    for genes in case.draw(DRAWN):
        architecture = case.space.architecture(genes)
        statistics = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), case.net.statistics_shapes)
        _, weights = case.net.extract(case.params, architecture, statistics)
        fresh = nnx.to_pure_dict(nnx.state(case.net.module(architecture)))
        assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, fresh)


def test_fresh_weights_give_the_plain_networks(case: Family) -> None:
    plain = build_supernet(case.space)
    params, own = (net.init(jax.random.key(3)) for net in (plain, case.net))
    for genes in case.draw(DRAWN):
        effective: Any = case.net.sharing.effective(own, jnp.asarray(genes))
        same = params if case.net.sharing.keeps_plain else effective
        architecture = case.space.architecture(genes)
        statistics = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), case.net.statistics_shapes)
        expected, found = (
            net.extract(tree, architecture, statistics)[1] for net, tree in ((plain, same), (case.net, own))
        )
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_nested_kernel_is_the_centre_of_the_one_around_it() -> None:
    case = made("nas_bench_201", "nested_kernels")
    effective: Any = case.net.sharing.effective(case.params, jnp.asarray(case.space.largest.genes))
    for edge in ("edge_1_0", "edge_2_1"):
        own, both = case.params["stage_0"]["cells"][edge], effective["stage_0"]["cells"][edge]
        assert set(own["conv_1x1"]) == {"conv_norm"}
        centre = own["conv_3x3"]["conv"]["kernel"][:, 4]
        np.testing.assert_array_equal(both["conv_1x1"]["conv"]["kernel"][:, 0], centre)


def test_kernels_of_separable_and_of_dilated_convolutions_are_nested_apart() -> None:
    settings = {"nodes": 1, "cells": 3, "width": 2, "image_size": 4}
    net = build_supernet(build_space("darts", "small", settings), "nested_kernels")
    params: Any = net.init(jax.random.key(0))
    effective: Any = net.sharing.effective(params, jnp.asarray(net.space.largest.genes))
    for stack in ("cell_0/edges", "cell_1/strided/edges"):
        own, whole = at(params, stack), at(effective, stack)
        for kind, parts in (("sep", ("first", "second")), ("dil", ("dilated",))):
            for part in parts:
                assert f"{part}_depthwise" not in own[f"{kind}_conv_3x3"]
                around = own[f"{kind}_conv_5x5"][f"{part}_depthwise"]["kernel"].reshape(2, 5, 5, -1)
                inside = whole[f"{kind}_conv_3x3"][f"{part}_depthwise"]["kernel"].reshape(2, 3, 3, -1)
                np.testing.assert_array_equal(inside, around[:, 1:4, 1:4])


def test_effective_weights_are_laid_out_as_plain_ones_and_changed_where_said(case: Family) -> None:
    net, key = case.net, "/"
    plain: Any = traverse_util.flatten_dict(net.plain_shapes, sep=key)
    params = traverse_util.flatten_dict(case.params, sep=key)
    for genes in case.space.extremes:
        effective: Any = traverse_util.flatten_dict(net.sharing.effective(case.params, jnp.asarray(genes)), sep=key)
        assert {path: leaf.shape for path, leaf in effective.items()} == {p: leaf.shape for p, leaf in plain.items()}
        for path in effective.keys() - net.sharing.changed:
            np.testing.assert_array_equal(effective[path], params[path])


def test_gradients_reach_every_weight_and_none_outside_the_subnet(case: Family) -> None:
    reached: Any = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), case.params)
    norms = jax.jit(GeneNorms(case.net))
    for genes in case.draw(80 if COMPLETE else 20):  # those of `COMBINED` have many genes
        gradients = case.switched(genes, case.space.program(genes))[1]
        reached = jax.tree.map(lambda r, g: r | (np.asarray(g) != 0), reached, gradients)
        by_gene = np.asarray(norms(gradients))
        assert not by_gene[~case.space.active(genes[None])[0]].any()
    for path, leaf in jax.tree_util.tree_leaves_with_path(reached):
        assert leaf.any(), jax.tree_util.keystr(path)


def test_the_scheme_of_the_documentation() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "extending.md").read_text(encoding="utf-8")
    (block,) = (part for part in text.split("```python\n") if "SHARING.register" in part)
    code = block.partition("```")[0].replace("from supernet.sharing import SHARING, WeightSharing", "")
    exec(code, found := {"SHARING": Registry("scheme", "supernet.sharing"), "WeightSharing": WeightSharing})
    plain = made("vit", "entangled")
    net = SUPERNETS["vit"](plain.space, found["ScaledHead"](plain.space))
    params = net.shared(plain.params, jax.random.key(0))
    params["head"]["scale"] = jnp.float32(3)
    expected, weights = (n.extract(p, plain.space.largest)[1] for n, p in ((plain.net, plain.params), (net, params)))
    np.testing.assert_array_equal(weights["head"].pop("kernel"), 3 * expected["head"].pop("kernel"))
    jax.tree.map(np.testing.assert_array_equal, weights, expected)
    assert np.isfinite(np.asarray(GeneNorms(net)(params))).all()


# ---------------------------------------------------------------- kernel transform


def by_formula(kernel: np.ndarray, matrices: dict[str, np.ndarray], size: int) -> np.ndarray:
    """A smaller kernel [s, s, c] as the released code of OFA makes it, channel by channel."""
    current = {c: kernel[:, :, c] for c in range(kernel.shape[-1])}
    for large, small in ((7, 5), (5, 3)):
        if size >= large:
            break
        for c, whole in current.items():
            crop = whole[1 : 1 + small, 1 : 1 + small].reshape(-1)
            matrix = matrices[f"{large}to{small}"]
            current[c] = np.array([np.dot(row, crop) for row in matrix]).reshape(small, small)
    return np.stack(list(current.values()), axis=-1)


def test_kernels_are_those_of_the_formula() -> None:
    case = made("mobilenet", "kernel_transform")
    space, rng = case.space, np.random.default_rng(0)
    for genes in space.sample(rng, 8):
        architecture = space.architecture(genes)
        statistics = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), case.net.statistics_shapes)
        _, weights = case.net.extract(case.params, architecture, statistics)
        blocks = iter(weights["blocks"].values())
        for block, size in enumerate(architecture.description["kernel"]):
            part = case.params["stage_0"]["rest" if block else "entry"]["depthwise"]
            part = {name: np.asarray(leaf[block - 1] if block else leaf) for name, leaf in part.items()}
            found = np.asarray(next(blocks)["depthwise"]["kernel"])
            expected = by_formula(part["kernel"], part, size)[..., : found.shape[-1]]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_mixture_is_that_of_the_transformed_kernels() -> None:
    case = made("mobilenet", "kernel_transform")
    net: Any = case.net
    space: Any = case.space
    values = values_of(space)
    relaxed = np.random.default_rng(0).uniform(0.2, 1, values.shape) * values
    relaxed = (relaxed / relaxed.sum(axis=1, keepdims=True)).astype(np.float32)
    expand = space.column("expand")
    relaxed[expand] = np.eye(relaxed.shape[1])[1]  # all channels, so that only kernels are mixed
    found = net.superpose(case.params, jnp.asarray(relaxed))["stage_0"]["entry"]["depthwise"]["kernel"]
    part = {name: np.asarray(leaf) for name, leaf in case.params["stage_0"]["entry"]["depthwise"].items()}
    expected = 0
    for weight, size in zip(relaxed[space.column("kernel")], space.kernel, strict=True):
        edge = (7 - size) // 2
        expected += weight * np.pad(by_formula(part["kernel"], part, size), [(edge, edge), (edge, edge), (0, 0)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_kernel_gene_governs_its_block_s_kernel_and_matrices() -> None:
    case = made("mobilenet", "kernel_transform")
    space = case.space
    part = case.params["stage_0"]["rest"]["depthwise"]
    expected = np.sqrt(sum(float(jnp.sum(jnp.square(leaf[0]))) for leaf in part.values()))
    assert set(part) == {"kernel", "7to5", "5to3"}
    norms = np.asarray(GeneNorms(case.net)(case.params))
    assert norms[space.column("kernel", 0, 1)] == pytest.approx(expected, rel=1e-5)
