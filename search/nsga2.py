"""NSGA-II: evolution of a whole Pareto front of error against what the budgets limit.

References:
    Deb, Pratap, Agarwal, Meyarivan. A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II. IEEE Transactions on
    Evolutionary Computation 6(2), 2002 (the algorithm; crossover 0.9, mutation 1 ÷ genes).
    Cummings et al. A Hardware-Aware Framework for Accelerating Neural Architecture Search Across Modalities. AutoML
    2022, arXiv:2205.10358 (population 50).
    Differs: uniform crossover and uniform mutation in place of simulated binary crossover and polynomial mutation, as
    choices of two to five values have no neighbourhood to speak of; no architecture is evaluated twice; each budget has
    its share of the children and of the population; the first generation holds both ends of the space where a budget
    admits them.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from search.breeding import Children, breed, cross, with_new_layers
from search.nondominated import best_first, crowding, ranks
from search.sampling import Unseen, meets_any
from search.searcher import SEARCHERS, Searcher, SearchState, at_least, fraction
from search_spaces import Genes


@dataclass(frozen=True)
class Population(SearchState):
    """Who lives.

    Attributes:
        members: Indices of the population among all that was evaluated, the best first.
    """

    members: Int[np.ndarray, " p"]


@SEARCHERS.register("nsga2")
@dataclass(frozen=True)
class NSGA2(Searcher):
    """Keeps the best fronts, of the last one the least crowded members; binary tournaments choose the parents.

    It minimises the error and every metric that a budget limits. Parents and children compete for the population by
    front, then by crowding distance, after each budget has kept its share of the best that meet it.

    Args:
        population: Number of members, and of candidates per generation (DyNAS-T 50; Deb 100).
        crossover: Probability that a child has two parents (Deb, DyNAS-T 0.9).
        mutation: Probability that a gene is drawn anew; null for 1 ÷ genes (Deb).
    """

    population: int = 50
    crossover: float = 0.9
    mutation: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("population", self.population, 1)
        fraction("crossover", self.crossover)
        if self.mutation is not None:
            fraction("mutation", self.mutation)

    @property
    def objectives(self) -> tuple[str, ...]:
        return ("error", *self.budget_metrics)

    def init(self) -> Population:
        return Population(**vars(super().init()), members=np.zeros(0, np.int64))

    def ask(self, state: SearchState) -> Genes:
        assert isinstance(state, Population)
        rng = self.rng(state)
        unseen = Unseen(self.space, state.genes)
        if state.generation == 0:
            extremes = self.space.extremes[::-1]
            unseen.add(extremes[meets_any(self.budgets, self.costs, extremes)], self.population)
        if len(state.members):
            genes, objectives = state.genes[state.members], state.objectives[state.members]
            rank = ranks(objectives)
            # Where a child stands in line: by front, then by crowding; equals have equal places.
            place = np.unique(np.stack([rank, -crowding(objectives, rank)], axis=1), axis=0, return_inverse=True)[1]
            place, costs = place.reshape(-1), self.costs(genes)
            for budget, share in zip(self.budgets, self.shares(state, self.population), strict=True):
                within = np.flatnonzero(budget.feasible(costs))
                pool = within if len(within) else np.arange(len(genes))
                children = partial(self._children, rng, genes[pool], place[pool])
                breed(self.space, rng, children, int(share), budget, self.costs, unseen)
        self.fill(state, rng, unseen, self.population)
        return unseen.genes

    def tell(self, state: SearchState, genes: Genes, objectives: Float[np.ndarray, "p m"]) -> Population:
        assert isinstance(state, Population)
        told = super().tell(state, genes, objectives)
        candidates = np.concatenate([state.members, np.arange(len(state.genes), len(told.genes))])
        candidates = candidates[np.isfinite(told.objectives[candidates]).all(axis=1)]
        return Population(**vars(told), members=candidates[self._survivors(told, candidates)])

    def _survivors(self, state: SearchState, candidates: Int[np.ndarray, " c"]) -> Int[np.ndarray, " p"]:
        order = best_first(state.objectives[candidates])
        costs = self.costs(state.genes[candidates])
        kept = np.zeros(len(candidates), bool)
        for budget in self.budgets:
            within = order[budget.feasible(costs)[order]]
            kept[within[: self.population // len(self.budgets)]] = True
        rest = order[~kept[order]]
        kept[rest[: max(self.population - int(kept.sum()), 0)]] = True
        return order[kept[order]]

    def _children(self, rng: np.random.Generator, genes: Genes, place: Int[np.ndarray, " a"], count: int) -> Children:
        first, second = (genes[_winners(rng, place, count)] for _ in range(2))
        crossed = np.where(rng.random((count, 1)) < self.crossover, cross(self.space, rng, first, second), first)
        probability = 1 / self.space.num_genes if self.mutation is None else self.mutation
        return self.space.mutate(rng, with_new_layers(self.space, rng, crossed), probability)


def _winners(rng: np.random.Generator, place: Int[np.ndarray, " a"], count: int) -> Int[np.ndarray, " c"]:
    """Binary tournaments: of two drawn with replacement the one that stands further in front, the first of equals."""
    pairs = rng.integers(len(place), size=(count, 2))
    return pairs[np.arange(count), place[pairs].argmin(axis=1)]
