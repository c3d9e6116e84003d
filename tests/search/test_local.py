"""Local search: the way down step by step, restarts, and what it finds."""

import numpy as np
import pytest

from search import Archive, LocalSearch, RandomSearch, best, run_search
from search_spaces import UserError
from tests.search.ladder import Ladder


def _steps(searcher, error, count):
    state = searcher.init()
    for _ in range(count):
        genes = searcher.ask(state)
        told = searcher.tell(state, genes, error(genes)[:, None])
        yield state, genes, told
        state = told


def test_moves_to_the_best_neighbour_and_starts_again_at_a_minimum(small, limits, landscape):
    """One budget against the rule written out: all neighbours that meet it, then the best, if it is better."""
    (budget,) = budgets = limits(small, "macs<=50%")
    searcher, evaluate = LocalSearch(small, budgets, 0), landscape(small, fails=0.1)
    restarts = moves = 0
    for state, genes, told in _steps(searcher, evaluate.errors, 40):
        (centre,), (after,) = state.centres, told.centres
        if centre < 0:
            assert len(genes) == 10
            restarts += 1
            new = told.errors[len(state.genes) :]
            start = len(state.genes) + int(np.nanargmin(new))
            assert after < 0 or told.errors[after] <= told.errors[start]
            continue
        near = small.neighbours(state.genes[centre])
        near = near[budget.feasible(small.cost(near))]
        known = {tuple(row) for row in state.genes.tolist()}
        assert {tuple(row) for row in genes.tolist()} == {tuple(row) for row in near.tolist()} - known
        errors = evaluate.errors(near)
        if np.nanmin(errors) < state.errors[centre]:
            moves += 1
            if after >= 0 and told.errors[after] >= np.nanmin(errors):  # else it knew the next neighbours and went on
                np.testing.assert_array_equal(told.genes[after], near[np.nanargmin(errors)])
        else:
            assert after == -1
    assert restarts > 2
    assert moves > 10


def test_one_descent_ends_in_the_optimum_of_an_additive_error():
    """Without a budget in the way there is one minimum, and every step but the last improves one gene."""
    space = Ladder(10, 4)
    rng = np.random.default_rng(0)
    table = rng.random((10, 4))
    searcher = LocalSearch(space, space.at_most(30), 0)
    for state, _, told in _steps(searcher, lambda genes: table[np.arange(10), genes].sum(axis=1), 12):
        if len(state.genes) and told.centres[0] < 0:
            np.testing.assert_array_equal(told.genes[told.errors.argmin()], table.argmin(axis=1))
            assert len(told.genes) <= 10 + 11 * 30
            return
    pytest.fail("no descent ended")


def test_every_budget_descends_on_its_own(small, limits, landscape):
    budgets = limits(small, "macs<=100%", "macs<=30%")
    searcher, evaluate = LocalSearch(small, budgets, 0), landscape(small)
    centres = set()
    for state, genes, told in _steps(searcher, evaluate.errors, 30):
        within = budgets[1].feasible(small.cost(genes))
        assert within.sum() >= len(genes) // 2
        centres |= {tuple(told.centres)}
        for budget, centre in zip(budgets, told.centres, strict=True):
            assert centre < 0 or budget.feasible(small.cost(told.genes[[centre]]))[0]
        assert len(state.genes) + len(genes) == len(told.genes)
    assert len({c[0] for c in centres}) > 3
    assert len({c[1] for c in centres}) > 3


def test_restarts_when_every_start_failed(small, limits):
    searcher = LocalSearch(small, limits(small, "macs<=100%"), 0, starts=4)
    for _, genes, told in _steps(searcher, lambda genes: np.full(len(genes), np.nan), 3):
        assert len(genes) == 4
        assert told.centres.tolist() == [-1]


def test_beats_random_search_at_equal_evaluations(small, limits, landscape, tmp_path):
    budgets = limits(small, "macs<=100%", "macs<=40%")
    found = np.zeros((2, 6, 2))
    for seed in range(6):
        for i, cls in enumerate((RandomSearch, LocalSearch)):
            searcher = cls(small, budgets, seed)
            archive = Archive.open(tmp_path / f"{seed}-{i}", searcher)
            run_search(searcher, landscape(small, seed=100 + seed), archive, 300)
            found[i, seed] = [archive.errors[best(archive, budget)] for budget in budgets]
    assert (found[1].mean(axis=0) < found[0].mean(axis=0)).all()
    assert (found[1] <= found[0]).mean() > 0.8


def test_settings_that_cannot_work(tiny, limits):
    with pytest.raises(UserError, match=r"search\.starts: 0 is less than 1"):
        LocalSearch(tiny, limits(tiny, "macs<=100%"), 0, starts=0)
