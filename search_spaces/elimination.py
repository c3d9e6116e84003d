"""Variable elimination: the least that any completion of a gene vector costs, where costs are tables over few genes.

References:
    Dechter. Bucket elimination: A unifying framework for reasoning. Artificial Intelligence 113 (1999).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32, Shaped

from search_spaces.cost import CostTables, Factor

_LARGEST = 1 << 21
"""Most entries of a table. Families need few: only choices that many terms share meet in one table."""


class Bucket(NamedTuple):
    """One gene, with the tables that it is in joined to one.

    Attributes:
        column: The gene.
        others: The genes that the joint table depends on besides.
        table: Least cost of everything up to here for each value of `others`, then of `column`.
        least: `table`, with the best value of `column`.
    """

    column: int
    others: tuple[int, ...]
    table: Shaped[np.ndarray, "..."]
    least: Shaped[np.ndarray, "..."]


class Completions:
    """Least costs of gene vectors of which only some genes are fixed.

    Genes are fixed one after another in the order of `columns`. A cost has one or several components (its sum of
    tables, and each maximum of tables); the bound of each is exact on its own.

    Args:
        cardinalities: Number of values of each gene.
        costs: Costs that are bounded together.

    Attributes:
        columns: Every gene once, in the order in which genes are fixed.
        contexts: For each of `columns`, the fixed genes that costs of genes fixed later depend on.
        root: Bounds of the components where nothing is fixed, float[c].

    Raises:
        ValueError: The tables are too entangled for an exact answer.
    """

    def __init__(self, cardinalities: Sequence[int], costs: Sequence[CostTables]) -> None:
        self._sizes = [int(size) for size in cardinalities]
        components = [(factors, np.add) for cost in costs for factors in [cost.sums]]
        components += [(factors, np.maximum) for cost in costs for factors in cost.peaks]
        # Sums come first, then the maxima, each in the order of the costs.
        self.owners = [i for i, _ in enumerate(costs)] + [i for i, cost in enumerate(costs) for _ in cost.peaks]
        order = _order(self._sizes, [columns for factors, _ in components for columns, _ in factors])
        found = [_eliminate(self._sizes, order, factors, combine) for factors, combine in components]
        self._buckets = [buckets[::-1] for buckets, _ in found]
        self._added = [combine is np.add for _, combine in components]
        self.columns = order[::-1]
        self.root: Float[np.ndarray, " c"] = np.array([root for _, root in found])
        self.contexts: list[list[int]] = []
        for place in range(len(order)):
            later = {k for buckets in self._buckets for bucket in buckets[place + 1 :] for k in bucket.others}
            self.contexts.append(sorted(later & set(self.columns[: place + 1])))

    def extend(
        self, place: int, genes: Int32[np.ndarray, "a g"], bounds: Float[np.ndarray, "a c"]
    ) -> Float[np.ndarray, "a v c"]:
        """Bounds for each value of the next gene.

        Args:
            place: Index in `columns` of the column to fix next.
            genes: Gene vectors with the genes before it fixed.
            bounds: Their bounds.
        """
        extended = []
        for number, (buckets, added) in enumerate(zip(self._buckets, self._added, strict=True)):
            bucket, bound = buckets[place], bounds[:, number, None]
            at = tuple(genes[:, k] for k in bucket.others)
            rows = np.broadcast_to(bucket.table[at], (len(genes), self._sizes[bucket.column]))
            # Taking the least away leaves what is fixed; whole numbers in float64 are exact.
            extended.append(bound - bucket.least[at][..., None] + rows if added else np.maximum(bound, rows))
        return np.stack(extended, axis=-1)


def _order(sizes: Sequence[int], scopes: Sequence[tuple[int, ...]]) -> list[int]:
    """The genes in the order of elimination: each time the one that makes the smallest table."""
    near: list[set[int]] = [set() for _ in sizes]
    for scope in scopes:
        for column in scope:
            near[column] |= set(scope) - {column}

    def entries(column: int) -> int:
        return sizes[column] * math.prod(sizes[k] for k in near[column])

    left, order = {column: entries(column) for column in range(len(sizes))}, []
    while left:
        column = min(left, key=left.__getitem__)
        if left.pop(column) > _LARGEST:
            raise ValueError(f"a table of {entries(column)} entries")
        order.append(column)
        for k in near[column]:
            near[k] = (near[k] | near[column]) - {k, column}
            left[k] = entries(k)
    return order


def _eliminate(
    sizes: Sequence[int], order: Sequence[int], factors: Sequence[Factor], combine: np.ufunc
) -> tuple[list[Bucket], float]:
    """The bucket of each gene in order, and the least cost of all."""
    nothing = 0.0 if combine is np.add else -np.inf
    left, buckets, root = list(factors), [], nothing
    for column in order:
        mine = [factor for factor in left if column in factor[0]]
        left = [factor for factor in left if column not in factor[0]]
        others = tuple(sorted({k for columns, _ in mine for k in columns} - {column}))
        axes = (*others, column)
        table = np.full([sizes[k] for k in axes], nothing)
        for columns, values in mine:
            table = combine(table, _spread(columns, values, axes))
        bucket = Bucket(column, others, table, table.min(axis=-1))
        buckets.append(bucket)
        if others:
            left.append((others, bucket.least))
        else:
            root = float(combine(root, bucket.least))
    for _, values in left:  # tables of no gene
        root = float(combine(root, values))
    return buckets, root


def _spread(columns: tuple[int, ...], values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """A table with its axes in the order of `axes`, and an axis of one entry for each gene that it does not have."""
    ordered = [axis for axis in axes if axis in columns]
    table = values.transpose([columns.index(axis) for axis in ordered])
    return table.reshape([values.shape[columns.index(axis)] if axis in columns else 1 for axis in axes])
