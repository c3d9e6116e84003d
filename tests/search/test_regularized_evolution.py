"""Regularised evolution: who lives, who becomes a parent, what a child is, and that it beats random search."""

from typing import Any

import numpy as np
import pytest

from search import Archive, RandomSearch, RegularizedEvolution, best, run_search
from search.breeding import change_one
from search_spaces import UserError
from tests.search.ladder import Ladder, trade_off


def test_the_oldest_dies_whatever_its_error(small, limits, landscape):
    budgets = limits(small, "macs<=100%", "macs<=40%")
    searcher = RegularizedEvolution(small, budgets, 0, population=20)
    genes = np.unique(small.sample(np.random.default_rng(0), 150), axis=0)
    errors = landscape(small, fails=0.2)(genes)
    errors[0] = 0.0  # the best of all, and long dead
    state = searcher.tell(searcher.init(), genes, errors[:, None])
    for budget in budgets:
        able = [
            i for i in range(len(genes)) if np.isfinite(errors[i]) and budget.feasible(small.cost(genes[i : i + 1]))
        ]
        assert searcher._living(state, budget).tolist() == able[-20:]
    living = set(searcher._living(state, budgets[0]).tolist())
    newcomer = np.array([small.largest.genes], np.int32)
    after = set(searcher._living(searcher.tell(state, newcomer, np.array([[9.0]])), budgets[0]).tolist())
    assert after == living - {min(living)} | {len(genes)}


def test_the_best_of_a_sample_with_replacement_is_the_parent(small, limits):
    searcher = RegularizedEvolution(small, limits(small, "macs<=100%"), 0, population=5, sample=2)
    errors = np.array([0.3, 0.1, 0.5, 0.2, 0.4])
    wins = np.bincount(searcher._parents(np.random.default_rng(0), errors, 250_000), minlength=5) / 250_000
    np.testing.assert_allclose(wins, np.array([5, 9, 1, 7, 3]) / 25, atol=0.005)


def test_a_child_differs_in_one_gene(small):
    rng = np.random.default_rng(0)
    parent = small.sample(rng, 1)
    children = change_one(small, rng, parent.repeat(30_000, axis=0))
    np.testing.assert_array_equal(children, small.canonical(children))
    depth = int(small.columns["depth"].reshape(-1)[0])
    active = np.flatnonzero(small.active(parent)[0])
    same_depth = children[children[:, depth] == parent[0, depth]]
    assert ((same_depth != parent).sum(axis=1) == 1).all()
    # Each active gene is as likely; 5 standard errors of 30,000 draws are 0.01.
    for column in active:
        changed = (
            (children[:, depth] != parent[0, depth])
            if column == depth
            else (same_depth[:, column] != parent[0, column])
        )
        assert abs(changed.sum() / 30_000 - 1 / len(active)) < 0.01
    # A layer that the change adds is random.
    last = int(small.columns["heads"].reshape(-1)[-1])
    shallow = change_one(small, rng, np.array([small.smallest.genes]).repeat(30_000, axis=0).astype(np.int32))
    new = shallow[small.active(shallow)[:, last], last]
    assert (np.bincount(new, minlength=3) / len(new) > 0.28).all()


def test_the_first_generation_fills_the_population_and_then_children_are_asked_for():
    space = Ladder(10, 4)
    error = trade_off(space, 0)
    for children in (1, 8):
        searcher = RegularizedEvolution(space, space.at_most(30), 0, children=children)
        state, asked = searcher.init(), []
        for _ in range(4):
            genes = searcher.ask(state)
            asked.append(len(genes))
            if len(state.genes):
                distances = (genes[:, None] != state.genes[-100:]).sum(axis=2)
                np.testing.assert_array_equal(distances.min(axis=1), 1)
            state = searcher.tell(state, genes, error(genes)[:, None])
        assert asked == [100, children, children, children]


def test_beats_random_search_at_equal_evaluations(small, limits, landscape, tmp_path):
    budgets = limits(small, "macs<=100%", "macs<=50%")
    found = np.zeros((2, 6, 2))
    for seed in range(6):
        for i, make in enumerate((RandomSearch, RegularizedEvolution)):
            settings: dict[str, Any] = {} if make is RandomSearch else {"population": 40, "sample": 15, "children": 4}
            searcher = make(small, budgets, seed, **settings)
            archive = Archive.open(tmp_path / f"{seed}-{i}", searcher)
            run_search(searcher, landscape(small, seed=100 + seed), archive, 300)
            found[i, seed] = [archive.errors[best(archive, budget)] for budget in budgets]
    assert (found[1].mean(axis=0) < found[0].mean(axis=0)).all()
    assert (found[1] <= found[0]).mean() > 0.8


@pytest.mark.parametrize("setting", ["population", "sample", "children"])
def test_settings_that_cannot_work(tiny, limits, setting):
    settings: dict[str, Any] = {setting: 0}
    with pytest.raises(UserError, match=rf"search\.{setting}: 0 is less than 1"):
        RegularizedEvolution(tiny, limits(tiny, "macs<=100%"), 0, **settings)
