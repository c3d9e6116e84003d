"""Successive halving: who goes on, what the archive says of those who do not, and that a search with it resumes."""

import json
import math

import numpy as np
import pytest

from search import Archive, Evolution, RandomSearch, best, pareto_summary, run_search
from search.halving import halve, in_parts
from search_spaces import UserError

RUNGS = ((0.25, 0.5), (0.5, 0.25))


class Noisy:
    """A landscape of which a part of the split shows the more noise the smaller the part is; counts what it is asked.

    Args:
        landscape: The true errors.
    """

    def __init__(self, landscape) -> None:
        self.landscape = landscape
        self.parts: list[tuple[float, int]] = []

    def __call__(self, genes, fraction):
        self.parts.append((fraction, len(genes)))
        noise = np.array([np.random.default_rng([int(1 / fraction), *row]).normal() for row in genes.tolist()])
        return self.landscape.errors(genes) + 0.1 * (1 - fraction) * noise.reshape(-1)


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        (100, RUNGS),
        (4, RUNGS),
        (3, ((1 / 3, 0.5), (2 / 3, 0.25))),
        (2, ((0.5, 0.125),)),  # both are one batch, which keeps what both would
        (1, ()),
    ],
)
def test_rungs_are_whole_batches_each_once(batches, expected):
    assert in_parts(RUNGS, batches) == expected


def test_each_rung_keeps_its_share_of_the_best():
    genes = np.arange(8, dtype=np.int32)[:, None]
    at = {0.25: [5, 1, 2, 3, 4, 0, 6, 7], 0.5: [0, 3, 2, 1, 0, 4, 0, 0], 1.0: [9, 9, 9, 8, 9, 9, 9, 9]}
    calls = []

    def part(rows, fraction):
        calls.append((fraction, rows[:, 0].tolist()))
        return np.array(at[fraction], float)[rows[:, 0]]

    halved = halve(RUNGS, genes, np.zeros((8, 0)), np.ones((1, 8), bool), part, lambda rows: part(rows, 1.0))
    assert calls == [(0.25, list(range(8))), (0.5, [1, 2, 3, 5]), (1.0, [3])]
    nan = math.nan
    np.testing.assert_array_equal(halved.errors, [nan, nan, nan, 8, nan, nan, nan, nan])
    np.testing.assert_array_equal(halved.fractions, [0.25, 0.5, 0.5, 1, 0.25, 0.5, 0.25, 0.25])
    np.testing.assert_array_equal(halved.partial_errors, [5, 3, 2, nan, 4, 4, 6, 7])


def test_every_budget_and_every_front_keeps_its_share_and_failures_go_no_further():
    genes = np.arange(8, dtype=np.int32)[:, None]
    errors = np.array([1, 2, 3, 4, 5, 6, 7, math.nan])
    meets = np.array([[True] * 8, [False] * 4 + [True] * 4])
    costs = np.array([8, 9, 9, 9, 9, 9, 1, 1], float)[:, None]
    went_on = []

    def whole(rows):
        went_on.append(rows[:, 0].tolist())
        return errors[rows[:, 0]]

    for others in (np.zeros((8, 0)), costs):
        halved = halve(((0.5, 0.25),), genes, others, meets, lambda rows, _: errors[rows[:, 0]], whole)
        assert halved.fractions[7] == 1
        assert np.isnan([halved.errors[7], halved.partial_errors[7]]).all()
    # By error: 2 of the 7 that did not fail, and 1 of the 3 under the second budget. With costs, 0 and 6 are the first
    # front, of which the error alone would not keep 6.
    assert went_on == [[0, 1, 4], [0, 4, 6]]
    halve(((0.5, 0.5),), genes, costs, meets, lambda rows, _: np.full(len(rows), math.nan), whole)
    assert len(went_on) == 2


@pytest.fixture
def searcher(small, limits):
    return Evolution(small, limits(small, "macs<=100%", "macs<=50%"), 0, halving=RUNGS, population=20)


