"""A search that begins with the best of random networks by a score: with every searcher, in its sizes, and replayed."""

import json

import numpy as np
import pytest

from search import SEARCHERS, Archive, run_search
from search.nondominated import ranks
from search.warm_start import WarmStarted, first_generation

CANDIDATES = 24
ORIGIN = {"proxies": ["known"], "candidates": CANDIDATES}


@pytest.fixture(params=sorted(SEARCHERS))
def searcher(request, tiny, limits):
    return SEARCHERS[request.param](tiny, limits(tiny, "macs<=100%", "macs<=60%"), 3)


def warm(searcher, landscape) -> WarmStarted:
    first = first_generation(searcher, CANDIDATES, lambda genes: -landscape(searcher.space).errors(genes))
    return WarmStarted.of(searcher, first, ORIGIN)


def test_the_first_generation_is_as_large_and_holds_the_best_of_each_budget(searcher, landscape) -> None:
    """With the errors themselves as scores, of each budget's draws the best are taken: those that nothing dominates."""
    drawn = []

    def scores(genes):
        drawn.append(genes)
        return -landscape(searcher.space).errors(genes)

    first = first_generation(searcher, CANDIDATES, scores)
    asked = searcher.ask(searcher.init())
    assert len(drawn) == len(searcher.budgets) == 2
    assert len(first) == min(len(asked), sum(map(len, drawn)))
    shares = np.minimum(searcher.shares(searcher.init(), len(asked)), [len(genes) for genes in drawn])
    for genes, budget, taken in zip(drawn, searcher.budgets, np.split(first, np.cumsum(shares)), strict=False):
        assert budget.feasible(searcher.costs(genes)).all()
        costs = searcher.costs(genes)
        worse = [landscape(searcher.space).errors(genes), *(costs[name] for name in searcher.objectives[1:])]
        order = ranks(np.column_stack(worse))
        rank = {row.tobytes(): place for row, place in zip(genes, order, strict=True)}
        own = [rank[row.tobytes()] for row in taken]
        left_out = [place for row, place in rank.items() if row not in {one.tobytes() for one in taken}]
        assert max(own) <= min(left_out, default=np.inf)


def test_it_comes_first_and_the_search_goes_on_as_the_searcher_does(searcher, landscape, tmp_path) -> None:
    started = warm(searcher, landscape)
    archive = Archive.open(tmp_path / "a.jsonl", started)
    run_search(started, landscape(searcher.space), archive, 30)
    assert len(np.unique(archive.genes, axis=0)) == len(archive) == 30
    held = min(len(started.first), 30)
    assert [tuple(row) for row in archive.genes[:held].tolist()] == list(started.first)[:held]


def test_a_stopped_search_goes_on_to_the_same_archive(searcher, landscape, tmp_path) -> None:
    evaluate, started = landscape(searcher.space), warm(searcher, landscape)
    whole = run_search(started, evaluate, Archive.open(tmp_path / "whole.jsonl", started), 30)
    path = tmp_path / "parts.jsonl"
    for wanted in (1, 12, 30):
        run_search(started, evaluate, Archive.open(path, started), wanted)
    assert path.read_bytes() == whole.path.read_bytes()
    header = json.loads(path.read_text().splitlines()[0])
    assert header["searcher"]["warm_start"] == ORIGIN
