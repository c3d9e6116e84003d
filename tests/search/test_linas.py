"""LINAS: what the predictor learns from, what it proposes, and how soon it has the front."""

import numpy as np
import pytest

from search import LINAS, NSGA2
from search.nondominated import ranks
from search_spaces import Predictor, UserError
from tests.search.ladder import Ladder, evaluations_to, trade_off


@pytest.fixture(scope="module")
def space():
    return Ladder(8, 3)


def _told(searcher, genes, errors):
    others = [searcher.costs(genes)[metric] for metric in searcher.objectives[1:]]
    return searcher.tell(searcher.init(), genes, np.column_stack([errors, *others]))


def test_proposes_the_front_of_what_was_not_evaluated(space):
    """On an additive error ridge regression ranks all but exactly, and the inner search sees most of the space."""
    searcher = LINAS(space, space.at_most(16), 0, inner=5000, predictors=("ridge",))
    weights = np.random.default_rng(3).exponential(size=8)
    rng = np.random.default_rng(0)
    seen = np.unique(space.sample(rng, 120), axis=0)
    state = _told(searcher, seen, -(seen * weights).sum(axis=1))
    asked = searcher.ask(state)
    assert len(asked) == 50
    known = {tuple(row) for row in seen.tolist()}
    unseen = np.array([row for row in space.members.tolist() if tuple(row) not in known], np.int32)
    objectives = np.column_stack([-(unseen * weights).sum(axis=1), space.cost(unseen)["macs"]])
    rank = {tuple(row): r for row, r in zip(unseen.tolist(), ranks(objectives), strict=True)}
    assert np.median([rank[tuple(row)] for row in asked.tolist()]) <= 3
    drawn = [rank[tuple(row)] for row in unseen[rng.integers(len(unseen), size=500)].tolist()]
    assert np.percentile(drawn, 5) > 6


def test_failures_teach_nothing(space):
    searcher = LINAS(space, space.at_most(16), 0, inner=200)
    genes = np.unique(space.sample(np.random.default_rng(0), 60), axis=0)
    errors = trade_off(space, 0)(genes)
    failed = np.arange(len(genes)) % 3 == 0
    state = _told(searcher, genes, np.where(failed, np.nan, errors))
    predictor = searcher._predictor(state, 0)
    without = searcher._predictor(_told(searcher, genes[~failed], errors[~failed]), 0)
    np.testing.assert_array_equal(predictor(space.members), without(space.members))


def test_takes_the_predictor_that_ranks_better(space):
    rng = np.random.default_rng(0)
    genes = np.unique(space.sample(rng, 60), axis=0)
    noisy = (genes * np.arange(1, 9)).sum(axis=1) + 10 * rng.normal(size=len(genes))
    far_from_additive = np.cos(np.pi * genes[:, 0]) * np.cos(np.pi * genes[:, 1])
    for errors, kind in ((noisy, "ridge"), (far_from_additive, "svr")):
        for kinds in (("ridge", "svr"), ("svr", "ridge")):
            searcher = LINAS(space, space.at_most(16), 0, predictors=kinds)
            predictor = searcher._predictor(_told(searcher, genes, errors), 0)
            assert isinstance(predictor, Predictor)
            assert predictor.kind == kind


def test_draws_at_random_until_there_is_something_to_learn_from(space):
    searcher = LINAS(space, space.at_most(16), 0, inner=200, population=20)
    genes = searcher.ask(searcher.init())
    errors = np.full(20, np.nan)
    errors[:9] = 0.5
    state = _told(searcher, genes, errors)
    assert len(searcher.ask(state)) == 20
    errors[9] = 0.4
    assert not np.array_equal(searcher.ask(_told(searcher, genes, errors)), searcher.ask(state))


def test_has_the_front_after_less_than_half_of_the_evaluations_of_nsga2(space):
    budgets = space.at_most(16)
    nsga2 = [evaluations_to(NSGA2(space, budgets, seed), trade_off(space, seed), 0.95) for seed in range(5)]
    linas = [evaluations_to(LINAS(space, budgets, seed, inner=1000), trade_off(space, seed), 0.95) for seed in range(5)]
    assert np.median(linas) <= np.median(nsga2) / 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 0}, r"search\.population: 0 is less than 1"),
        ({"inner": 0}, r"search\.inner: 0 is less than 1"),
        ({"predictors": ()}, r"search\.predictors: none"),
        ({"predictors": ("rigde",)}, r"search\.predictors: 'rigde' is not known.*'ridge'"),
        ({"crossover": 2.0}, r"search\.crossover: 2\.0 is outside 0 to 1"),
        ({"mutation": 1.1}, r"search\.mutation: 1\.1 is outside 0 to 1"),
    ],
)
def test_settings_that_cannot_work(tiny, limits, settings, message):
    with pytest.raises(UserError, match=message):
        LINAS(tiny, limits(tiny, "macs<=100%"), 0, **settings)
