"""The DARTS space: published counts and genotypes, and which cells are one network."""

import itertools
from typing import Any

import numpy as np
import pytest

from search_spaces import UserError, build_space
from search_spaces.darts import OPERATIONS, SIDES, DARTSSpace, Genotype

# The cell that the authors of DARTS ship as DARTS_V2, of 3.3 million parameters on CIFAR-10.
DARTS_V2: Genotype = {
    "normal": (
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2),
    ),
    "reduction": (
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1),
    ),
}  # fmt: skip


def darts(preset: str = "published", **settings: Any) -> DARTSSpace:
    space = build_space("darts", preset, settings)
    assert isinstance(space, DARTSSpace)
    return space


SPACE = darts()
NARROW = {"normal_operations": ("sep_conv_3x3", "skip_connect"), "reduction_operations": ("sep_conv_3x3",)}


def test_the_published_cell_has_the_published_parameters() -> None:
    costs = SPACE.cost(np.array([SPACE.of_genotype(DARTS_V2).genes], np.int32))
    assert costs["params"][0] == by_hand(DARTS_V2, 36, 20) == 3_349_342


def by_hand(genotype: Genotype, width: int, cells: int) -> int:
    """Parameters in closed form: k² w + w² + 2 w a convolution of an edge, twice that where it is separable."""
    stem = 3 * width
    total, before, last, was_reduction = 27 * stem + 2 * stem, stem, stem, False
    for cell in range(cells):
        reduction = cell in (cells // 3, 2 * cells // 3)
        width *= 1 + reduction
        total += (before + last) * width + 4 * width
        for operation, source in genotype["reduction" if reduction else "normal"]:
            if operation in SIDES:
                total += (SIDES[operation] ** 2 * width + width**2 + 2 * width) * (1 + operation.startswith("sep"))
            elif operation == "skip_connect" and reduction and source < 2:
                total += width**2 + 2 * width
        before, last, was_reduction = last, 4 * width, reduction
    assert not was_reduction
    return total + 10 * last + 10


def test_parameters_of_random_cells_are_those_of_the_closed_form() -> None:
    space = darts("small")
    genes = space.sample(np.random.default_rng(0), 50)
    found = space.cost(genes)["params"]
    # `small` has pictures of 16 pixels, whose sides are no part of the parameters.
    expected = [by_hand(space.genotype(space.architecture(row)), space.width, space.cells) for row in genes]
    np.testing.assert_array_equal(found, expected)


def test_the_space_has_two_edges_of_different_sources_a_node() -> None:
    assert SPACE.size == (1 * 3 * 6 * 10 * 7**8) ** 2
    for row in SPACE.sample(np.random.default_rng(1), 50):
        for edges in SPACE.genotype(SPACE.architecture(row)).values():
            assert len(edges) == 8
            for node in range(2, 6):
                (first, a), (second, b) = edges[2 * (node - 2) : 2 * (node - 1)]
                assert a < b < node
                assert {first, second} <= set(OPERATIONS)


def test_genotypes_are_read_and_written_with_the_edges_of_a_node_in_either_order() -> None:
    for row in SPACE.sample(np.random.default_rng(2), 20):
        architecture = SPACE.architecture(row)
        genotype = SPACE.genotype(architecture)
        turned = {
            kind: tuple(edges[i ^ 1] for i in range(len(edges))) for kind, edges in genotype.items()
        }  # fmt: skip
        assert SPACE.of_genotype(genotype) == SPACE.of_genotype(turned) == architecture


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda edges: edges[:-1], r"^genotype\.normal: 7 edges, expected 8: two for each of 4 nodes\."),
        (lambda edges: (("sep_conv_3x3", 1), *edges[1:]), r"^genotype\.normal: node 2 reads 1\+1\. Give it 0 and 1"),
        (lambda edges: (*edges[:-1], ("none", 4)), r"^architecture\.normal_operations\[7\]: 'none' is outside"),
        (lambda edges: (*edges[:-1], ("skip_connect", 5)), r"^architecture\.normal_5_inputs: '0\+5' is outside"),
    ],
)  # fmt: skip
def test_a_genotype_that_is_none_is_refused(change: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SPACE.of_genotype({**DARTS_V2, "normal": change(DARTS_V2["normal"])})


def test_cells_whose_nodes_are_renumbered_are_isomorphic() -> None:
    """Against all renumberings of graphs, of every cell of three nodes and two operations."""
    fixed = {f"reduction_{node}_inputs": ["0+1"] for node in (3, 4)}
    space = darts("small", nodes=3, **NARROW, **fixed)
    rows = np.array(list(np.ndindex(*space.cardinalities.tolist())), np.int32)
    first = space.isomorphic(rows)
    assert len(rows) == 3 * 6 * 2**6
    np.testing.assert_array_equal(space.isomorphic(first), first)

    def classes(kind: str) -> list[Any]:
        return [smallest(space.genotype(space.architecture(row))[kind]) for row in rows]

    words = list(zip(classes("normal"), classes("reduction"), strict=True))
    found = [tuple(row) for row in first.tolist()]
    assert len(set(words)) == len(set(found)) == len(set(zip(words, found, strict=True))) < len(rows)


def smallest(edges: tuple[tuple[str, int], ...]) -> Any:
    """The least description of a cell under all renumberings of its nodes, valid or not."""
    nodes = len(edges) // 2
    described = []
    for order in itertools.permutations(range(nodes)):
        place = [0, 1, *(2 + new for new in order)]
        described.append(
            sorted((place[2 + i // 2], place[source], operation) for i, (operation, source) in enumerate(edges))
        )
    return tuple(min(described))


def test_isomorphic_cells_by_hand() -> None:
    space = darts("small")
    cell = (("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_5x5", 0), ("max_pool_3x3", 1))
    later = (("skip_connect", 0), ("skip_connect", 2), ("skip_connect", 1), ("avg_pool_3x3", 3))
    renumbered = (("skip_connect", 0), ("skip_connect", 3), ("skip_connect", 1), ("avg_pool_3x3", 2))
    other = (("skip_connect", 0), ("skip_connect", 3), ("skip_connect", 1), ("max_pool_3x3", 2))
    normal = (*cell, *later), (*cell[2:], *cell[:2], *renumbered), (*cell[2:], *cell[:2], *other)
    rows = [space.of_genotype({**DARTS_V2, "normal": edges}).genes for edges in normal]
    first = space.isomorphic(np.array(rows, np.int32)).tolist()
    assert first[0] == first[1] != first[2]
    assert rows[0] != rows[1]


def test_costs_do_not_tell_isomorphic_cells_apart() -> None:
    genes = SPACE.sample(np.random.default_rng(3), 200)
    first = SPACE.isomorphic(genes)
    assert (first != genes).any(axis=1).sum() > 50
    # Whether a skip of a reduction cell halves the sides does not change with the number of a node.
    for metric, values in SPACE.cost(genes).items():
        np.testing.assert_array_equal(values, SPACE.cost(first)[metric])


def test_an_edge_that_no_pair_has_is_not_there() -> None:
    space = darts("small", nodes=2, normal_3_inputs=["0+1"], reduction_3_inputs=["0+2"])
    edges = {
        stack.path: [(edge.target, edge.source) for edge in stack.edges]
        for stack in space.network.stacks
        if stack.edges
    }
    assert edges["cell_0/edges"] == [(2, 0), (2, 1), (3, 0), (3, 1)]
    assert edges["cell_1/strided/edges"] == [(0, 0), (0, 1), (1, 0)]
    assert edges["cell_1/edges"] == [(1, 0)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodes": 5}, r"^space\.nodes: 5 is outside 1 to 4\. "),
        ({"cells": 2}, r"^space\.cells: 2 is less than 3\. Give 3 or more, so that there are normal cells\.$"),
        ({"image_size": 3}, r"^space\.image_size: 3 is less than 4\. "),
        ({"width": 0}, r"^space\.width: 0 is less than 1"),
        ({"normal_4_inputs": ["0+4"]}, r"^space\.normal_4_inputs: '0\+4' is not known\. Did you mean '0\+\d'"),
        ({"normal_operations": ["none"]}, r"^space\.normal_operations: 'none' is not known\."),
        ({"nodes": 2, "reduction_5_inputs": ["0+4"]}, r"^space\.reduction_5_inputs: a cell of 2 nodes has no node 5\."),
        ({"reduction_operations": ["skip_connect"]}, r"^space\.reduction_operations: .* no convolution.* Add one of"),
    ],
)  # fmt: skip
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        darts("small", **settings)
    assert "\n" not in str(found.value)
