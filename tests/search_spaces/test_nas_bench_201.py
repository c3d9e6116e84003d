"""The NAS-Bench-201 space: costs as published, and which cells are one network."""

import csv
import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

from search_spaces import UserError, build_space
from search_spaces.nas_bench_201 import OPERATIONS, expression

PUBLISHED = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
SPACE = build_space("nas_bench_201", "published")
EVERY = np.array(list(itertools.product(range(5), repeat=6)), np.int32)
NONE, SKIP, ONE, THREE, POOL = range(5)


def test_costs_are_the_published_ones(data_dir: Path) -> None:
    path = data_dir / "nas_bench_201" / "nb201_accuracy.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    words = [[edge.split("~")[0] for edge in row["arch_str"].strip("|").replace("|+|", "|").split("|")] for row in rows]
    genes = np.array([[PUBLISHED.index(word) for word in of_edges] for of_edges in words], np.int32)
    assert len(np.unique(genes, axis=0)) == SPACE.size == 15_625
    for column, classes in (("c10", 10), ("c100", 100)):
        costs = build_space("nas_bench_201", "published", {"classes": classes}).cost(genes)
        params = np.array([float(row[f"{column}_params_M"]) for row in rows])
        np.testing.assert_allclose(costs["params"] / 1e6, params, rtol=0, atol=1e-9)
        # The published FLOPs also count 2 a normalised, 1 an activated and 9 a pooled value; outside the edges these
        # are those of the skeleton.
        flops = np.array([float(row[f"{column}_flops_M"]) for row in rows])
        values = 5 * sum(16 * 2**stage * (32 // 2**stage) ** 2 for stage in range(3))
        convolutions, pools = np.isin(genes, (ONE, THREE)).sum(axis=1), (genes == POOL).sum(axis=1)
        besides = 1e6 * flops - costs["macs"] - values * (3 * convolutions + 9 * pools)
        np.testing.assert_allclose(besides, 160_832, rtol=0, atol=1e-2)


def test_6466_cells_are_different() -> None:
    first = SPACE.isomorphic(EVERY)
    assert len(np.unique(first, axis=0)) == 6_466
    some = np.unique(first, axis=0)[::50]
    np.testing.assert_array_equal(SPACE.isomorphic(some), some)
    # Of each class the first in the order of genes.
    assert (np.ravel_multi_index(first.T, (5,) * 6) <= np.arange(len(EVERY))).all()
    # Without zeros as summands there are fewer; without what skips means, more.
    assert len({expression(row).replace("+#", "").replace("#+", "") for row in EVERY.tolist()}) < 6_466


@pytest.mark.parametrize(
    ("cell", "other", "same"),
    [
        ((SKIP, NONE, NONE, NONE, THREE, NONE), (NONE, SKIP, NONE, NONE, NONE, THREE), False),  # zeros differ in number
        ((SKIP, THREE, ONE, NONE, NONE, SKIP), (SKIP, ONE, THREE, NONE, NONE, SKIP), True),  # nodes 0 and 1 are one
        ((THREE, NONE, NONE, ONE, NONE, NONE), (POOL, NONE, NONE, ONE, NONE, NONE), True),  # node 1 is not read
        ((THREE, NONE, NONE, NONE, SKIP, NONE), (ONE, NONE, NONE, NONE, SKIP, NONE), False),
    ],
)
def test_cells_by_hand(cell: tuple[int, ...], other: tuple[int, ...], same: bool) -> None:
    first, second = SPACE.isomorphic(np.array([cell, other], np.int32))
    assert (tuple(first) == tuple(second)) == same


def test_a_space_of_fewer_operations_knows_its_own_first_cells() -> None:
    space = build_space("nas_bench_201", "small", {"edge_2_1": ["pool_3x3", "skip"], "edge_1_0": ["skip"]})
    rows = np.array(list(np.ndindex(*space.cardinalities.tolist())), np.int32)
    first = space.isomorphic(rows)
    assert space.contains(first).all()
    described = [[space.architecture(g).description[c.name] for c in space.choices] for g in (*rows[:50], *first[:50])]
    words = [expression([OPERATIONS.index(word) for word in row]) for row in described]
    assert words[:50] == words[50:]


def test_other_families_know_of_no_isomorphic_networks() -> None:
    space = build_space("vit", "small")
    genes = space.sample(np.random.default_rng(0), 20)
    np.testing.assert_array_equal(space.isomorphic(genes), genes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edge_1_0": ["conv_3x4"]}, r"space\.edge_1_0: 'conv_3x4' is not known\. Did you mean 'conv_3x3'"),
        ({"stages": 9}, r"space\.stages: 9 stages halve 16 pixels 8 times, .* Give at most 5\."),
        ({"cells": 0}, r"space\.cells: 0 is less than 1"),
    ],
)
def test_what_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_space("nas_bench_201", "small", settings)
