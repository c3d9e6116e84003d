"""A search that goes on from an archive, with every registered searcher."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from search import SEARCHERS, Archive, run_search
from search.continued import Continued
from search_spaces import UserError


@pytest.fixture(params=list(SEARCHERS))
def make(request):
    """Builds the searcher, with populations that fit a small space."""
    cls = SEARCHERS[request.param]
    known = {field.name for field in dataclasses.fields(cls)}
    settings: dict[str, Any] = {k: v for k, v in {"inner": 200, "population": 6}.items() if k in known}
    return lambda space, budgets, cost=None: cls(space, budgets, 0, cost, **settings)


@pytest.fixture
def main(make, small, limits, landscape, tmp_path):
    """The archive of a search for the whole space."""
    searcher = make(small, limits(small, "macs<=100%"))
    return run_search(
        searcher, landscape(small), Archive.open(tmp_path / "main.jsonl", searcher, {"weights": "run"}), 24
    )


def test_goes_on_for_a_new_budget_with_nothing_twice(make, main, small, limits, landscape, tmp_path):
    (budget,) = limits(small, "macs<=30%")
    searcher, evaluate = Continued.of(make(small, (budget,)), main), landscape(small)
    archive = run_search(searcher, evaluate, Archive.open(tmp_path / "more.jsonl", searcher, {"weights": "run"}), 15)
    assert len(archive) == len(evaluate.asked) == 15
    assert budget.feasible(archive.costs).all()
    both = np.concatenate([main.genes, archive.genes])
    assert len(np.unique(both, axis=0)) == len(both)


def test_a_kill_leaves_the_same_archive_and_more_evaluations_extend_it(make, main, small, limits, landscape, tmp_path):
    (budget,) = limits(small, "macs<=30%")
    searcher, path = Continued.of(make(small, (budget,)), main), tmp_path / "more.jsonl"

    def search(count: int) -> bytes:
        run_search(searcher, landscape(small), Archive.open(path, searcher, {"weights": "run"}), count)
        return path.read_bytes()

    whole = search(16)
    for cut in (0, 10, whole.index(b"\n") + 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert search(16) == whole
    path.unlink()
    assert whole.startswith(search(7))
    assert search(16) == whole


def test_the_archive_tells_what_it_continues(make, main, small, limits, landscape, tmp_path):
    budgets = limits(small, "macs<=30%")
    searcher = Continued.of(make(small, budgets), main)
    Archive.open(tmp_path / "more.jsonl", searcher, {"weights": "run"})
    genes = np.array([small.largest.genes], np.int32)
    main.append(genes, np.zeros((1, main.objectives.shape[1])), small.cost(genes), 9)
    with pytest.raises(UserError, match="of another search: searcher"):
        Archive.open(tmp_path / "more.jsonl", Continued.of(make(small, budgets), main), {"weights": "run"})
