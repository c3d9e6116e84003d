"""Evolution: better than random at equal evaluations, and breeding as documented."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from search import Archive, Evolution, RandomSearch, ResolvedBudget, best, run_search
from search.sampling import Unseen, shrink
from search_spaces import UserError

SEEDS = range(12)


def test_beats_random_at_equal_evaluations(small, limits, landscape, tmp_path):
    """Regret on an additive landscape, against its known optimum and, for the tight budgets, paired by seed."""
    budgets = limits(small, "macs<=100%", "macs<=50%", "macs<=25%")
    found = np.zeros((2, len(SEEDS), len(budgets)))
    for seed in SEEDS:
        for i, cls in enumerate((RandomSearch, Evolution)):
            searcher, evaluate = cls(small, budgets, seed), landscape(small, seed=100 + seed)
            archive = Archive.open(tmp_path / f"{seed}-{cls.__name__}", searcher)
            archive = run_search(searcher, evaluate, archive, 300)
            found[i, seed] = [archive.errors[best(archive, budget)] for budget in budgets]
        found[:, seed, 0] -= _optimum(small, landscape(small, seed=100 + seed).table)
    random, evolution = found
    assert (evolution[:, 0] > -1e-9).all()
    assert evolution[:, 0].mean() < 0.7 * random[:, 0].mean()
    for i in range(len(budgets)):
        assert evolution[:, i].mean() < random[:, i].mean()
        assert ttest_rel(evolution[:, i], random[:, i], alternative="less")[1] < 0.01  # type: ignore[operator]


def _optimum(space, table) -> float:
    """The lowest sum: for each depth the best value of each of its layers."""
    columns = {name: c.reshape(-1) for name, c in space.columns.items()}

    def least(column):
        return table[column, : space.cardinalities[column]].min()

    layers = [least(h) + least(m) for h, m in zip(columns["heads"], columns["mlp_ratio"], strict=True)]
    depths = [table[columns["depth"][0], i] + sum(layers[:d]) for i, d in enumerate(space.depth)]
    return least(columns["width"][0]) + min(depths)


def test_first_generation_holds_the_ends_that_a_budget_admits(small, limits):
    for specs, admitted in ((["macs<=100%"], True), (["macs<=50%"], False)):
        searcher = Evolution(small, limits(small, *specs), 0)
        asked = {tuple(row) for row in searcher.ask(searcher.init()).tolist()}
        assert small.smallest.genes in asked
        assert (small.largest.genes in asked) == admitted


@pytest.mark.parametrize("parents", [5, 1000])
def test_parents_are_the_best_that_meet_the_budget_whoever_they_were_evaluated_for(small, limits, landscape, parents):
    """With room for 1000 parents the failed candidates would be among them if they counted."""
    budgets = limits(small, "macs<=100%", "macs<=30%")
    searcher = Evolution(small, budgets, 0, parents=parents)
    genes = np.unique(small.sample(np.random.default_rng(0), 200), axis=0)
    errors = landscape(small, fails=0.2)(genes)
    assert np.isnan(errors).any()
    state = searcher.tell(searcher.init(), genes, errors[:, None])
    for budget in budgets:
        within = budget.feasible(small.cost(genes)) & np.isfinite(errors)
        expected = genes[within][np.argsort(errors[within])[:parents]]
        np.testing.assert_array_equal(searcher._best(state, budget), expected)


def test_children_resemble_the_parents(small, limits):
    """Without random mutations, every gene of a child that is active in its parents is one of theirs."""
    searcher = Evolution(small, limits(small, "macs<=100%"), 0)
    rng = np.random.default_rng(0)
    parents = small.sample(rng, 2)
    columns = [int(small.columns[name].reshape(-1)[0]) for name in ("width", "depth", "heads", "mlp_ratio")]
    children = searcher._crossings(rng, parents, 500)
    for column in columns:
        assert set(np.unique(children[:, column])) == set(parents[:, column])

    mutants = searcher._mutants(rng, parents[:1], 20_000)
    # A gene changes with the rate times the chance that the new value differs: 0.4 * 2/3 for three widths,
    # 0.2 * 2/3 for the heads of the first layer; 4 standard errors of 20,000 draws are at most 0.013.
    for column, rate in ((columns[0], 0.4), (columns[2], 0.2)):
        assert abs((mutants[:, column] != parents[0, column]).mean() - rate * 2 / 3) < 0.013


def test_new_layers_are_drawn_at_random_and_a_layer_of_one_parent_is_kept(small, limits):
    searcher = Evolution(small, limits(small, "macs<=100%"), 0)
    rng = np.random.default_rng(0)
    shallow = np.array([small.smallest.genes], np.int32)
    last = int(small.columns["heads"].reshape(-1)[-1])
    mutants = searcher._mutants(rng, shallow, 20_000)
    new = mutants[small.active(mutants)[:, last], last]
    assert len(new) > 1000
    assert (np.bincount(new, minlength=3) / len(new) > 0.28).all()

    deep = np.array([small.largest.genes], np.int32)
    children = searcher._crossings(rng, np.concatenate([shallow, deep]), 500)
    active = small.active(children)[:, last]
    assert active.any()
    assert (children[active, last] == deep[0, last]).all()


def test_shrinking_keeps_what_fits_and_stops_just_below(small):
    rng = np.random.default_rng(0)
    genes = small.sample(rng, 300)
    largest = small.cost(np.array([small.largest.genes]))["macs"][0]
    budget = ResolvedBudget("b", (("macs", 0.4 * largest),))
    within = budget.feasible(small.cost(genes))
    shrunk = shrink(small, rng, genes, budget, small.cost)
    assert len(shrunk) == 300
    costs = small.cost(shrunk)
    assert budget.feasible(costs).all()
    np.testing.assert_array_equal(shrunk[within], genes[within])
    np.testing.assert_array_equal(shrunk, small.canonical(shrunk))
    # The largest single step is a whole layer; what was shrunk lies within one of the limit, and stays diverse.
    reduced = costs["macs"][~within] / largest
    assert np.median(reduced) > 0.35
    assert len(np.unique(shrunk[~within], axis=0)) > 0.95 * (~within).sum()
    impossible = ResolvedBudget("b", (("macs", 1.0),))
    assert len(shrink(small, rng, genes, impossible, small.cost)) == 0


def test_unseen_takes_each_network_once(small):
    rows = small.sample(np.random.default_rng(0), 10)
    unseen = Unseen(small, rows[:3])
    assert unseen.add(np.concatenate([rows, rows]), 5) == 5
    assert unseen.add(rows, 100) == 2
    np.testing.assert_array_equal(unseen.genes, rows[3:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 0}, r"search\.population: 0 is less than 1"),
        ({"parents": 2.5}, r"search\.parents: 2\.5 is not a whole number"),
        ({"mutation": 1.5}, r"search\.mutation: 1\.5 is outside 0 to 1"),
        ({"mutated": 0.6}, r"search\.mutated \+ search\.crossed: 1\.1 is outside 0 to 1"),
    ],
)
def test_settings_that_cannot_work(tiny, limits, settings, message):
    with pytest.raises(UserError, match=message):
        Evolution(tiny, limits(tiny, "macs<=100%"), 0, **settings)
