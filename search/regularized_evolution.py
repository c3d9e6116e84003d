"""Regularised evolution: a population in which not the worst dies but the oldest.

References:
    Real, Aggarwal, Huang, Le. Regularized Evolution for Image Classifier Architecture Search. AAAI 2019,
    arXiv:1802.01548 (algorithm 1 and the defaults).
    Differs: an architecture is evaluated once, so a child that is known is replaced by another; each budget has its own
    population, of what was evaluated for any of them; the random start holds both ends of the space where a budget
    admits them; a change that deepens a network draws the new layers at random.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from search.breeding import Children, breed, change_one
from search.budget import ResolvedBudget
from search.sampling import Unseen, draw, meets_any
from search.searcher import SEARCHERS, Searcher, SearchState, at_least
from search_spaces import Genes


@SEARCHERS.register("regularized_evolution")
@dataclass(frozen=True)
class RegularizedEvolution(Searcher):
    """Mutates the best of a random sample from a population of the latest evaluated architectures.

    The population of a budget are the last architectures that meet it and were evaluated without failing, so each new
    one removes the oldest. Until it is full, the budget's candidates are drawn at random. A child is the best of
    `sample` members, drawn with replacement, with one gene changed.

    Args:
        population: Number of members for each budget, and of candidates of the first generation, divided among the
            budgets (Real 100).
        sample: Number of members that compete to be a parent (Real 25).
        children: Number of candidates that are requested at a time, divided among the budgets (Real 1; more for
            parallel evaluation).
    """

    asynchronous = True

    population: int = 100
    sample: int = 25
    children: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for setting in ("population", "sample", "children"):
            at_least(setting, getattr(self, setting), 1)

    def ask(self, state: SearchState) -> Genes:
        rng = self.rng(state)
        unseen = Unseen(self.space, state.genes)
        count = self.children if state.generation else self.population
        if state.generation == 0:
            extremes = self.space.extremes[::-1]
            unseen.add(extremes[meets_any(self.budgets, self.costs, extremes)], count)
        for budget, share in zip(self.budgets, self.shares(state, count - len(unseen)), strict=True):
            living = self._living(state, budget)
            if len(living) == self.population:
                errors, genes = state.errors[living], state.genes[living]

                def mutants(wanted: int, errors: np.ndarray = errors, genes: Genes = genes) -> Children:
                    return change_one(self.space, rng, genes[self._parents(rng, errors, wanted)])

                breed(self.space, rng, mutants, int(share), budget, self.costs, unseen)
            else:
                draw(self.space, rng, int(share), budget, self.costs, unseen)
        self.fill(state, rng, unseen, count)
        return unseen.genes

    def _living(self, state: SearchState, budget: ResolvedBudget) -> Int[np.ndarray, " p"]:
        """The population of a budget, the oldest first."""
        usable = np.isfinite(state.errors) & budget.feasible(self.costs(state.genes))
        return np.flatnonzero(usable)[-self.population :]

    def _parents(self, rng: np.random.Generator, errors: np.ndarray, count: int) -> Int[np.ndarray, " c"]:
        """The best of a sample, drawn with replacement, for each child."""
        samples = rng.integers(len(errors), size=(count, self.sample))
        return samples[np.arange(count), errors[samples].argmin(axis=1)]
