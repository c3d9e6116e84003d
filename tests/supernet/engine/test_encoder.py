"""Encoders without classes: every pass gives the relation heads of the last layer, with the textbook's gradients."""

import jax
import numpy as np
import pytest

from search_spaces import build_space
from supernet.engine.supernet import build_supernet
from tests.supernet.engine.test_parity import assert_close, assert_gradients_close
from tests.supernet.families import SETTINGS, Family

RELATIONS = {**SETTINGS["encoder"], "width": [16], "heads": [1, 2], "classes": 0, "context": 5}


@pytest.fixture(scope="module")
def family() -> Family:
    return Family(build_supernet(build_space("encoder", "small", RELATIONS)))


def test_all_passes_give_the_textbooks_relation_heads(family: Family) -> None:
    drawn = family.covering(6)
    for genes in drawn:
        program, expected = family.space.program(genes), family.truth(tuple(genes))
        for logits, gradients in (family.switched(genes, program), family.masked(genes, program)):
            assert_close(logits, expected.logits)
            assert_gradients_close(gradients, expected.gradients)
    module, _ = family.net.extract(family.params, family.space.architecture(drawn[-1]))
    assert_close(jax.jit(module)(family.x), family.truth(tuple(drawn[-1])).logits)


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
