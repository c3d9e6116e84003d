"""EvoPress: the best network at a budget, by switching levels between layers so that the budget stays met.

References:
    Sieberling, Kuznedelev, Kurtic, Alistarh. EvoPress: Accurate Dynamic Model Compression via Evolutionary Search. ICML
    2025, arXiv:2410.14649 (the defaults are those of quantisation).
    Differs: the parts of the validation split on which offspring are selected are the same in every generation, so the
    parent keeps its error and competes without being evaluated again; no architecture is evaluated twice; each budget
    has its own parent, the best of all that was evaluated and meets it; where levels differ in cost, a switch lowers as
    many genes as the raised one needs.
"""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from jaxtyping import Int

from search.breeding import pick
from search.budget import ResolvedBudget
from search.halving import Rungs
from search.sampling import Unseen, draw, shrink
from search.searcher import SEARCHERS, Searcher, SearchState, at_least
from search_spaces import Genes

_MOST_SWITCHES = 3
_TRIES = 10


@SEARCHERS.register("evopress")
@dataclass(frozen=True)
class EvoPress(Searcher):
    """Breeds from one parent for each budget; offspring are selected in steps, on growing shares of the data.

    A switch raises a gene by one level and, while that is over budget, lowers other genes of the same choice by one
    level each; of any choice, where those of its own do not suffice. Where values have no order, a gene is raised to
    any other one, and lowered to that of the smallest network. An offspring is min(U, U') switches away from its
    parent, U and U' uniform over 1 to 3. The first generation are random lowerings of the largest network.

    Args:
        offspring: Number of candidates per generation, divided among the budgets (128; sparsity 64, depth 32).
        halving: Steps of the selection, as pairs of a share of the data and a share of the candidates: 16 of 128 remain
            after a 64th of the data, 4 of those after an eighth; the best of these and the parent are compared on all
            data.
    """

    halving: Rungs = ((1 / 64, 1 / 8), (1 / 8, 1 / 4))
    offspring: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("offspring", self.offspring, 1)

    def ask(self, state: SearchState) -> Genes:
        rng = self.rng(state)
        unseen = Unseen(self.space, state.genes)
        for budget, share in zip(self.budgets, self.shares(state, self.offspring), strict=True):
            parent = self._parent(state, budget)
            make = partial(self._starts, rng) if parent is None else partial(self._offspring, rng, parent)
            added = unseen.add(make(budget, _TRIES * int(share)), int(share))
            draw(self.space, rng, int(share) - added, budget, self.costs, unseen)
        self.fill(state, rng, unseen, self.offspring)
        return unseen.genes

    def _parent(self, state: SearchState, budget: ResolvedBudget) -> Int[np.ndarray, " g"] | None:
        usable = np.flatnonzero(np.isfinite(state.errors) & budget.feasible(self.costs(state.genes)))
        return state.genes[usable[state.errors[usable].argmin()]] if usable.size else None

    def _starts(self, rng: np.random.Generator, budget: ResolvedBudget, count: int) -> Genes:
        largest = np.array([self.space.largest.genes], np.int32).repeat(count, axis=0)
        return shrink(self.space, rng, largest, budget, self.costs)

    def _offspring(
        self, rng: np.random.Generator, parent: Int[np.ndarray, " g"], budget: ResolvedBudget, count: int
    ) -> Genes:
        genes = parent[None].repeat(count, axis=0)
        switches = rng.integers(1, _MOST_SWITCHES + 1, size=(2, count)).min(axis=0)
        for done in range(_MOST_SWITCHES):
            more = switches > done
            genes[more] = self._switch(rng, genes[more], budget)
        return genes[budget.feasible(self.costs(genes))]

    def _switch(self, rng: np.random.Generator, genes: Genes, budget: ResolvedBudget) -> Genes:
        """Raises a gene of each row, then lowers others while the row is over budget and there is one to lower."""
        genes = genes.copy()
        ordered, values = self.space.ordered, self.space.cardinalities
        raised = pick(rng, self.space.active(genes) & np.where(ordered, genes < values - 1, values > 1))
        over = np.flatnonzero(raised >= 0)
        column = raised[over]
        # Draws where some choice has no order only, so that those of other spaces stay as they are.
        steps = 1 if ordered.all() else np.where(ordered[column], 1, rng.integers(1, np.maximum(values[column], 2)))
        genes[over, column] = (genes[over, column] + steps) % values[column]
        over = over[~budget.feasible(self.costs(genes[over]))]
        lowest = np.where(ordered, 0, self.space.smallest.genes)
        while over.size:
            lowerable = self.space.active(genes[over]) & (genes[over] != lowest)
            lowerable[np.arange(len(over)), raised[over]] = False
            own = lowerable & (self._choice_of == self._choice_of[raised[over], None])
            lowered = pick(rng, np.where(own.any(axis=1, keepdims=True), own, lowerable))
            over, lowered = over[lowered >= 0], lowered[lowered >= 0]
            genes[over, lowered] = np.where(ordered[lowered], genes[over, lowered] - 1, lowest[lowered])
            genes[over] = self.space.canonical(genes[over])
            over = over[~budget.feasible(self.costs(genes[over]))]
        return genes

    @cached_property
    def _choice_of(self) -> Int[np.ndarray, " g"]:
        """Which choice each gene belongs to."""
        choices = np.zeros(self.space.num_genes, np.int64)
        for number, columns in enumerate(self.space.columns.values()):
            choices[columns] = number
        return choices
