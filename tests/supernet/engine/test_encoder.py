"""Encoders without classes, and with bottlenecks: every pass gives the textbook's outputs and gradients."""

import jax
import numpy as np
import pytest

from search_spaces import UserError, build_space
from supernet.engine.supernet import build_supernet
from tests.reference import counted, reference
from tests.supernet.engine.test_parity import assert_close, assert_gradients_close
from tests.supernet.families import SETTINGS, Family

SIZES = {**SETTINGS["encoder"], "width": [16], "classes": 0, "context": 5, "bottleneck": [8, 16]}


@pytest.fixture(scope="module")
def family() -> Family:
    return Family(build_supernet(build_space("encoder", "small", SIZES)))


def test_all_passes_give_the_textbooks_relation_heads_and_costs(family: Family) -> None:
    drawn, space = family.covering(6), family.space
    costs, x = space.cost(drawn), jax.ShapeDtypeStruct((1, 5), np.int32)
    for i, genes in enumerate(drawn):
        program, expected = space.program(genes), family.truth(tuple(genes))
        for logits, gradients in (family.switched(genes, program), family.masked(genes, program)):
            assert_close(logits, expected.logits)
            assert_gradients_close(gradients, expected.gradients)
        description = dict(space.architecture(genes).description)
        found = counted(reference("encoder"), family.net.shapes, x, description, space)
        assert found == {name: costs[name][i] for name in found}
    module, _ = family.net.extract(family.params, family.space.architecture(drawn[-1]))
    assert_close(jax.jit(module)(family.x), family.truth(tuple(drawn[-1])).logits)


def test_projections_around_a_layer_begin_as_identities(family: Family) -> None:
    fresh = family.net.plain_weights(jax.random.key(0))["layers"]
    for name in ("narrow", "widen"):
        assert (fresh[name]["kernel"] == np.eye(16)).all()
        assert not fresh[name]["bias"].any()


def test_a_bottleneck_is_no_wider_than_the_stream_and_changes_nothing_where_there_is_none() -> None:
    with pytest.raises(UserError, match=r"space.bottleneck: 32 is more than the width 16. Give at most that."):
        build_space("encoder", "small", {**SIZES, "bottleneck": [8, 32]})
    known = build_space("encoder", "autodistil_tiny").fingerprint
    assert known == "cfe9479b8c8fd5b5b6129d635040b5bcd1be0dc7bf7df3f8d2d103e77c86eac0"


def test_layers_are_those_at_floor_of_i_times_layers_over_depth() -> None:
    tiny = build_space("encoder", "autodistil_tiny")
    kept = {4: [0, 3, 6, 9], 5: [0, 2, 4, 7, 9], 6: [0, 2, 4, 6, 8, 10], 7: [0, 1, 3, 5, 6, 8, 10]}
    assert {depth: tiny.kept(depth) for depth in tiny.depth} == kept  # type: ignore[attr-defined]
    assert tiny.used == sorted({layer for layers in kept.values() for layer in layers})  # type: ignore[attr-defined]
    for name in ("tiny", "small", "base"):
        space = build_space("encoder", f"autodistil_{name}")
        assert space.size == 256
        genes = space.sample(np.random.default_rng(0), 20)
        for column in range(4):
            low, high = genes.copy(), genes.copy()
            low[:, column], high[:, column] = 0, 3
            assert (space.cost(low)["params"] < space.cost(high)["params"]).all()
