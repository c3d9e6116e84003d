"""Divided spaces: the same networks with their layers in several stacks, and what cannot be cut."""

import re

import numpy as np
import pytest

from search_spaces import UserError, build_space
from search_spaces.divided import check_modules, divided

VIT = build_space("vit", "small", {"width": [16, 32], "depth": [6], "heads": [1, 2], "mlp_ratio": [1.0]})
LANGUAGE = {"width": [16], "depth": [6], "kv_heads": [1], "mlp_width": [32], "head_size": 8}


def test_a_divided_space_has_the_networks_of_its_depth_and_their_costs():
    whole = build_space("vit", "small", {"width": [16, 32], "depth": [5], "heads": [1, 2], "mlp_ratio": [1.0]})
    parts = divided(VIT, {"before": 2, "module": 3, "after": 0})
    assert [stack.path for stack in parts.network.stacks] == ["before/layers", "module/layers"]
    assert parts.fingerprint == whole.fingerprint
    genes = whole.sample(np.random.default_rng(0), 20)
    for metric, values in whole.cost(genes).items():
        np.testing.assert_array_equal(parts.cost(genes)[metric], values)
    assert [stack.path for stack in VIT.network.stacks] == ["layers"]  # the space itself stays as it was


@pytest.mark.parametrize(
    ("family", "settings", "modules", "text"),
    [
        ("vit", {"depth": [6]}, 4, "x.modules: 4 modules of two or more layers each do not divide the 6 layers of "
         "space.depth. Give 2 or 3."),
        ("vit", {"depth": [6]}, 6, "do not divide the 6 layers of space.depth. Give 2 or 3."),
        ("vit", {"depth": [5]}, 2, "do not divide the 5 layers of space.depth. Give a depth that divides."),
        ("vit", {}, 2, "space.depth: [3, 4, 5, 6] are several depths, and x cuts networks of one depth into modules. "
         "Give one, such as [6]."),
        ("language", {**LANGUAGE, "keep": "equidistant"}, 2, "space.keep: chooses layers of elastic depths, and x"),
        ("mobilenet", None, 2, "x: family mobilenet has no single stack of equal layers that modules could be cut "
         "from. Use language or vit, or leave it out."),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_in_one_line(family, settings, modules, text):
    space = build_space(family, "small", settings or {})
    with pytest.raises(UserError, match=re.escape(text)) as raised:
        check_modules(space, modules, "x")
    assert "\n" not in str(raised.value)


def test_modules_that_fit_are_taken():
    check_modules(VIT, 2, "x")
    check_modules(VIT, 3, "x")
    check_modules(build_space("language", "small", LANGUAGE), 3, "x")
