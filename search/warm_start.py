"""Warm start: a search whose first candidates are the best of many random ones by a score that needs no evaluation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from search.nondominated import best_first
from search.sampling import Unseen, draw
from search.searcher import Searcher, SearchState
from search.wrapped import Wrapped
from search_spaces import Genes
from search_spaces.randomness import Purpose, stream
from search_spaces.sealed_json import JsonObject

Scores = Callable[[Genes], Float[np.ndarray, " a"]]
"""Score of each architecture; larger is better. Only the order among those that are given at once counts."""


@dataclass(frozen=True, kw_only=True)
class WarmStarted(Wrapped):
    """Asks for given architectures in place of another searcher's first generation, which tells it of them.

    Args:
        first: Genes of architectures that each meet at least one of the budgets, the best first.
        origin: Source of the candidates, for the header of the archive: JSON types.
    """

    first: tuple[tuple[int, ...], ...]
    origin: JsonObject

    @classmethod
    def of(cls, searcher: Searcher, first: Genes, origin: JsonObject) -> "WarmStarted":
        """The search of `searcher`, begun with architectures."""
        rows = tuple(tuple(int(gene) for gene in row) for row in first)
        return cls.around(searcher, first=rows, origin=origin)

    @property
    def settings(self) -> JsonObject:
        return {**super().settings, "warm_start": self.origin, "first": self.first}

    def ask(self, state: SearchState) -> Genes:
        asked = super().ask(state)
        if state.generation:
            return asked
        unseen = Unseen(self.space, state.genes)
        unseen.add(self.space.canonical(np.array(self.first, np.int32)), len(asked))
        unseen.add(asked, len(asked) - len(unseen))
        return unseen.genes


def first_generation(searcher: Searcher, candidates: int, scores: Scores) -> Genes:
    """Returns as many architectures as a searcher first asks for: the best of random ones, shared out over its budgets.

    A searcher with several objectives gets those that no other dominates by score and costs, the loneliest first.

    Args:
        searcher: The searcher.
        candidates: Number of candidates to draw, divided among the budgets; fewer if the space has fewer.
        scores: Their scores, asked for each budget's at once.
    """
    start = searcher.init()
    size = len(searcher.ask(start))
    chosen = Unseen(searcher.space, start.genes)
    shares = searcher.shares(start, size)
    for number, (budget, share) in enumerate(zip(searcher.budgets, shares, strict=True)):
        drawn = Unseen(searcher.space, chosen.genes)
        rng = stream(searcher.seed, Purpose.WARM_START, number)
        draw(searcher.space, rng, max(candidates // len(searcher.budgets), int(share)), budget, searcher.costs, drawn)
        genes = drawn.genes
        if not len(genes):
            continue
        worse, traded = -scores(genes), searcher.objectives[1:]
        order = np.argsort(worse, kind="stable")
        if traded:
            costs = searcher.costs(genes)
            order = best_first(np.column_stack([worse, *(costs[metric] for metric in traded)]))
        chosen.add(genes[order], int(share))
    return chosen.genes
