"""Extremes: the true least and greatest cost of a space, and the network nearest to limits, whatever costs depend on.

A measured cost need not grow with a gene, so the ends of a space need not be its cheapest and its dearest network. For
costs that are tables over few genes (`search_spaces.cost.Tabulated`) variable elimination gives the extreme exactly.
For several limits at once, or a maximum beside a sum, labels are carried along, of which only those survive that no
other one is better than. Any other cost function is listed where the space is small, and searched
otherwise: `exact` says so.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int32, Shaped

from search_spaces.cost import CostTables, Tabulated
from search_spaces.elimination import Completions
from search_spaces.randomness import Purpose, stream
from search_spaces.space import Genes, SearchSpace

CostOf = Callable[[Genes], Mapping[str, Shaped[np.ndarray, " a"]]]
Limits = Sequence[tuple[str, float]]

_BEAM, _LABELS = 64, 20_000
_LISTED = 1 << 16  # gene vectors of a space that is listed
_STARTS = 16
_BLOCK = 64
_BLOCKS = 20_000  # that `members` extends before it gives up


@dataclass(frozen=True)
class Extreme:
    """A network at the end of a cost.

    Attributes:
        genes: Its canonical genes.
        value: Its cost; for limits the worst share of a limit that it uses.
        exact: Whether no network is beyond it for certain; otherwise it is the best of a bounded search.
    """

    genes: Int32[np.ndarray, " g"]
    value: float
    exact: bool


def lowest(space: SearchSpace, cost: CostOf, metric: str) -> Extreme:
    """Returns the cheapest network of a space."""
    return _extreme(space, cost, ((metric, 1.0),))


def highest(space: SearchSpace, cost: CostOf, metric: str) -> Extreme:
    """Returns the dearest network of a space."""

    def negative(genes: Genes) -> np.ndarray:
        return -np.asarray(cost(genes)[metric], float)

    tables = _tables(cost, (metric,))
    if tables is None:
        found = _searched(space, negative)
        return replace(found, value=-found.value)
    (of,) = tables
    found = []
    # The greatest sum plus maximum is the greatest over the members of the maximum.
    for chosen in itertools.product(*of.peaks):
        sums = tuple((columns, np.asarray(-values)) for columns, values in (*of.sums, *chosen))
        genes, exact = _solved(space, [CostTables(sums)], lambda values: values[:, 0])
        found.append(_as_extreme(space, genes, negative, exact))
    best = min(found, key=lambda extreme: extreme.value)
    return replace(best, value=-best.value, exact=all(extreme.exact for extreme in found))


def nearest(space: SearchSpace, cost: CostOf, limits: Limits) -> Extreme:
    """Returns the network whose largest share of a limit is least; it is at most 1 if all limits are met."""
    return _extreme(space, cost, limits)


def least_within(
    space: SearchSpace, objective: CostTables, costs: Sequence[CostTables], most: Sequence[float]
) -> tuple[Int32[np.ndarray, " g"] | None, bool]:
    """Returns the network of least objective among those within limits.

    Args:
        space: The space.
        objective: Objective to minimise; may be negative.
        costs: Costs that are limited.
        most: The most that each of these may be.

    Returns:
        Its canonical genes, or None where none is found; and whether that is certain.
    """

    def score(values: np.ndarray) -> np.ndarray:
        return np.where((values[:, 1:] <= most).all(axis=1), values[:, 0], np.inf)

    genes, exact = _solved(space, [objective, *costs], score)
    return (None if genes is None else space.canonical(genes[None])[0]), exact


def members(space: SearchSpace, cost: CostOf, limits: Limits, rng: np.random.Generator) -> Iterator[Genes]:
    """Yields canonical networks that meet limits, in a random order of values, some more than once.

    All of them, where costs are tables and one of their sums is limited, or where the space is small enough to be
    listed; otherwise those that a bounded search comes across.
    """
    metrics, most = [metric for metric, _ in limits], np.array([amount for _, amount in limits])
    tables = _tables(cost, metrics)
    completions = None if tables is None else _completions(space, tables)
    if tables is None or completions is None:
        if math.prod(space.cardinalities.tolist()) <= _LISTED:
            genes = rng.permutation(_every(space))
            costs = cost(genes)
            yield genes[np.logical_and.reduce([np.asarray(costs[metric]) <= limit for metric, limit in limits])]
        return
    start = np.array([space.deepest.genes], np.int32)  # genes that are not fixed count as active
    stack = [(0, start, completions.root[None])]
    for _ in range(_BLOCKS):
        if not stack:
            return
        place, genes, bounds = stack.pop()
        if place == len(completions.columns):
            yield space.canonical(genes)
            continue
        genes, bounds = _extended(space, completions, place, genes, bounds)
        within = np.flatnonzero((_values(tables, completions.owners, bounds) <= most).all(axis=1))
        within = rng.permutation(within)
        for first in range(0, len(within), _BLOCK):
            rows = within[first : first + _BLOCK]
            stack.append((place + 1, genes[rows], bounds[rows]))


def _extreme(space: SearchSpace, cost: CostOf, limits: Limits) -> Extreme:
    def share(genes: Genes) -> np.ndarray:
        costs = cost(genes)
        return np.maximum.reduce([np.asarray(costs[metric], float) / most for metric, most in limits])

    tables = _tables(cost, [metric for metric, _ in limits])
    if tables is None:
        return _searched(space, share)
    most = np.array([most for _, most in limits])
    genes, exact = _solved(space, tables, lambda values: (values / most).max(axis=1))
    return _searched(space, share) if genes is None else _as_extreme(space, genes, share, exact)


def _as_extreme(space: SearchSpace, genes: Any, value: Callable[[Genes], np.ndarray], exact: bool) -> Extreme:
    if genes is None:
        return _searched(space, value)
    genes = space.canonical(genes[None])
    return Extreme(genes[0], float(value(genes)[0]), exact)


def _tables(cost: CostOf, metrics: Sequence[str]) -> list[CostTables] | None:
    return [cost.tables(metric) for metric in metrics] if isinstance(cost, Tabulated) else None


def _completions(space: SearchSpace, tables: Sequence[CostTables]) -> Completions | None:
    try:
        return Completions(space.cardinalities.tolist(), tables)
    except ValueError:
        return None


def _values(tables: Sequence[CostTables], owners: Sequence[int], bounds: Float[np.ndarray, "a c"]) -> np.ndarray:
    """The costs whose components have these bounds: float[a, m]."""
    values = np.tile([float(cost.constant) for cost in tables], (len(bounds), 1))
    for component, owner in enumerate(owners):
        values[:, owner] += bounds[:, component]
    return values / [cost.per for cost in tables]


Score = Callable[[Float[np.ndarray, "a m"]], Float[np.ndarray, " a"]]


def _solved(
    space: SearchSpace, tables: Sequence[CostTables], score: Score
) -> tuple[Int32[np.ndarray, " g"] | None, bool]:
    """Genes of least score, a function that grows with every cost; None where the tables are too entangled."""
    completions = _completions(space, tables)
    if completions is None:
        return None, False

    def scored(bounds: np.ndarray) -> np.ndarray:
        return score(_values(tables, completions.owners, bounds))

    genes, least, whole = _carried(space, completions, scored, _BEAM, math.inf)
    if not whole and least > scored(completions.root[None])[0]:
        better, _, whole = _carried(space, completions, scored, _LABELS, least)
        return (genes if better is None else better), whole
    return genes, True


def _carried(
    space: SearchSpace, completions: Completions, scored: Score, labels: int, below: float
) -> tuple[Int32[np.ndarray, " g"] | None, float, bool]:
    """Returns the best genes below a score, their score, and whether they are known to be the best.

    They are where none of the partial gene vectors was dropped that could have become better; at most `labels` of them
    are carried along.
    """
    genes, bounds, whole = np.array([space.deepest.genes], np.int32), completions.root[None], True
    for place in range(len(completions.columns)):
        genes, bounds = _extended(space, completions, place, genes, bounds)
        scores = scored(bounds)
        kept = np.flatnonzero(scores < below)
        kept = kept[np.lexsort((bounds[kept].sum(axis=1), scores[kept]))]
        kept = kept[_undominated(genes[kept][:, completions.contexts[place]], bounds[kept])]
        whole &= len(kept) <= labels
        kept = kept[:labels]
        if not len(kept):
            return None, below, whole
        genes, bounds = genes[kept], bounds[kept]
    return genes[0], float(scored(bounds[:1])[0]), whole


def _extended(
    space: SearchSpace, completions: Completions, place: int, genes: Genes, bounds: np.ndarray
) -> tuple[Int32[np.ndarray, "b g"], Float[np.ndarray, "b c"]]:
    """Every value of the next gene; only the first where a fixed gate leaves it without meaning."""
    column = completions.columns[place]
    count = int(space.cardinalities[column])
    wanted = (np.arange(count) == 0) | space.active(genes)[:, column, None]
    further = completions.extend(place, genes, bounds)[wanted]
    rows, values = np.nonzero(wanted)
    genes = genes[rows].copy()
    genes[:, column] = values
    return genes, further


def _undominated(contexts: Int32[np.ndarray, "a k"], bounds: Float[np.ndarray, "a c"]) -> Bool[np.ndarray, " a"]:
    """Which labels no earlier one of the same context is as good as; with more than two components, equal to."""
    rows, components = bounds.shape
    group = (
        np.unique(contexts, axis=0, return_inverse=True)[1].reshape(-1) if contexts.shape[1] else np.zeros(rows, int)
    )
    if components > 2:
        keys = np.column_stack([group, bounds])
        first = np.unique(keys, axis=0, return_index=True)[1]
    else:
        order = np.lexsort((np.arange(rows), *bounds.T[::-1], group))
        groups, last = group[order], bounds[order, -1]
        starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
        best_before = np.full(rows, np.inf)
        for begin, end in itertools.pairwise([*starts, rows]):
            best_before[begin + 1 : end] = np.minimum.accumulate(last[begin : end - 1])
        first = order[last < best_before]
    kept = np.zeros(rows, bool)
    kept[first] = True
    return kept


# ------------------------------------------------------------------ any cost function


def _every(space: SearchSpace) -> Genes:
    sides = tuple(space.cardinalities.tolist())
    rows = np.stack(np.unravel_index(np.arange(math.prod(sides)), sides), axis=1).astype(np.int32)
    return np.unique(space.canonical(rows), axis=0)


def _searched(space: SearchSpace, value: Callable[[Genes], np.ndarray]) -> Extreme:
    """Lists a small space; descends by single changes from both ends and from random networks of a large one."""
    if math.prod(space.cardinalities.tolist()) <= _LISTED:
        genes = _every(space)
        values = value(genes)
        return Extreme(genes[int(values.argmin())], float(values.min()), True)
    ends = np.array([np.zeros(space.num_genes), space.deepest.genes], np.int32)
    starts = np.concatenate([ends, space.sample(stream(0, Purpose.EXTREME_STARTS), _STARTS)])
    return min((_descended(space, value, start) for start in starts), key=lambda extreme: extreme.value)


def _descended(space: SearchSpace, value: Callable[[Genes], np.ndarray], genes: np.ndarray) -> Extreme:
    best = float(value(genes[None])[0])
    while len(near := space.neighbours(genes)):
        values = value(near)
        if not values.min() < best:
            break
        genes, best = near[int(values.argmin())], float(values.min())
    return Extreme(genes, best, False)
