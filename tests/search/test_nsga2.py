"""NSGA-II: sorting against brute force, crowding by hand, who survives and breeds, and how soon it has the front."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search import NSGA2, RandomSearch
from search.nondominated import best_first, crowding, ranks
from search.nsga2 import Population, _winners
from search_spaces import UserError
from tests.search.ladder import Ladder, evaluations_to, hypervolume, trade_off

value = st.one_of(st.integers(0, 4).map(float), st.just(float("nan")))
points = st.integers(1, 3).flatmap(lambda m: st.lists(st.tuples(*[value] * m), min_size=1, max_size=25))


@given(points)
def test_ranks_are_the_fronts_peeled_off_one_after_another(rows):
    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    left = {i for i, row in enumerate(rows) if not np.isnan(row).any()}
    expected, rank = np.full(len(rows), len(rows)), 0
    while left:
        front = {i for i in left if not any(dominates(rows[j], rows[i]) for j in left)}
        expected[list(front)] = rank
        left, rank = left - front, rank + 1
    np.testing.assert_array_equal(ranks(np.array(rows, float)), expected)


def test_crowding_by_hand():
    front = np.array([[0.0, 10.0], [1.0, 8.0], [4.0, 4.0], [10.0, 0.0]])
    rank = np.zeros(4, int)
    # Neighbours' gaps: (4 - 0) / 10 + (10 - 4) / 10, and (10 - 1) / 10 + (8 - 0) / 10.
    np.testing.assert_allclose(crowding(front, rank), [np.inf, 1.0, 1.7, np.inf])
    # Another front does not count, and an objective that does not vary adds nothing.
    flat = np.array([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0], [4.0, 1.0]])
    both = crowding(np.concatenate([front, flat]), np.repeat([0, 1], 4))
    np.testing.assert_allclose(both, [np.inf, 1.0, 1.7, np.inf, np.inf, 0.75, 0.75, np.inf])


def test_best_first_goes_by_front_then_by_crowding_and_failures_come_last():
    rows = np.array([[np.nan, 0.0], [2.0, 9.0], [1.0, 8.0], [0.0, 10.0], [4.0, 4.0], [10.0, 0.0], [11.0, 11.0]])
    order = best_first(rows)
    assert set(order[:2]) == {3, 5}
    assert order[2:].tolist() == [4, 2, 1, 6, 0]


def test_objectives_are_the_error_and_what_the_budgets_limit(small, limits):
    assert NSGA2(small, limits(small, "macs<=50%"), 0).objectives == ("error", "macs")
    searcher = NSGA2(small, limits(small, "params<=50%, macs<=60%", "macs<=30%"), 0)
    assert searcher.objectives == ("error", "params", "macs")


def _told(searcher, genes, errors) -> Population:
    others = [searcher.costs(genes)[metric] for metric in searcher.objectives[1:]]
    return searcher.tell(searcher.init(), genes, np.column_stack([errors, *others]))


def test_the_population_is_the_best_of_parents_and_children(small, limits, landscape):
    searcher = NSGA2(small, limits(small, "macs<=100%"), 0, population=30)
    genes = np.unique(small.sample(np.random.default_rng(0), 200), axis=0)
    errors = landscape(small, fails=0.3)(genes)
    first = _told(searcher, genes[:90], errors[:90])
    more = np.column_stack([errors[90:], small.cost(genes[90:])["macs"]])
    state = searcher.tell(first, genes[90:], more)
    assert len(first.members) == len(state.members) == 30
    assert np.isfinite(state.errors[state.members]).all()
    # Only those who lived and the newcomers compete; nobody who was left out is of a better front.
    competed = np.concatenate([first.members, np.arange(90, len(genes))])
    assert set(state.members) <= set(competed)
    rank = dict(zip(competed.tolist(), ranks(state.objectives[competed]), strict=True))
    left_out = [rank[i] for i in competed.tolist() if i not in state.members and np.isfinite(errors[i])]
    assert max(rank[i] for i in state.members.tolist()) <= min(left_out)


def test_each_budget_keeps_its_share_of_the_population(small, limits, landscape):
    budgets = limits(small, "macs<=100%", "macs<=15%")
    searcher = NSGA2(small, budgets, 0, population=20)
    rng = np.random.default_rng(0)
    genes = np.unique(small.sample(rng, 400), axis=0)
    within = budgets[1].feasible(small.cost(genes))
    genes = np.concatenate([genes[within][:12], genes[~within]])
    # Those of the tight budget are so bad that fronts alone would leave most of them out.
    errors = landscape(small)(genes) + np.where(np.arange(len(genes)) < 12, 100.0 * np.arange(len(genes)), 0.0)
    state = _told(searcher, genes, errors)
    assert len(state.members) == 20
    assert (state.members < 12).sum() == 10


def test_tournaments_are_won_by_the_place_in_line():
    place = np.array([3, 0, 2, 1])
    wins = np.bincount(_winners(np.random.default_rng(0), place, 160_000), minlength=4) / 160_000
    # Drawn twice with replacement: the one at place r of n wins ((n - r)^2 - (n - r - 1)^2) / n^2 of them.
    np.testing.assert_allclose(wins, np.array([1, 7, 3, 5]) / 16, atol=0.005)


def test_children_are_crossed_and_mutated_at_the_rates():
    space = Ladder(20, 5)
    searcher = NSGA2(space, space.at_most(100), 0, crossover=0.9, mutation=0.0)
    parents = np.stack([np.zeros(20, np.int32), np.full(20, 4, np.int32)])
    children = searcher._children(np.random.default_rng(0), parents, np.zeros(2, int), 40_000)
    assert set(np.unique(children)) == {0, 4}
    # Half of the pairs are of two; nine in ten of these are crossed, and all but 2^-19 of those then mixed.
    assert abs((np.ptp(children, axis=1) > 0).mean() - 0.45) < 0.01
    searcher = NSGA2(space, space.at_most(100), 0)
    mutants = searcher._children(np.random.default_rng(0), parents[:1], np.zeros(1, int), 40_000)
    assert abs((mutants != 0).sum(axis=1).mean() - 4 / 5) < 0.02  # one gene of 20 drawn anew, one draw in five equal


def test_hypervolume_by_hand():
    errors, costs = np.array([3.0, 1.0, 2.0, 1.0, 9.0]), np.array([1.0, 4.0, 2.0, 4.0, 0.0])
    # Columns of the staircase below (4, 5): 1 wide 4 high, 1 wide 3 high, 1 wide 1 high.
    assert hypervolume(errors, costs, (4.0, 5.0)) == 4 + 3 + 1


def test_has_the_front_after_less_than_half_of_the_evaluations_of_random_search():
    space = Ladder(8, 3)
    budgets = space.at_most(16)
    needed = [
        [evaluations_to(cls(space, budgets, seed), trade_off(space, seed), 0.95) for seed in range(5)]
        for cls in (RandomSearch, NSGA2)
    ]
    random, nsga2 = np.median(needed, axis=1)
    assert nsga2 <= random / 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 0}, r"search\.population: 0 is less than 1"),
        ({"crossover": 2.0}, r"search\.crossover: 2\.0 is outside 0 to 1"),
        ({"mutation": -0.1}, r"search\.mutation: -0\.1 is outside 0 to 1"),
    ],
)
def test_settings_that_cannot_work(tiny, limits, settings, message):
    with pytest.raises(UserError, match=message):
        NSGA2(tiny, limits(tiny, "macs<=100%"), 0, **settings)
