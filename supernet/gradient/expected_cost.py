"""The expected cost of a random architecture whose genes are drawn independently: exact, and differentiable.

A cost is a sum of tables over few genes, so its expectation is the sum of these tables contracted with the
distributions of their genes. The tables of the space's own metrics are those of its cost model, gates included. Those
of any other metric that adds up over the same pieces (a latency by sublayer) are recovered from its values, because the
anchored decomposition of such a function has no part of more genes than a piece has.

References:
    Kuo, Sloan, Wasilkowski, Woźniakowski. On decompositions of multivariate functions. Math. Comp. 79(270), 2010.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from search_spaces import Genes, SearchSpace, UserError
from search_spaces.randomness import Purpose, stream

CostFunction = Callable[[Genes], Mapping[str, Shaped[np.ndarray, " a"]]]
"""Costs of architectures by metric, as the budgets of a search take them."""

_CHECKED, _TOLERANCE = 64, 1e-3
Columns = tuple[int, ...]


class ExpectedCost:
    """Expected costs as shares of limits.

    Args:
        space: The space.
        limits: Metric and the most it may be, in the metric's unit.
        cost: Costs of architectures; the space's own when None.

    Raises:
        UserError: A metric does not add up over the pieces that the space's cost model is made of.
    """

    def __init__(
        self, space: SearchSpace, limits: Sequence[tuple[str, float]], cost: CostFunction | None = None
    ) -> None:
        self.limits = tuple(limits)
        self._tables: list[tuple[Columns, jax.Array]] = []
        own = {metric: i for i, metric in enumerate(space.cost.metrics)}
        for position, (metric, most) in enumerate(self.limits):
            if metric in own:
                parts = [(term.columns, term.table[..., own[metric]]) for term in space.cost.terms]
            else:
                parts = _tabulate(space, metric, cost or space.cost)
            unit = np.eye(len(self.limits))[position] / most
            self._tables += [(columns, jnp.asarray(table[..., None] * unit, jnp.float32)) for columns, table in parts]

    def __call__(self, probabilities: Float[Array, "g v"]) -> Float[Array, " m"]:
        """Expected cost over its limit, for each limit.

        Args:
            probabilities: Distribution of each gene over its values.
        """
        total = jnp.zeros(len(self.limits))
        for columns, table in self._tables:
            # The last gene first: each contraction takes the axis before that of the metrics.
            for column in reversed(columns):
                table = jnp.einsum("...vm,v->...m", table, probabilities[column, : table.shape[-2]])
            total = total + table
        return total


def _tabulate(space: SearchSpace, metric: str, cost: CostFunction) -> list[tuple[Columns, np.ndarray]]:
    """Tables over the genes of the space's own terms whose sum is the metric."""
    anchor = np.array(space.deepest.genes, np.int32)  # all layers are there, so no gate hides a gene
    sizes = space.cardinalities

    def values(columns: Columns) -> np.ndarray:
        grid = list(itertools.product(*(range(sizes[column]) for column in columns)))
        rows = np.repeat(anchor[None], len(grid), axis=0)
        rows[:, list(columns)] = np.array(grid, np.int32).reshape(len(grid), len(columns))
        return np.asarray(cost(space.canonical(rows))[metric], np.float64).reshape([sizes[c] for c in columns])

    supports = sorted({tuple(sorted(term.columns)) for term in space.cost.terms})
    tables = {support: np.zeros([sizes[column] for column in support]) for support in supports}
    seen: dict[Columns, np.ndarray] = {}
    for support in supports:
        for face in _faces(support):
            if face in seen:
                continue
            below = [_spread(seen[other], other, face) for other in _faces(face) if other != face]
            seen[face] = values(face) - sum(below, np.zeros([sizes[column] for column in face]))
            tables[support] += _spread(seen[face], face, support)
    parts = list(tables.items())
    _check(space, metric, cost, parts)
    return parts


def _faces(columns: Columns) -> Iterator[Columns]:
    """All subsets, smaller ones first."""
    return itertools.chain.from_iterable(itertools.combinations(columns, n) for n in range(len(columns) + 1))


def _spread(table: np.ndarray, columns: Columns, over: Columns) -> np.ndarray:
    """The table of some columns, as one of more columns; both are sorted."""
    sizes = iter(table.shape)
    return table.reshape([next(sizes) if column in columns else 1 for column in over])


def _check(space: SearchSpace, metric: str, cost: CostFunction, parts: list[tuple[Columns, np.ndarray]]) -> None:
    genes = space.sample(stream(0, Purpose.COST_CHECK), _CHECKED)
    exact = np.asarray(cost(genes)[metric], np.float64)
    total = sum(table[tuple(genes[:, column] for column in columns)] for columns, table in parts)
    error = float(np.max(np.abs(total - exact) / np.abs(exact)))
    if not error <= _TOLERANCE:
        raise UserError(
            f"gradient.budget: {metric} does not add up over the pieces of a network (off by {100 * error:.2g} %), so "
            "its expectation is not known exactly. Name a budget on other metrics, or search with `supernest search`."
        )
