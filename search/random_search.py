"""Random search: uniform draws within the budgets, the baseline of every other strategy."""

from dataclasses import dataclass

from search.sampling import Unseen
from search.searcher import SEARCHERS, Searcher, SearchState, at_least
from search_spaces import Genes


@SEARCHERS.register("random")
@dataclass(frozen=True)
class RandomSearch(Searcher):
    """Draws candidates from the space under the condition that they meet a budget (`search.sampling.draw`).

    Args:
        population: Number of candidates that are requested at a time, divided evenly among the budgets.
    """

    asynchronous = True

    population: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("population", self.population, 1)

    def ask(self, state: SearchState) -> Genes:
        unseen = Unseen(self.space, state.genes)
        self.fill(state, self.rng(state), unseen, self.population)
        return unseen.genes
