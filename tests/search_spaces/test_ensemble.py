"""Ensembles of any family: their choices, what they cost, and what is refused."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from search_spaces import SearchSpace, UserError, build_space
from search_spaces.ensemble import Ensemble
from search_spaces.network import Network
from search_spaces.vit import ViTSpace

FAMILIES = ("vit_ensemble", "mobilenet_ensemble", "nas_bench_201_ensemble")


def small(family: str, **settings: object) -> Ensemble:
    space = build_space(family, "small", {"members": [1, 2, 3], "private": [0, 1, 2], **settings})
    assert isinstance(space, Ensemble)
    return space


def costs_of(space: SearchSpace, genes: np.ndarray) -> dict[str, int]:
    return {metric: int(values[0]) for metric, values in space.cost(genes).items()}


def with_values(space: Ensemble, row: np.ndarray, **values: int) -> np.ndarray:
    """The architecture with other values of some choices."""
    row = row.copy()
    for name, value in values.items():
        row[space.column(name)] = getattr(space, name).index(value)
    return space.canonical(row[None])


@pytest.mark.parametrize("family", FAMILIES)
def test_one_member_costs_what_its_base_network_costs(family: str) -> None:
    space, rng = small(family), np.random.default_rng(0)
    for row in space.sample(rng, 10):
        alone = with_values(space, row, members=1)
        assert costs_of(space, alone) == costs_of(space.base, alone[:, space.member_columns[0]])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_further_member_costs_its_own_layers_whatever_the_others(family: str) -> None:
    space, rng = small(family), np.random.default_rng(1)
    for row in space.sample(rng, 10):
        for private in space.private:
            row[space.member_columns[2]] = row[space.member_columns[1]]
            one, two, three = (costs_of(space, with_values(space, row, members=m, private=private)) for m in (1, 2, 3))
            for metric in ("params", "macs", "activation_bytes"):
                assert 0 < two[metric] - one[metric] == three[metric] - two[metric] < one[metric] or private


def test_a_cell_member_costs_its_cells_reductions_and_head() -> None:
    space = build_space("nas_bench_201_ensemble", "small", {"members": [1, 2], "private": [0, 1, 2, 3, 4, 5]})
    edges = ["conv_3x3", "none", "conv_1x1", "skip", "conv_3x3", "pool_3x3"]
    names = [choice.name for choice in space.choices][:6]
    described = dict(zip(names, ["conv_1x1"] * 6, strict=True))
    one = costs_of(space, np.array([space.encode({**described, "members": 1}).genes], np.int32))

    def convolutions(width: int) -> int:
        return (9 + 1 + 9) * width**2 + 3 * 2 * width

    def reduction(width: int) -> int:
        return 9 * width * width // 2 + 9 * width**2 + width * width // 2 + 2 * 2 * width

    head = 2 * 32 + 32 * 10 + 10
    layers = [convolutions(32), reduction(32), convolutions(16), reduction(16), convolutions(8)]  # from the last
    for private in range(6):
        own = dict(zip([f"{name}_2" for name in names], edges, strict=True)) if private else {}
        pair = space.encode({**described, "members": 2, "private": private, **own})
        found = costs_of(space, np.array([pair.genes], np.int32))
        assert found["params"] - one["params"] == head + sum(layers[:private]), private


def test_a_vit_member_costs_its_layers_and_head() -> None:
    space = small("vit_ensemble")
    width, depth, heads, ratio, tokens, classes = 48, 4, 3, 2.0, 16, 10
    described = {"width": width, "depth": depth, "heads": [2] * depth, "mlp_ratio": [1.0] * depth}
    inner, hidden = heads * 16, int(width * ratio)
    layer = 4 * width * inner + 3 * inner + width + 2 * width * hidden + hidden + width + 4 * width
    head = 2 * width + width * classes + classes
    one = space.cost(np.array([space.encode({**described, "members": 1}).genes], np.int32))
    for private, layers in ((0, 0), (1, 2), (2, 3)):  # of four, three are in every network
        own = {"heads_2": [heads] * layers, "mlp_ratio_2": [ratio] * layers} if layers else {}
        pair = space.encode({**described, "members": 2, "private": private, **own})
        cost = space.cost(np.array([pair.genes], np.int32))
        assert cost["params"][0] - one["params"][0] == layers * layer + head
        macs = tokens * (4 * width * inner + 2 * width * hidden) + 2 * tokens**2 * inner
        assert cost["macs"][0] - one["macs"][0] == layers * macs + width * classes


@pytest.mark.parametrize("family", FAMILIES)
def test_more_private_layers_and_more_members_cost_more(family: str) -> None:
    space = small(family)
    row = space.sample(np.random.default_rng(2), 1)[0]
    by_private = [costs_of(space, with_values(space, row, members=2, private=p))["params"] for p in space.private]
    by_members = [costs_of(space, with_values(space, row, members=m, private=1))["params"] for m in space.members]
    assert by_private == sorted(by_private)
    assert by_private[0] < by_private[-1]
    assert by_members == sorted(set(by_members))


def test_genes_of_shared_layers_and_absent_members_mean_nothing() -> None:
    space = small("vit_ensemble")
    row = space.deepest.genes
    described = space.architecture(with_values(space, np.array(row), members=2, private=1)[0]).description
    assert "heads_3" not in described
    assert len(described["heads_2"]) == 4  # six layers, of which the first two are shared
    assert "private" not in space.architecture(with_values(space, np.array(row), members=1)[0]).description


def with_exchanged(space: Ensemble, rows: np.ndarray, one: int, other: int) -> np.ndarray:
    """The same ensembles, two members of which have changed the genes that both have of their own."""
    first, second = space.member_columns[one - 1], space.member_columns[other - 1]
    own, exchanged = space.active(rows)[:, second], rows.copy()
    exchanged[:, first] = np.where(own, rows[:, second], rows[:, first])
    exchanged[:, second] = np.where(own, rows[:, first], rows[:, second])
    return exchanged


@pytest.mark.parametrize("family", FAMILIES)
def test_members_in_another_order_are_isomorphic(family: str) -> None:
    space = small(family)
    rows = np.concatenate([with_values(space, row, members=3) for row in space.sample(np.random.default_rng(3), 60)])
    found, other = space.isomorphic(rows), with_exchanged(space, rows, 2, 3)
    assert (rows != other).any()
    np.testing.assert_array_equal(space.isomorphic(other), found)
    np.testing.assert_array_equal(space.isomorphic(found), found)
    np.testing.assert_array_equal(space.active(found), space.active(rows))
    assert len(np.unique(found, axis=0)) > 30


def test_the_first_member_changes_places_only_where_no_shared_layer_reads_its_genes() -> None:
    vit = small("vit_ensemble")
    rows = np.concatenate([with_values(vit, row, members=3) for row in vit.sample(np.random.default_rng(4), 60)])
    other = with_exchanged(vit, rows, 1, 3)
    np.testing.assert_array_equal(vit.isomorphic(rows), vit.isomorphic(other))
    for metric, costs in vit.cost(rows).items():
        np.testing.assert_array_equal(costs, vit.cost(other)[metric])
    cells = build_space("nas_bench_201_ensemble", "small", {"members": [2], "private": [1, 5]})
    assert isinstance(cells, Ensemble)
    for private, alike in ((1, False), (5, True)):  # of three cells two are shared, or none
        row = with_values(cells, np.array([3] * 6 + [0] * 2 + [2] * 6, np.int32), private=private)
        other = with_exchanged(cells, row, 1, 2)
        assert np.array_equal(cells.isomorphic(row), cells.isomorphic(other)) == alike


def test_members_with_isomorphic_cells_are_isomorphic() -> None:
    space = build_space("nas_bench_201_ensemble", "small", {"members": [2], "private": [1]})
    names = [choice.name for choice in space.choices][:6]
    shared = dict(zip(names, ["conv_1x1"] * 6, strict=True))

    def pair(*cell: str) -> np.ndarray:
        own = dict(zip([f"{name}_2" for name in names], cell, strict=True))
        return np.array([space.encode({**shared, "members": 2, "private": 1, **own}).genes], np.int32)

    one, other, third = (  # nodes 0 and 1 are one in all
        pair("skip", *edges, "none", "none", "skip")
        for edges in (("conv_3x3", "conv_1x1"), ("conv_1x1", "conv_3x3"), ("conv_1x1", "conv_1x1"))
    )
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(space.isomorphic(one), space.isomorphic(other))
    assert not np.array_equal(space.isomorphic(one), space.isomorphic(third))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"members": [0, 2]}, r"space\.members: \[0, 2\] has values outside 1\.\.8"),
        ({"members": [2, 9]}, r"space\.members: \[2, 9\] has values outside 1\.\.8"),
        ({"members": []}, r"space\.members: no values"),
        ({"private": []}, r"space\.private: no values"),
        ({"private": [2, 1]}, r"space\.private: \[2, 1\] does not ascend"),
        ({"private": [1, 4]}, r"space\.private: \[1, 4\] has values outside 0\.\.3, the number of layers that every"),
        ({"depth": [0, 2]}, r"space\.depth: \[0, 2\] has values that are not positive"),
    ],
)
def test_what_is_refused(settings: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        build_space("vit_ensemble", "small", settings)


def test_a_means_nothing_value_is_refused_in_a_description() -> None:
    space = small("vit_ensemble")
    alone = space.encode({"width": 32, "depth": 3, "heads": [2] * 3, "mlp_ratio": [1.0] * 3, "members": 1}).description
    with pytest.raises(UserError, match=r"architecture\.private: it means nothing beside the values before"):
        space.encode({**alone, "private": 1})


def test_a_base_that_does_not_say_what_its_head_reads_is_refused() -> None:
    @dataclass(frozen=True)
    class Silent(ViTSpace):
        family = "silent"

        @cached_property
        def network(self) -> Network:
            return replace(ViTSpace(**vit).network, head=())

    @dataclass(frozen=True)
    class SilentEnsemble(Ensemble, Silent):
        family = "silent_ensemble"

    vit: Any = ViTSpace.presets["small"]
    with pytest.raises(UserError, match="silent does not say what its head reads"):
        SilentEnsemble(**vit)
