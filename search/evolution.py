"""Evolution over a trained supernet: mutation and crossover of the best seen, for every budget in one search.

References:
    Guo et al. Single Path One-Shot Neural Architecture Search with Uniform Sampling. ECCV 2020, arXiv:1904.00420.
    Cai, Gan, Wang, Zhang, Han. Once-for-All. ICLR 2020, arXiv:1908.09791.
    Chen, Peng, Fu, Ling. AutoFormer. ICCV 2021, arXiv:2107.00651 (the defaults).
    Differs: several budgets share one archive; the first generation holds both ends of the space where a budget admits
    them; a mutation that deepens a network draws the new layers at random, and crossover of parents of unlike depth is
    allowed (AutoFormer demands equal depth).
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from search.breeding import Children, breed, cross, with_new_layers
from search.budget import ResolvedBudget
from search.sampling import Unseen, meets_any
from search.searcher import SEARCHERS, Searcher, SearchState, at_least, fraction
from search_spaces import Genes


@SEARCHERS.register("evolution")
@dataclass(frozen=True)
class Evolution(Searcher):
    """Keeps, for each budget, the best architectures of all generations that meet it, and breeds from them.

    A generation is shared out evenly over the budgets, and every evaluation counts for every budget that it meets.
    Children over budget are rejected up to ten tries for each child that is wanted; if too few are left, rejected ones
    are shrunk to the budget. What is still missing is drawn at random.

    Args:
        population: Number of candidates per generation (SPOS, AutoFormer 50; OFA 100).
        parents: Number of the best candidates that become parents, for each budget (SPOS, AutoFormer 10; OFA a quarter
            of the population).
        mutated: Share of a generation that comes from mutation (25 of 50 in SPOS and AutoFormer; OFA half).
        crossed: Share of a generation that comes from crossover (values as for `mutated`); the remaining share is
            random.
        mutation: Probability that a gene is drawn anew (AutoFormer 0.2; SPOS, OFA 0.1).
        mutation_ungated: Probability that a gene that no depth switches off (depths, widths, resolutions) is drawn anew
            (AutoFormer 0.4).
    """

    population: int = 50
    parents: int = 10
    mutated: float = 0.5
    crossed: float = 0.5
    mutation: float = 0.2
    mutation_ungated: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("population", self.population, 1)
        at_least("parents", self.parents, 1)
        for setting in ("mutated", "crossed", "mutation", "mutation_ungated"):
            fraction(setting, getattr(self, setting))
        fraction("mutated + search.crossed", self.mutated + self.crossed)

    def ask(self, state: SearchState) -> Genes:
        rng = self.rng(state)
        unseen = Unseen(self.space, state.genes)
        if state.generation == 0:
            extremes = self.space.extremes[::-1]
            unseen.add(extremes[meets_any(self.budgets, self.costs, extremes)], self.population)
        for budget, share in zip(self.budgets, self.shares(state, self.population), strict=True):
            best = self._best(state, budget)
            if len(best):
                for make, part in ((self._mutants, self.mutated), (self._crossings, self.crossed)):
                    children = partial(make, rng, best)
                    breed(self.space, rng, children, int(share * part), budget, self.costs, unseen)
        self.fill(state, rng, unseen, self.population)
        return unseen.genes

    def _best(self, state: SearchState, budget: ResolvedBudget) -> Genes:
        usable = np.isfinite(state.errors) & budget.feasible(self.costs(state.genes))
        candidates = np.flatnonzero(usable)
        order = np.argsort(state.errors[candidates], kind="stable")
        return state.genes[candidates[order[: self.parents]]]

    def _mutants(self, rng: np.random.Generator, best: Genes, count: int) -> Children:
        parents = with_new_layers(self.space, rng, best[rng.integers(len(best), size=count)])
        ungated = {choice.name: self.mutation_ungated for choice in self.space.choices if choice.gate is None}
        return self.space.mutate(rng, parents, self.mutation, ungated)

    def _crossings(self, rng: np.random.Generator, best: Genes, count: int) -> Children:
        first, second = (best[rng.integers(len(best), size=count)] for _ in range(2))
        return cross(self.space, rng, first, second)
