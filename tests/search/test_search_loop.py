"""The loop: progress, batches, replay checks, and evaluators that misbehave."""

import json

import numpy as np
import pytest

from search import Archive, Evolution, best, run_search
from search_spaces import UserError
from tests.search.digests import with_digests


@pytest.fixture
def searcher(small, limits):
    return Evolution(small, limits(small, "macs<=100%", "macs<=40%"), 0, population=12)


def test_progress_tells_the_best_so_far(searcher, small, landscape, tmp_path):
    seen = []
    archive = Archive.open(tmp_path / "a", searcher)
    run_search(searcher, landscape(small, fails=0.1), archive, 40, on_batch=seen.append, batch=5)
    assert [p.evaluated for p in seen] == [5, 10, 12, 17, 22, 24, 29, 34, 36, 40]
    assert [p.generation for p in seen] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert all(p.evaluations == 40 and p.replayed == 0 for p in seen)
    assert seen[-1].failed == np.isnan(archive.errors).sum()
    assert seen[-1].best == {budget.name: best(archive, budget) for budget in searcher.budgets}


def test_replay_is_reported_as_such(searcher, small, landscape, tmp_path):
    run_search(searcher, landscape(small), Archive.open(tmp_path / "a", searcher), 30)
    seen, evaluate = [], landscape(small)
    run_search(searcher, evaluate, Archive.open(tmp_path / "a", searcher), 40, on_batch=seen.append)
    assert [(p.evaluated, p.replayed) for p in seen] == [(12, 12), (24, 12), (30, 6), (36, 0), (40, 0)]
    assert len(evaluate.asked) == 10
    # The best during a replay is the best of what was replayed by then.
    errors = Archive.read(tmp_path / "a", small).errors
    assert errors[seen[0].best["b0"]] == errors[:12].min()


def test_a_crash_in_the_evaluator_loses_one_batch_only(searcher, small, landscape, tmp_path):
    calls = []

    def crash(genes):
        calls.append(len(genes))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return landscape(small).errors(genes)

    with pytest.raises(KeyboardInterrupt):
        run_search(searcher, crash, Archive.open(tmp_path / "a", searcher), 40, batch=4)
    assert len(Archive.read(tmp_path / "a", small)) == 8


def test_an_archive_of_another_version_of_the_searcher_is_refused(searcher, small, landscape, tmp_path):
    path = tmp_path / "a"
    run_search(searcher, landscape(small), Archive.open(path, searcher), 30)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(with_digests([*lines[:20], lines[21], lines[20], *lines[22:]]))
    with pytest.raises(UserError, match=r"a:21: not the architecture that this search asks for"):
        run_search(searcher, landscape(small), Archive.open(path, searcher), 40)


def test_an_archive_longer_than_wanted_is_left_alone(searcher, small, landscape, tmp_path):
    archive = run_search(searcher, landscape(small), Archive.open(tmp_path / "a", searcher), 30)
    before = archive.path.read_bytes()
    evaluate = landscape(small)
    assert len(run_search(searcher, evaluate, Archive.open(tmp_path / "a", searcher), 20)) == 30
    assert evaluate.asked == []
    assert archive.path.read_bytes() == before


def test_infinite_errors_are_failures(searcher, small, tmp_path):
    archive = Archive.open(tmp_path / "a", searcher)
    run_search(searcher, lambda genes: np.where(np.arange(len(genes)) % 2, np.inf, 0.5), archive, 12)
    assert np.isnan(archive.errors).sum() == 6
    assert [json.loads(line).get("failed", False) for line in archive.path.read_text().splitlines()[1:]] == [
        False,
        True,
    ] * 6


def test_an_evaluator_must_answer_for_each(searcher, tmp_path):
    for answer in (np.zeros(3), np.zeros((12, 2)), np.array(0.0)):
        with pytest.raises(ValueError, match="evaluate: returned shape"):
            run_search(searcher, lambda _, answer=answer: answer, Archive.open(tmp_path / "a", searcher), 12)
