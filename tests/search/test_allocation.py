"""MIP and dynamic programming: their surrogate, and optima against all networks of small spaces, with crooked costs."""

import time

import numpy as np
import pytest

from search import MIP, Additive, Allocator, DynamicProgramming, ResolvedBudget, best_by
from search_spaces import UserError, build_space
from tests.search_spaces.crooked import Crooked, Measured


@pytest.fixture(params=[MIP, DynamicProgramming])
def kind(request) -> type[Allocator]:
    return request.param


def random_surrogate(space, seed: int) -> Additive:
    return Additive(space, 0.5, np.random.default_rng(seed).normal(size=int(space.cardinalities.sum())))


def test_tables_say_what_the_surrogate_does(tiny, every):
    genes, surrogate = every(tiny), random_surrogate(tiny, 0)
    tables = surrogate.tables
    total = np.full(len(genes), tables.constant)
    for columns, table in tables.sums:
        total += table[tuple(genes[:, column] for column in columns)]
    np.testing.assert_allclose(total, surrogate(genes), atol=1e-12)


def test_the_surrogate_learns_an_additive_error(tiny, every, landscape):
    genes = every(tiny)
    errors = landscape(tiny).errors(genes)
    fitted = Additive.fit(tiny, genes, errors, 1e-9)
    np.testing.assert_allclose(fitted(genes), errors, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_optima_are_those_of_all_networks(kind, seed):
    """Costs that fall with genes, and one with a maximum in it; several limits at once."""
    space = Crooked(seed, span=100)
    measured = Measured(space, seed)
    surrogate = random_surrogate(space, seed)
    costs, errors = measured(space.members), surrogate(space.members)
    metrics = list(costs)
    for quantile in (0.02, 0.2, 0.9):
        for names in (metrics[:1], metrics[-1:], metrics):
            limits = tuple((name, float(np.quantile(costs[name], quantile))) for name in names)
            within = np.logical_and.reduce([costs[name] <= most for name, most in limits])
            searcher = kind(space, (ResolvedBudget("b", limits),), 0, measured)
            found = searcher.allocate(surrogate, limits)
            if not within.any():
                assert found is None
                continue
            assert found is not None
            assert found.proven
            assert found.predicted == pytest.approx(errors[within].min(), abs=1e-6)
            own = measured(found.genes[None])
            assert all(own[name][0] <= most for name, most in limits)


def test_the_best_neighbour_stands_for_an_optimum_that_was_evaluated(kind, tiny, every, limits, landscape):
    (budget,) = limits(tiny, "macs<=60%")
    searcher = kind(tiny, (budget,), 0, population=1, penalty=1e-6)
    members = every(tiny)
    errors = landscape(tiny).errors(members)
    optimum = best_by(searcher, members, errors, budget)
    assert optimum is not None
    near = {tuple(row) for row in tiny.neighbours(optimum.genes).tolist()}
    within = np.flatnonzero(budget.feasible(tiny.cost(members)))
    neighbour = next(i for i in within if tuple(members[i].tolist()) in near)
    other = next(i for i in within if tuple(members[i].tolist()) not in near | {tuple(optimum.genes.tolist())})
    known = np.delete(members, [neighbour, other], axis=0)
    state = searcher.tell(searcher.init(), known, np.delete(errors, [neighbour, other])[:, None])
    np.testing.assert_array_equal(searcher.ask(state), members[neighbour][None])


def test_a_new_budget_is_answered_and_proven_in_a_second(kind, small, limits, landscape):
    rng, errors = np.random.default_rng(0), landscape(small)
    genes = np.unique(small.sample(rng, 200), axis=0)
    (budget,) = limits(small, "macs<=37%")
    searcher = kind(small, (budget,), 0)
    best_by(searcher, genes, errors(genes), budget)  # SciPy is imported
    start = time.process_time()
    found = best_by(searcher, genes, errors(genes), budget)
    assert time.process_time() - start < 1
    assert found is not None
    assert found.proven
    assert budget.feasible(small.cost(found.genes[None])).all()


def test_the_optimum_of_an_additive_error_is_found_early(kind, every, landscape):
    """64 single-layer choices: an additive error is known after a generation or two."""
    space = build_space("vit", "small", {"width": [16, 24], "depth": [3], "heads": [1, 2], "mlp_ratio": [1.0, 2.0]})
    members, errors = every(space), landscape(space)
    budget = ResolvedBudget("half", (("macs", 0.6 * float(space.cost(space.extremes)["macs"][1])),))
    truth = errors.errors(members[budget.feasible(space.cost(members))]).min()
    searcher = kind(space, (budget,), 0)
    state = searcher.init()
    for _ in range(3):
        genes = searcher.ask(state)
        state = searcher.tell(state, genes, errors(genes)[:, None])
    assert len(state.genes) <= 72
    assert state.errors.min() == pytest.approx(truth, abs=1e-9)


def test_bad_settings(kind, tiny, limits):
    budgets = limits(tiny, "macs<=60%")
    with pytest.raises(UserError, match=r"search\.penalty: 0\.0 is not positive"):
        kind(tiny, budgets, 0, penalty=0.0)
    with pytest.raises(UserError, match=r"search\.population: 0 is less than 1"):
        kind(tiny, budgets, 0, population=0)


@pytest.mark.parametrize("members", [[1, 2], [1]])
def test_ensembles_are_refused_as_the_surrogate_knows_gates_alone(kind, members):
    space = build_space("vit_ensemble", "small", {"members": members, "private": [1, 2]})
    with pytest.raises(UserError, match=r"search\.type: an additive surrogate of family vit_ensemble proves no"):
        kind(space, (ResolvedBudget("b", (("macs", 1e9),)),), 0)
