"""A toy space of layers with levels, errors with a known front, and the hypervolume of two objectives by hand."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from search import ResolvedBudget, Searcher
from search_spaces import Choice, CostModel, Genes, SearchSpace
from search_spaces.cost import Cost, Term


@dataclass(frozen=True)
class Ladder(SearchSpace):
    """Every layer has one of the same levels; a level costs one MAC more than the level below.

    Attributes:
        layers: How many.
        levels: How many each can have.
    """

    layers: int
    levels: int

    family = "ladder"

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return (Choice("level", tuple(range(self.levels)), repeats=self.layers),)

    @cached_property
    def cost(self) -> CostModel:
        values = [range(self.levels)]
        terms = [Term.tabulate([i], values, lambda level: Cost(1, level + 1)) for i in range(self.layers)]
        return CostModel(self.num_genes, terms)

    def at_most(self, total: int) -> tuple[ResolvedBudget, ...]:
        """The budget that admits levels of this sum or less."""
        return (ResolvedBudget("levels", (("macs", float(total + self.layers)),)),)

    @cached_property
    def members(self) -> Genes:
        """All networks."""
        return np.array(list(itertools.product(range(self.levels), repeat=self.layers)), np.int32)


def trade_off(space: Ladder, seed: int) -> Callable[[Genes], np.ndarray]:
    """An error that falls with every level, by unlike amounts, and depends a little on pairs of layers."""
    rng = np.random.default_rng(seed)
    gains = rng.exponential(size=(space.layers, space.levels - 1))
    table = np.concatenate([np.zeros((space.layers, 1)), -np.cumsum(gains, axis=1)], axis=1)
    pairs = 0.1 * rng.normal(size=(space.layers, space.layers)) / (space.levels - 1) ** 2

    def error(genes: Genes) -> np.ndarray:
        return table[np.arange(space.layers), genes].sum(axis=1) + np.einsum("ai,ij,aj->a", genes, pairs, genes)

    return error


def hypervolume(errors: np.ndarray, costs: np.ndarray, reference: tuple[float, float]) -> float:
    """The area that points dominate below a reference, all minimised."""
    area, lowest = 0.0, reference[0]
    for i in np.lexsort((errors, costs)):
        if errors[i] < lowest and costs[i] < reference[1]:
            area += float((lowest - errors[i]) * (reference[1] - costs[i]))
            lowest = float(errors[i])
    return area


def evaluations_to(searcher: Searcher, error: Callable[[Genes], np.ndarray], share: float, most: int = 2000) -> int:
    """How many evaluations a searcher needs to a share of the true front's hypervolume, in steps of five."""
    space = searcher.space
    assert isinstance(space, Ladder)
    all_errors, all_costs = error(space.members), space.cost(space.members)["macs"]
    reference = (float(all_errors.max()), float(all_costs.max()) + 1)
    wanted = share * hypervolume(all_errors, all_costs, reference)
    state = searcher.init()
    for _ in range(most):
        genes = searcher.ask(state)
        others = [searcher.costs(genes)[metric] for metric in searcher.objectives[1:]]
        told = searcher.tell(state, genes, np.column_stack([error(genes), *others]))
        costs = space.cost(told.genes)["macs"]
        for count in range(len(state.genes) + 5, len(told.genes) + 1, 5):
            if hypervolume(told.errors[:count], costs[:count], reference) >= wanted:
                return count
        state = told
        if len(state.genes) >= most:
            break
    return most