def test_only_errors_on_the_whole_split_count(searcher, small, landscape, tmp_path):
    evaluate, part = landscape(small, fails=0.1), Noisy(landscape(small, fails=0.1))
    seen = []
    path = tmp_path / "archive.jsonl"
    archive = run_search(searcher, evaluate, Archive.open(path, searcher), 100, seen.append, evaluate_part=part)
    assert [fraction for fraction, _ in part.parts] == [0.25, 0.5] * 5
    assert all(count == 20 for _, count in part.parts[::2])
    stopped = archive.fractions < 1
    assert 60 < stopped.sum() < 90
    assert len(evaluate.asked) == (~stopped & ~archive.failed).sum()
    np.testing.assert_array_equal(stopped, np.isfinite(archive.partial_errors))
    np.testing.assert_array_equal(np.isnan(archive.errors), stopped | archive.failed)
    np.testing.assert_array_equal(archive.failed, np.isnan(landscape(small, fails=0.1).errors(archive.genes)))
    assert seen[-1].failed == archive.failed.sum() == pareto_summary(archive, searcher.budgets)["failed"]
    assert seen[-1].evaluated == 100
    for budget in searcher.budgets:
        index = best(archive, budget)
        assert archive.fractions[index] == 1

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["searcher"]["halving"] == [list(rung) for rung in RUNGS]
    for i, entry in enumerate(lines[1:]):
        if stopped[i]:
            assert entry["stopped"] == {"fraction": archive.fractions[i], "error": archive.partial_errors[i]}
            assert entry["objectives"]["error"] is None
            assert "failed" not in entry
        else:
            assert "stopped" not in entry
    read = Archive.read(path, small)
    for name in ("genes", "objectives", "fractions", "partial_errors", "failed"):
        np.testing.assert_array_equal(getattr(read, name), getattr(archive, name))
    assert [{**read.record(i), "digest": lines[i + 1]["digest"]} for i in range(100)] == lines[1:]


def test_stopped_candidates_do_not_breed(searcher, small, landscape, tmp_path):
    part = Noisy(landscape(small))
    archive = run_search(searcher, landscape(small), Archive.open(tmp_path / "a", searcher), 20, evaluate_part=part)
    state = searcher.tell(searcher.init(), archive.genes, archive.objectives)
    parents = {tuple(row) for row in searcher._best(state, searcher.budgets[0]).tolist()}
    assert parents == {tuple(row) for row in archive.genes[archive.fractions == 1].tolist()}


def test_a_search_cut_anywhere_resumes_to_the_same_bytes(searcher, small, landscape, tmp_path):
    def run(path, evaluations):
        archive = Archive.open(path, searcher, {"weights": "run"})
        run_search(searcher, landscape(small, fails=0.2), archive, evaluations, evaluate_part=Noisy(landscape(small)))

    whole, path = tmp_path / "whole", tmp_path / "cut"
    run(whole, 50)
    content = whole.read_bytes()
    for cut in range(0, len(content), 1511):
        path.write_bytes(content[:cut])
        run(path, 50)
        assert path.read_bytes() == content, cut
    path.unlink()
    for evaluations in (0, 1, 20, 33, 50):
        run(path, evaluations)
        assert len(Archive.read(path, small)) == evaluations
    assert path.read_bytes() == content


def test_without_a_way_to_evaluate_a_part_everything_is_evaluated_on_the_whole(searcher, small, landscape, tmp_path):
    evaluate = landscape(small)
    archive = run_search(searcher, evaluate, Archive.open(tmp_path / "a", searcher), 40)
    assert len(evaluate.asked) == 40
    assert np.isfinite(archive.errors).all()


@pytest.mark.parametrize("stopped", [{}, {"fraction": 1.0, "error": 0.5}, {"fraction": 0.5, "error": None}, 3])
def test_a_corrupt_stop_is_named(searcher, small, landscape, tmp_path, stopped):
    path = tmp_path / "archive.jsonl"
    archive = Archive.open(path, searcher)
    run_search(searcher, landscape(small), archive, 20, evaluate_part=Noisy(landscape(small)))
    number = int(np.flatnonzero(archive.fractions < 1)[0]) + 2
    lines = path.read_text().splitlines()
    lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | {"stopped": stopped})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"archive\.jsonl:{number}: corrupt line"):
        Archive.read(path, small)


@pytest.mark.parametrize(
    "rungs", [((0.5, 0.5), (0.25, 0.5)), ((1.0, 0.5),), ((0.0, 0.5),), ((0.5, 0.0),), ((0.5, 1.5),)]
)
def test_rungs_that_cannot_work(tiny, limits, rungs):
    with pytest.raises(UserError, match=r"search\.halving: \(.*\) cannot follow"):
        RandomSearch(tiny, limits(tiny, "macs<=100%"), 0, halving=rungs)
