"""Searcher: the ask/tell interface of every search strategy."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from search.budget import CostFunction, Costs, ResolvedBudget
from search.halving import Rungs, check_rungs
from search.sampling import Unseen, draw, draw_neighbours
from search_spaces import Genes, Registry, SearchSpace, UserError
from search_spaces.randomness import Purpose, stream
from search_spaces.sealed_json import JsonObject


@dataclass(frozen=True)
class SearchState:
    """Everything a search knows: what was evaluated, in order. It follows from the archive alone.

    Attributes:
        generation: Number of batches that were told.
        genes: Canonical genes of all evaluated architectures.
        objectives: Their objectives, minimised; the validation error first; NaN where the evaluation failed or stopped
            before the whole validation split.
    """

    generation: int
    genes: Genes
    objectives: Float[np.ndarray, "a m"]

    @property
    def errors(self) -> Float[np.ndarray, " a"]:
        """Validation errors, NaN where the evaluation failed or stopped before the whole validation split."""
        return self.objectives[:, 0]


@dataclass(frozen=True)
class Searcher(ABC):
    """Proposes architectures for any number of budgets in one search.

    A searcher is a frozen dataclass: these fields, then its settings with their published defaults. `ask` depends on
    the state alone (its draws are seeded with the seed and the generation), so a search is replayed by telling it what
    the archive holds.

    Args:
        space: The space to search.
        budgets: At least one; every candidate meets at least one of them.
        seed: Seed of all draws, 0 or more.
        cost: Costs of architectures; the space's cost model when None.
        halving: Successive halving of every generation (`search.halving`): pairs of a share of the validation split and
            the share of the candidates that continues; empty for the whole split at once.
        in_flight: Number of batches that are requested before the searcher gets the results of the first, so that many
            workers stay busy; 1 unless the searcher is asynchronous.

    Raises:
        UserError: No budget, two of one name, or a setting that cannot work.
    """

    space: SearchSpace
    budgets: tuple[ResolvedBudget, ...]
    seed: int
    cost: CostFunction | None = None
    halving: Rungs = ()
    in_flight: int = 1

    asynchronous: ClassVar[bool] = False
    """Whether it may be asked before what it asked for is told; that is then in the state, without a result."""
    designs_first: ClassVar[bool] = False
    """Whether its first generation is chosen to learn from, and not shared out evenly over the budgets."""

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0, 2**63 - 1)
        names = [budget.name for budget in self.budgets]
        if not names:
            raise UserError("search.budgets: none. Give at least one, such as full: macs<=100%.")
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"search.budgets: two are called {name!r}. Give each its own name.")
        check_rungs(self.halving)
        at_least("in_flight", self.in_flight, 1, 1024)
        if self.in_flight > 1 and (self.halving or not self.asynchronous):
            what = "successive halving" if self.asynchronous else "this searcher"
            raise UserError(f"search.in_flight: {self.in_flight}, but {what} waits for all results. Set it to 1.")

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the objectives: "error", then the metrics that this searcher trades against it."""
        return ("error",)

    @property
    def settings(self) -> JsonObject:
        """Its own settings by name, as the header of its archive shows them: JSON types, in a new dictionary."""
        shared = {field.name for field in fields(Searcher)}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in shared}

    @property
    def budget_metrics(self) -> tuple[str, ...]:
        """The metrics that the budgets limit, each once, in the budgets' order."""
        return tuple(dict.fromkeys(metric for budget in self.budgets for metric, _ in budget.limits))

    @abstractmethod
    def ask(self, state: SearchState) -> Genes:
        """Returns the next candidates: canonical, new, each within a budget; empty when none are left."""

    def init(self) -> SearchState:
        """Returns the state before the first candidate."""
        return SearchState(0, np.zeros((0, self.space.num_genes), np.int32), np.zeros((0, len(self.objectives))))

    def tell(self, state: SearchState, genes: Genes, objectives: Float[np.ndarray, "p m"]) -> SearchState:
        """Returns the state after the candidates of one `ask` were evaluated."""
        return SearchState(
            state.generation + 1,
            np.concatenate([state.genes, genes]),
            np.concatenate([state.objectives, objectives]),
        )

    # ---------------------------------------------------------------- for strategies

    def costs(self, genes: Genes) -> Costs:
        """Returns what architectures cost."""
        return (self.cost or self.space.cost)(genes)

    def rng(self, state: SearchState) -> np.random.Generator:
        """Returns the generator of one generation's draws."""
        return stream(self.seed, Purpose.CANDIDATES, state.generation)

    def shares(self, state: SearchState, count: int) -> Int[np.ndarray, " budgets"]:
        """Splits `count` candidates evenly over the budgets; who gets the remainder goes round by generation."""
        order = (np.arange(len(self.budgets)) - state.generation) % len(self.budgets)
        return (count + order) // len(self.budgets)

    def fill(self, state: SearchState, rng: np.random.Generator, unseen: Unseen, count: int) -> None:
        """Adds random candidates, shared out over the budgets, until there are `count` or the space is exhausted."""
        for budget, share in zip(self.budgets, self.shares(state, count - len(unseen)), strict=True):
            draw(self.space, rng, int(share), budget, self.costs, unseen)
        if len(unseen) < count:
            seen = np.concatenate([state.genes, unseen.genes])
            cost = self.cost or self.space.cost
            draw_neighbours(self.space, rng, count - len(unseen), self.budgets, cost, seen, unseen)


MOST = 100_000
"""Most that a whole number of a searcher's settings may be, such as a population, all of which is held in memory."""

SEARCHERS: Registry[type[Searcher]] = Registry("searcher", "search")


def at_least(setting: str, value: int, minimum: int, most: int = MOST) -> None:
    """Refuses a whole-number setting below its minimum, or above what memory and patience can hold.

    Raises:
        UserError: The value is smaller than the minimum, larger than the most, or no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"search.{setting}: {value!r} is not a whole number. Give {minimum} or more.")
    if value < minimum:
        raise UserError(f"search.{setting}: {value} is less than {minimum}. Give {minimum} or more.")
    if value > most:
        raise UserError(f"search.{setting}: {value} is out of range. Give at most {most:,}.")


def fraction(setting: str, value: float) -> None:
    """Refuses a setting that is not within 0 to 1.

    Raises:
        UserError: The value is outside 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"search.{setting}: {value!r} is outside 0 to 1. Give a share within it.")
