"""Local search: descend to the best neighbour until there is no better one, then start again elsewhere.

References:
    White, Nolen, Savani. Exploring the Loss Landscape in Neural Architecture Search. UAI 2021, arXiv:2005.02960.
    Differs: each budget has its own descent, among the architectures that meet it; what was evaluated for another
    budget is not evaluated again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from search.budget import ResolvedBudget
from search.sampling import Unseen, draw
from search.searcher import SEARCHERS, Searcher, SearchState, at_least
from search_spaces import Genes


@dataclass(frozen=True)
class Descents(SearchState):
    """State of each budget's descent.

    Attributes:
        centres: Index of the architecture whose neighbours are evaluated, a budget; -1 for one that starts anew.
    """

    centres: Int[np.ndarray, " budgets"]


@SEARCHERS.register("local")
@dataclass(frozen=True)
class LocalSearch(Searcher):
    """Evaluates all neighbours of an architecture (one gene changed) and moves to the best one if it is better.

    At a local minimum the descent of that budget starts again: from the best of some random architectures. The budgets
    get equally many candidates, so that a generation ends with the smallest neighbourhood.

    Args:
        starts: Number of random architectures; a descent starts from the best of them (NASLib 10).
    """

    starts: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("starts", self.starts, 1)

    def init(self) -> Descents:
        return Descents(**vars(super().init()), centres=np.full(len(self.budgets), -1))

    def ask(self, state: SearchState) -> Genes:
        assert isinstance(state, Descents)
        rng = self.rng(state)
        unseen = Unseen(self.space, state.genes)
        near = [self._unknown_neighbours(state, budget, centre) for budget, centre in self._by_budget(state)]
        share = min(self.starts if rows is None else len(rows) for rows in near)
        for budget, rows in zip(self.budgets, near, strict=True):
            if rows is None:
                draw(self.space, rng, share, budget, self.costs, unseen)
            else:
                unseen.add(rng.permutation(rows), share)
        if not len(unseen):
            self.fill(state, rng, unseen, self.starts)
        return unseen.genes

    def tell(self, state: SearchState, genes: Genes, objectives: Float[np.ndarray, "p m"]) -> Descents:
        assert isinstance(state, Descents)
        told = super().tell(state, genes, objectives)
        new = np.arange(len(state.genes), len(told.genes))
        index = {row.tobytes(): i for i, row in enumerate(told.genes)}
        centres = []
        for budget, centre in self._by_budget(state):
            if centre < 0:
                within = new[budget.feasible(self.costs(genes)) & np.isfinite(told.errors[new])]
                centre = int(within[told.errors[within].argmin()]) if len(within) else -1
            centres.append(self._descend(told, budget, centre, index))
        return Descents(**vars(told), centres=np.array(centres))

    def _descend(self, state: SearchState, budget: ResolvedBudget, centre: int, index: dict[bytes, int]) -> int:
        """The first architecture on the way down that has a neighbour to evaluate; -1 if the way ends before."""
        while centre >= 0:
            near = self._neighbours(state.genes[centre], budget)
            known = [index[row.tobytes()] for row in near if row.tobytes() in index]
            if len(known) < len(near):
                return centre
            better = [i for i in known if state.errors[i] < state.errors[centre]]
            centre = min(better, key=lambda i: state.errors[i], default=-1)
        return -1

    def _neighbours(self, genes: Int[np.ndarray, " g"], budget: ResolvedBudget) -> Genes:
        near = self.space.neighbours(genes)
        return near[budget.feasible(self.costs(near))]

    def _unknown_neighbours(self, state: SearchState, budget: ResolvedBudget, centre: int) -> Genes | None:
        """Neighbours that are not evaluated yet; None where there is no centre."""
        if centre < 0:
            return None
        known = {row.tobytes() for row in state.genes}
        near = self._neighbours(state.genes[centre], budget)
        return near[[row.tobytes() not in known for row in near]]

    def _by_budget(self, state: Descents) -> Iterator[tuple[ResolvedBudget, int]]:
        return zip(self.budgets, state.centres.tolist(), strict=True)
