"""EvoPress: switches that keep the budget, the one parent, growing data, and generations to a known optimum."""

import numpy as np
import pytest

from search import Archive, EvoPress, best, run_search
from search_spaces import UserError
from tests.search.ladder import Ladder


def test_switches_keep_the_total_and_are_one_to_three():
    """Of 200 layers two switches rarely meet in one, so half the distance is the number of switches."""
    space = Ladder(200, 5)
    (budget,) = budgets = space.at_most(400)
    searcher = EvoPress(space, budgets, 0)
    parent = np.full(200, 2, np.int32)
    offspring = searcher._offspring(np.random.default_rng(0), parent, budget, 20_000)
    assert len(offspring) == 20_000
    assert (offspring.sum(axis=1) == 400).all()
    switches = np.abs(offspring - parent).sum(axis=1) // 2
    shares = np.bincount(switches, minlength=4) / 20_000
    # 5/9, 3/9, 1/9; switches that undo each other (one in 100 of two, three in 100 of three) move 0.007 at most.
    np.testing.assert_allclose(shares, [0, 5 / 9, 3 / 9, 1 / 9], atol=0.015)


def test_a_switch_lowers_its_own_choice_as_long_as_there_is_something_to_lower(small, limits):
    (budget,) = budgets = limits(small, "macs<=40%")
    searcher = EvoPress(small, budgets, 0)
    rng = np.random.default_rng(0)
    parents = searcher._starts(rng, budget, 3000)
    children = searcher._switch(rng, parents, budget)
    # What is still over budget has nothing left to lower but the gene that was raised.
    stuck = children[~budget.feasible(small.cost(children))]
    assert ((stuck > 0).sum(axis=1) <= 1).all()
    assert len(stuck) < 300
    depth = int(small.columns["depth"].reshape(-1)[0])
    kept = (children[:, depth] == parents[:, depth]) & (children != parents).any(axis=1)
    choice = searcher._choice_of
    checked = 0
    for parent, child in zip(parents[kept], children[kept], strict=True):
        up, down = np.flatnonzero(child > parent), np.flatnonzero(child < parent)
        assert len(up) == 1
        assert child[up[0]] == parent[up[0]] + 1
        own = (choice == choice[up[0]]) & small.active(child[None])[0]
        own[up] = False
        if (child[own] > 0).any():
            assert (choice[down] == choice[up[0]]).all()
            checked += 1
    assert checked > 500


def test_the_parent_is_the_best_that_meets_the_budget(small, limits, landscape):
    budgets = limits(small, "macs<=100%", "macs<=40%")
    searcher = EvoPress(small, budgets, 0)
    genes = np.unique(small.sample(np.random.default_rng(0), 200), axis=0)
    errors = landscape(small, fails=0.3)(genes)
    assert searcher._parent(searcher.init(), budgets[0]) is None
    state = searcher.tell(searcher.init(), genes, errors[:, None])
    for budget in budgets:
        within = np.flatnonzero(budget.feasible(small.cost(genes)))
        np.testing.assert_array_equal(searcher._parent(state, budget), genes[within[np.nanargmin(errors[within])]])


def test_starts_at_the_budget():
    space = Ladder(30, 5)
    searcher = EvoPress(space, space.at_most(60), 0)
    first = searcher.ask(searcher.init())
    assert len(first) == 128
    assert (first.sum(axis=1) == 60).all()


def test_each_step_evaluates_fewer_on_more_data(tmp_path):
    space = Ladder(16, 4)
    searcher = EvoPress(space, space.at_most(24), 0)
    asked = []

    def error(genes):
        return -(genes * np.arange(16)).sum(axis=1) / 100

    def whole(genes):
        asked.append((1.0, len(genes)))
        return error(genes)

    def part(genes, fraction):
        asked.append((fraction, len(genes)))
        return error(genes)

    archive = Archive.open(tmp_path / "archive.jsonl", searcher)
    run_search(searcher, whole, archive, 3 * 128, evaluate_part=part)
    assert asked == [(1 / 64, 128), (1 / 8, 16), (1.0, 4)] * 3
    assert np.isfinite(archive.errors).sum() == 12
    index = best(archive, searcher.budgets[0])
    assert index is not None
    assert archive.errors[index] == np.nanmin(archive.errors)
    # Offspring of a generation differ by at most three switches from the best of those before.
    parent = archive.genes[np.nanargmin(archive.errors[:256])]
    distances = np.abs(archive.genes[256:] - parent).sum(axis=1)
    assert distances.max() <= 6
    assert (archive.genes.sum(axis=1) == 24).all()


def _generations(layers: int, dropped: int, offspring: int, seed: int) -> int:
    """Until the layers of least importance are dropped, each layer kept or not, the importances uniform."""
    space = Ladder(layers, 2)
    searcher = EvoPress(space, space.at_most(layers - dropped), seed, offspring=offspring)
    importance = np.random.default_rng(seed).random(layers)
    optimum = np.sort(importance)[:dropped].sum()
    state = searcher.init()
    for generation in range(1, 1000):
        genes = searcher.ask(state)
        errors = ((1 - genes) * importance).sum(axis=1)
        state = searcher.tell(state, genes, errors[:, None])
        if state.errors.min() <= optimum + 1e-12:
            return generation
    return 1000


def test_generations_to_the_optimum_grow_as_the_theorem_says():
    """O(k (n - k) / offspring) generations to choose k of n; the published algorithm's constant is 2.5 to 3.1."""
    for layers, dropped, offspring in ((32, 8, 16), (32, 8, 32), (32, 12, 32), (64, 16, 32)):
        mean = np.mean([_generations(layers, dropped, offspring, seed) for seed in range(10)])
        assert 1.5 < mean / (dropped * (layers - dropped) / offspring) < 4, (layers, dropped, offspring, mean)


def test_settings_that_cannot_work(tiny, limits):
    with pytest.raises(UserError, match=r"search\.offspring: 0 is less than 1"):
        EvoPress(tiny, limits(tiny, "macs<=100%"), 0, offspring=0)
