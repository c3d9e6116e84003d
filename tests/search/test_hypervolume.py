"""Hypervolume: against areas counted by hand, and what must hold for any set of points."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from search import Archive, RandomSearch, archive_hypervolume, hypervolume, run_search, write_pareto

POINTS = arrays(float, st.tuples(st.integers(0, 12), st.just(2)), elements=st.integers(0, 10).map(float))


@given(POINTS)
def test_equals_the_squares_that_are_dominated(points):
    x, y = np.meshgrid(np.arange(10), np.arange(10))
    covered = np.zeros((10, 10), bool)
    for a, b in points:
        covered |= (x >= a) & (y >= b)
    assert hypervolume(points, np.full(2, 10.0)) == covered.sum()


@given(POINTS, POINTS)
def test_more_points_never_lower_it(first, second):
    both = hypervolume(np.concatenate([first, second]), np.full(2, 7.0))
    assert both >= max(hypervolume(points, np.full(2, 7.0)) for points in (first, second))


def test_failed_evaluations_add_nothing():
    points = np.array([[np.nan, 0.0], [0.5, 0.5], [0.0, np.nan]])
    assert hypervolume(points, np.ones(2)) == 0.25
    assert hypervolume(points[:1], np.ones(2)) == 0.0


def test_of_an_archive_is_a_share_of_error_times_cost(tiny, limits, landscape, tmp_path):
    searcher = RandomSearch(tiny, limits(tiny, "macs<=100%"), 0)
    archive = Archive.open(tmp_path / "archive.jsonl", searcher)
    run_search(searcher, lambda genes: np.full(len(genes), 0.25), archive, 20)
    least = archive.costs["macs"].min() / tiny.cost(np.array([tiny.largest.genes], np.int32))["macs"][0]
    assert archive_hypervolume(archive, "macs") == pytest.approx(0.75 * (1 - least))
    archive.costs["nothing"] = np.zeros(20, np.int64)  # what costs none of the networks anything
    assert archive_hypervolume(archive, "nothing", lambda genes: {"nothing": np.zeros(len(genes))}) == 0.75
    write_pareto(tmp_path / "pareto.json", archive, searcher.budgets)
    found = json.loads((tmp_path / "pareto.json").read_text())["hypervolumes"]
    assert found == {metric: archive_hypervolume(archive, metric) for metric in ("macs", "params")}
