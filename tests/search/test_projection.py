"""The most probable architecture within a budget: exact where nothing binds, near the optimum elsewhere."""

import numpy as np
import pytest

from search import Budget
from search.projection import most_probable
from search_spaces import MobileNetSpace, build_space
from tests.search_spaces.crooked import Crooked, Measured


def distribution(space, seed, sharpness=1.0):
    rng = np.random.default_rng(seed)
    weights = np.exp(sharpness * rng.normal(size=(space.num_genes, int(space.cardinalities.max()))))
    weights[:, -1] *= 3  # large values are likelier, so that budgets bind
    weights *= np.arange(weights.shape[1]) < space.cardinalities[:, None]
    return weights / weights.sum(axis=1, keepdims=True)


def lost(space, probabilities, rows):
    """Log-probability that active genes lack of their most probable values."""
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities)
    each = logs.max(axis=1) - np.take_along_axis(logs[None], rows[..., None], axis=2)[..., 0]
    return np.where(space.active(rows), each, 0).sum(axis=1)


@pytest.mark.parametrize("limit", [None, "macs<=100%"])
def test_without_a_binding_budget_it_is_the_argmax(small, limit) -> None:
    probabilities = distribution(small, 0)
    budget = None if limit is None else Budget.parse("b", limit).resolve(small)
    expected = small.canonical(probabilities.argmax(axis=1)[None])[0]
    np.testing.assert_array_equal(most_probable(small, probabilities, budget), expected)


def test_near_the_optimum_of_a_space_that_can_be_listed(tiny, every) -> None:
    rows, worse = every(tiny), 0
    for seed in range(40):
        probabilities = distribution(tiny, seed)
        budget = Budget.parse("b", f"macs<={30 + seed}%").resolve(tiny)
        found = most_probable(tiny, probabilities, budget)
        assert budget.feasible(tiny.cost(found[None])).all()
        best = lost(tiny, probabilities, rows[budget.feasible(tiny.cost(rows))]).min()
        worse += lost(tiny, probabilities, found[None])[0] > best + 1e-9
    assert worse <= 2  # greedy


@pytest.mark.parametrize("family", ["vit", "mobilenet"])
def test_every_budget_is_met_and_no_change_of_two_genes_is_better(family) -> None:
    space = build_space(family, "small")
    for seed, spec in enumerate(["macs<=20%", "macs<=50%", "params<=40%, macs<=60%", "params<=25%"]):
        probabilities = distribution(space, seed, 2.0)
        budget = Budget.parse("b", spec).resolve(space)
        found = most_probable(space, probabilities, budget)
        assert space.contains(found[None]).all()
        assert (found == space.canonical(found[None])[0]).all()
        assert budget.feasible(space.cost(found[None])).all()
        likeliest = probabilities.argmax(axis=1).astype(np.int32)[None]
        assert (lost(space, probabilities, found[None])[0] == 0) == budget.feasible(space.cost(likeliest))[0]
        near = space.neighbours(found)
        near = near[budget.feasible(space.cost(near))]
        # A neighbour that is deeper starts its new layers small, so some of them give up more than they need to.
        assert lost(space, probabilities, near).min() >= lost(space, probabilities, found[None])[0] - 1e-9


def test_a_limit_of_exactly_the_smallest_network_gives_it() -> None:
    space = build_space("mobilenet", "small")
    assert isinstance(space, MobileNetSpace)
    smallest = np.array([space.smallest.genes], np.int32)
    macs = int(space.cost(smallest)["macs"][0])
    found = most_probable(space, distribution(space, 3), Budget.parse("b", {"macs": macs}).resolve(space))
    assert space.cost(found[None])["macs"][0] <= macs


def test_another_cost_function_decides(tiny) -> None:
    probabilities = distribution(tiny, 1)
    cost = lambda genes: {"latency_ms": 1.0 + genes.sum(axis=1)}  # noqa: E731
    budget = Budget.parse("b", {"latency_ms": 2.5}, ("latency_ms",)).resolve(tiny, cost)
    found = most_probable(tiny, probabilities, budget, cost)
    assert found.sum() <= 1


def test_a_cost_that_does_not_fall_with_every_gene(tiny) -> None:
    """The likeliest network is in a pit of the cost: all its neighbours cost more, and it is over budget."""
    probabilities = np.full((tiny.num_genes, int(tiny.cardinalities.max())), 0.25)
    probabilities[:, 1] = 0.75
    likeliest = tuple(probabilities.argmax(axis=1))

    def cost(genes):
        in_pit = (genes == likeliest).all(axis=1)
        return {"latency_ms": np.where(in_pit, 2.0, 1.0 + genes.sum(axis=1))}

    budget = Budget.parse("b", {"latency_ms": 1.5}, ("latency_ms",)).resolve(tiny, cost)
    found = most_probable(tiny, probabilities, budget, cost)
    assert budget.feasible(cost(found[None])).all()


def test_a_budget_that_only_another_corner_than_the_smallest_meets() -> None:
    for seed in range(20):
        space = Crooked(seed)
        cost = Measured(space, seed)
        latency = np.sort(cost(space.members)["latency_ms"])
        budget = Budget.parse("b", {"latency_ms": float(latency[0])}, ("latency_ms",)).resolve(space, cost)
        found = most_probable(space, distribution(space, seed), budget, cost)
        assert cost(found[None])["latency_ms"][0] == latency[0]
