"""Bounds of spaces: sizes, genes and costs that no network has are refused by name, and no count overflows."""

import numpy as np
import pytest

from search_spaces import CostModel, Term, UserError, build_space
from search_spaces.bounds import LARGEST_COST


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("mobilenet", {"resolution": [20, 28_000_000]}, r"^space\.resolution: 28000000 is out of range\. Give at most"),
        ("mobilenet", {"resolution": [8, 10**10]}, r"^space\.resolution: 10000000000 is out of range"),
        ("mobilenet", {"resolution": [20, 2_800_000]}, r"^space: macs of its largest networks is 1.05e\+16, more than"),
        ("mobilenet", {"width_multiplier": 1e300}, r"^space\.width_multiplier: 1e\+300 is out of range"),
        ("mobilenet", {"width_multiplier": 1e11}, r"^space: params of its largest networks"),
        ("vit", {"depth": [1, 10**9]}, r"^space\.depth: 1000000000 is out of range"),
        ("vit", {"depth": [1, 60_000]}, r"^space\.depth: 60,000 layers or blocks to choose for"),
        ("vit", {"mlp_ratio": [1.0, 1e300]}, r"^space\.mlp_ratio: 1e\+300 is out of range"),
        ("vit", {"width": [*range(8, 3000)], "heads": [*range(1, 3000)]}, r"^space: choices of 2992 x "),
        ("language", {"vocabulary": 2**24, "context": 2**24, "max_positions": 2**24}, r"^space: activation_bytes of"),
        ("language", {"depth": [1, 2**24]}, r"^space\.depth: 16,777,216 layers or blocks"),
    ],
)
def test_a_space_beyond_all_networks_is_refused_at_once(family: str, settings: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        len(build_space(family, "small", settings).cost.terms)


def test_sums_are_counted_without_bounds_before_they_are_used() -> None:
    half = np.array([[LARGEST_COST // 2, 0, 0]] * 2, np.int64)
    exact = CostModel(2, [Term((0,), half), Term((1,), half)])
    assert exact(np.zeros((1, 2), np.int32))["params"].tolist() == [LARGEST_COST]
    with pytest.raises(UserError, match="params of its largest networks"):
        CostModel(2, [Term((0,), half), Term((1,), half), Term((0,), half)])
    assert CostModel(2, [Term((0,), half)] * 3, combine=np.maximum) is not None


def test_costs_of_a_plug_in_are_bounded_too() -> None:
    with pytest.raises(UserError, match=r"^space: cost 0 of its largest networks is 1e\+30"):
        Term.tabulate([0], [[1, 2]], lambda value: [10**30 * (value > 1)])
