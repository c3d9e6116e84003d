"""Additive: a surrogate of the error that is a sum over genes, and searchers that ask for what is best by it.

The best network by a surrogate within limits is a fact that can be proven; that the surrogate is right is not.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, Int, Int32

from search.budget import CostFunction, ResolvedBudget
from search.sampling import Unseen, draw, meets_any
from search.searcher import Searcher, SearchState, at_least
from search_spaces import Genes, SearchSpace, UserError
from search_spaces.cost import CostTables, Tabulated
from search_spaces.predictor import one_hot

Limits = Sequence[tuple[str, float]]
_LEAST = 5  # evaluations to learn from
_DRAWS = 4096
_RUNGS = 2  # optima for a budget in a generation; each takes about a tenth of a second


@dataclass(frozen=True)
class Additive:
    """An error that is a constant and, for each gene that means something, a number for its value.

    Attributes:
        space: The space.
        constant: Part of the error that all networks share.
        weights: A number for each value of each gene, one gene after the other, as `one_hot` has them.
    """

    space: SearchSpace
    constant: float
    weights: Float64[np.ndarray, " f"]

    @classmethod
    def fit(cls, space: SearchSpace, genes: Genes, errors: Float[np.ndarray, " a"], penalty: float) -> "Additive":
        """Fits a ridge regression.

        Args:
            space: The space.
            genes: Canonical genes of what was evaluated.
            errors: Their errors; finite.
            penalty: Penalty of the squared weights; a value that was never seen gets the weight 0.
        """
        features = one_hot(space, genes)
        means, mean = features.mean(axis=0), float(errors.mean())
        centred = features - means
        normal = centred.T @ centred + penalty * np.eye(centred.shape[1])
        weights = np.linalg.solve(normal, centred.T @ (errors - mean))
        return cls(space, mean - float(means @ weights), weights)

    def __call__(self, genes: Genes) -> Float64[np.ndarray, " a"]:
        """Predicted errors."""
        return self.constant + one_hot(self.space, genes) @ self.weights

    @cached_property
    def tables(self) -> CostTables:
        """The same as tables over genes."""
        space, factors, starts = self.space, [], np.cumsum(self.space.cardinalities) - self.space.cardinalities
        values = {choice.name: choice.values for choice in space.choices}
        for choice in space.choices:
            columns = space.columns[choice.name]
            for place in np.ndindex(columns.shape):
                column = int(columns[place])
                table = self.weights[starts[column] : starts[column] + len(choice.values)]
                if choice.gate is None:
                    factors.append(((column,), table))
                    continue
                gates = space.columns[choice.gate]
                on = np.array([int(depth) > place[-1] for depth in values[choice.gate]], float)  # type: ignore[arg-type]
                factors.append(((int(gates[place[:-1]]), column), on[:, None] * table))
        return CostTables(tuple(factors), constant=self.constant)


@dataclass(frozen=True)
class Allocation:
    """A network for limits.

    Attributes:
        genes: Its canonical genes.
        predicted: Its error by the surrogate.
        proven: Whether no network within the limits has a lower one for certain, but for rounding: HiGHS stops at a
            millionth of the largest number of the surrogate.
    """

    genes: Int[np.ndarray, " g"]
    predicted: float
    proven: bool


@dataclass(frozen=True)
class Allocator(Searcher):
    """Learns an additive surrogate of all evaluations and asks for its best networks.

    Each generation has, for each budget, the best network by the surrogate, that for a smaller limit, which differs
    each time, and the best of their neighbours. Where one of the two was evaluated already, its best neighbour stands
    for it: a program that leaves out what was evaluated takes several times as long. A metric whose costs are not known
    as tables over few genes proves nothing: then the best of random draws are asked for.

    Args:
        population: Number of candidates per generation.
        penalty: Weight of the squared coefficients of the surrogate in its fit (ridge regression).
    """

    population: int = 24
    penalty: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("population", self.population, 1)
        if not self.penalty > 0:
            raise UserError(f"search.penalty: {self.penalty!r} is not positive. Give a number above 0, such as 1.")
        if type(self.space).active is not SearchSpace.active:
            # Whether a gene means something follows from more than its gate, which is all that the surrogate knows.
            raise UserError(
                f"search.type: an additive surrogate of family {self.space.family} proves no optimum, as some of its "
                "genes mean nothing beside some others. Use evolution or nsga2."
            )

    @abstractmethod
    def allocate(self, surrogate: Additive, limits: Limits) -> Allocation | None:
        """Finds the best network of a surrogate within limits; None if none is found.

        Costs are tables (`search_spaces.cost.Tabulated`).
        """

    def ask(self, state: SearchState) -> Genes:
        rng = self.rng(state)
        unseen = Unseen(self.space, state.genes)
        usable = np.isfinite(state.errors)
        if usable.sum() < _LEAST:
            self.begin(state, rng, unseen)
        else:
            surrogate = Additive.fit(self.space, state.genes[usable], state.errors[usable], self.penalty)
            for budget, share in zip(self.budgets, self.shares(state, self.population), strict=True):
                self._add_best(state, rng, unseen, surrogate, budget, int(share))
        self.fill(state, rng, unseen, max(self.population, len(unseen)))
        return unseen.genes

    def begin(self, state: SearchState, rng: np.random.Generator, unseen: Unseen) -> None:
        """Adds candidates while there is nothing to learn from: both ends of the space, where a budget admits them."""
        extremes = self.space.extremes[::-1]
        unseen.add(
            extremes[meets_any(self.budgets, self.costs, extremes)], self.population if state.generation == 0 else 0
        )

    def _add_best(
        self,
        state: SearchState,
        rng: np.random.Generator,
        unseen: Unseen,
        surrogate: Additive,
        budget: ResolvedBudget,
        share: int,
    ) -> None:
        if not isinstance(self.cost or self.space.cost, Tabulated):
            drawn = Unseen(self.space, np.concatenate([state.genes, unseen.genes]))
            draw(self.space, rng, _DRAWS, budget, self.costs, drawn)
            unseen.add(drawn.genes[np.argsort(surrogate(drawn.genes), kind="stable")], share)
            return
        low = self.costs(np.array([budget.anchor or self.space.smallest.genes], np.int32))
        shift = (state.generation * 0.618) % 1  # evenly spread over generations
        rungs, before = min(share, _RUNGS), len(unseen)
        near: list[np.ndarray] = []
        for rung in range(rungs):
            part = 1.0 if rung == 0 else shift
            limits = tuple((metric, low[metric][0] + part * (most - low[metric][0])) for metric, most in budget.limits)
            found = self.allocate(surrogate, limits)
            if found is not None:
                near.append(self.space.neighbours(found.genes))
                others = self._ordered(near[-1], surrogate, replace(budget, limits=limits))
                unseen.add(np.concatenate([found.genes[None], others]), 1)
        if near:
            others = self._ordered(np.concatenate(near), surrogate, budget)
            unseen.add(others, max(share - (len(unseen) - before), 0))

    def _ordered(self, genes: Genes, surrogate: Additive, budget: ResolvedBudget) -> Int32[np.ndarray, "b g"]:
        """Those within a budget, the best by the surrogate first."""
        within = genes[budget.feasible(self.costs(genes))]
        return within[np.argsort(surrogate(within), kind="stable")]


def best_by(
    allocator: Allocator, genes: Genes, errors: Float[np.ndarray, " a"], budget: ResolvedBudget
) -> Allocation | None:
    """Answers a budget from what was evaluated: the best network by the surrogate, evaluated or not.

    Raises:
        ValueError: Nothing was evaluated successfully.
    """
    usable = np.isfinite(errors)
    if not usable.any():
        raise ValueError("errors: none is finite.")
    surrogate = Additive.fit(allocator.space, genes[usable], errors[usable], allocator.penalty)
    return allocator.allocate(surrogate, budget.limits)


def tables_of(cost: CostFunction, limits: Limits) -> list[CostTables]:
    """Returns the tables of the limited costs."""
    assert isinstance(cost, Tabulated)
    return [cost.tables(metric) for metric, _ in limits]
