"""CostModel: exact costs of a whole matrix of genes by table look-up."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, SupportsInt, runtime_checkable

import numpy as np
from jaxtyping import Int, Num, Shaped

from search_spaces.bounds import check_costs, check_entries, check_rows

_FEW, _CHUNK = 256, 4096  # architectures at a time
_ROWS = 4096  # of a joint table: few look-ups, in tables that stay in the processor's cache


class Cost(NamedTuple):
    """Costs of a piece of a network for one example.

    Attributes:
        params: Number of trainable parameters.
        macs: Number of multiply-adds of matrix products and convolutions per example (language models: per token),
            including attention products, without biases, normalisation, activations and pooling.
        activation_bytes: Bytes of the outputs of these products in fp32 (the "activations" of Radosavovic et al. 2020,
            arXiv:2003.13678, times 4).
    """

    params: int = 0
    macs: int = 0
    activation_bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


Record = Any
"""A named tuple of whole numbers: `Cost`, or a family's own, whose fields are its metrics."""


@dataclass(frozen=True)
class Term:
    """A piece of the network whose cost depends on a few genes only.

    Attributes:
        columns: The genes it depends on.
        table: Its cost for each combination of their values: int64[n_1, ..., n_k, 3], in the order of `Cost` (or of
            the metrics of another model).
    """

    columns: tuple[int, ...]
    table: Int[np.ndarray, "*n m"]

    @staticmethod
    def tabulate(
        columns: Iterable[SupportsInt], values: Sequence[Sequence], cost: Callable[..., Sequence[int]]
    ) -> "Term":
        """Fills the table by calling `cost(*values)`, a `Cost` or a family's own record, for every combination.

        Raises:
            UserError: There are too many combinations, or a cost is beyond what can be counted exactly.
        """
        check_entries([len(v) for v in values])
        rows = [cost(*combination) for combination in itertools.product(*values)]
        names = getattr(rows[0], "_fields", tuple(f"cost {i}" for i in range(len(rows[0]))))
        check_costs(names, [max(abs(row[i]) for row in rows) for i in range(len(names))])
        shape = (*(len(v) for v in values), len(rows[0]))
        return Term(tuple(int(c) for c in columns), np.array(rows, np.int64).reshape(shape))


Factor = tuple[tuple[int, ...], Shaped[np.ndarray, "..."]]
"""Genes, and a number for each combination of their values: float64[n_1, ..., n_k]."""


@dataclass(frozen=True)
class CostTables:
    """One cost as tables: `(constant + sums + peaks) / per`, for whoever reasons about all architectures at once.

    Attributes:
        sums: Tables that are added up.
        peaks: Groups of tables; of each group the dearest counts.
        constant: Added for every architecture.
        per: Unit of the cost in units of the tables, such as nanoseconds a millisecond.
    """

    sums: tuple[Factor, ...] = ()
    peaks: tuple[tuple[Factor, ...], ...] = ()
    constant: float = 0
    per: float = 1


@runtime_checkable
class Tabulated(Protocol):
    """A cost function whose costs are known as tables, so that its extremes are exact."""

    def tables(self, metric: str) -> CostTables:
        """Returns the tables of a metric."""
        ...


class _Rows(NamedTuple):
    """A term's table as rows: the step that a gene's value takes in them, and the costs int64[m, n] of each."""

    strides: dict[int, int]
    table: Int[np.ndarray, "m n"]

    @staticmethod
    def of(term: Term) -> "_Rows":
        sizes = term.table.shape[:-1]
        strides = dict.fromkeys(term.columns, 0)
        for k, column in enumerate(term.columns):
            strides[column] += math.prod(sizes[k + 1 :])
        return _Rows(strides, np.ascontiguousarray(term.table.reshape(-1, term.table.shape[-1]).T))

    def read(self, columns: Int[np.ndarray, "g a"]) -> Int[np.ndarray, "m a"]:
        """Returns the costs of architectures, from their genes."""
        rows = np.zeros(columns.shape[1], np.intp)
        for column, stride in self.strides.items():
            rows += columns[column] * stride
        return self.table.take(rows, axis=1)


class CostModel:
    """The sum of terms, each read from its table: exact, and vectorised over architectures.

    Args:
        num_genes: Length of a gene vector.
        terms: The pieces of the network.
        metrics: Metrics on the last axis of the tables.
        combine: `np.add`; or `np.maximum`, where the dearest term counts and not the sum.

    Raises:
        UserError: Costs may add up to more than can be counted exactly.

    Attributes:
        terms: As given.
    """

    metrics: tuple[str, ...] = Cost._fields

    def __init__(
        self,
        num_genes: int,
        terms: Sequence[Term],
        metrics: tuple[str, ...] = Cost._fields,
        combine: np.ufunc = np.add,
    ) -> None:
        self.terms, self.metrics, self._combine = tuple(terms), metrics, combine
        dearest = [np.abs(term.table.reshape(-1, len(metrics))).max(axis=0, initial=0).tolist() for term in self.terms]
        total = sum if combine is np.add else max
        check_costs(metrics, [total(of) for of in zip(*dearest, strict=True)])  # in whole numbers without bounds
        terms = _joined(terms, combine)
        check_rows(sum(int(np.prod(term.table.shape[:-1], dtype=np.int64)) for term in terms))
        self._joined = [_Rows.of(term) for term in terms]
        # Of few architectures one matrix product turns genes into the row that each term reads: products of small
        # integers are exact in float32 (tables have far fewer than 2**24 rows).
        self._strides = np.zeros((num_genes, len(terms)), np.float32)
        for t, rows in enumerate(self._joined):
            self._strides[list(rows.strides), t] = list(rows.strides.values())
        ends = np.cumsum([rows.table.shape[1] for rows in self._joined])
        self._offsets = np.concatenate([[0], ends[:-1]]).astype(np.float32)
        self._rows = np.concatenate([rows.table for rows in self._joined], axis=1).T.copy()

    def __call__(self, genes: Int[np.ndarray, "a g"]) -> dict[str, Int[np.ndarray, " a"]]:
        """Costs of architectures (canonical or not); metric name to one int64 an architecture."""
        genes = np.asarray(genes)
        if len(genes) <= _FEW:
            rows = (product(genes.astype(np.float32), self._strides) + self._offsets).astype(np.intp)
            return dict(zip(self.metrics, self._combine.reduce(self._rows.take(rows, axis=0), axis=1).T, strict=True))
        totals = np.empty((len(self.metrics), len(genes)), np.int64)
        for start in range(0, len(genes), _CHUNK):
            part = slice(start, start + _CHUNK)
            columns = np.ascontiguousarray(genes[part].T, np.intp)
            first, *others = self._joined
            total = first.read(columns)
            for term in others:
                self._combine(total, term.read(columns), out=total)
            totals[:, part] = total
        return dict(zip(self.metrics, totals, strict=True))

    def tables(self, metric: str) -> CostTables:
        """See `Tabulated`."""
        index = self.metrics.index(metric)
        factors = tuple((term.columns, term.table[..., index].astype(np.float64)) for term in self.terms)
        return CostTables(sums=factors) if self._combine is np.add else CostTables(peaks=(factors,))


def product(a: Num[np.ndarray, "... k"], b: Num[np.ndarray, "k ..."]) -> Num[np.ndarray, "..."]:
    """Computes `a @ b` of finite numbers without NumPy's warning of invalid values.

    On some processors OpenBLAS's kernels for small matrices (0.3.31 here, see numpy/numpy#24067) compute lanes beyond
    the operands whose results they drop: the product is right, but the flag of an invalid operation stays set.
    """
    with np.errstate(invalid="ignore"):
        return a @ b


def _joined(terms: Sequence[Term], combine: np.ufunc) -> list[Term]:
    """The same result in fewer terms: neighbours become one joint table for as long as it has at most `_ROWS` rows."""
    joined: list[Term] = []
    for term in terms:
        if joined:
            both = _combined(joined[-1], term, combine)
            if both is not None:
                joined[-1] = both
                continue
        joined.append(term)
    return joined


def _combined(a: Term, b: Term, combine: np.ufunc) -> Term | None:
    sizes = dict(zip((*a.columns, *b.columns), (*a.table.shape[:-1], *b.table.shape[:-1]), strict=True))
    columns = tuple(sorted(sizes))
    if np.prod([sizes[c] for c in columns], dtype=np.int64) > _ROWS:
        return None

    def spread(term: Term) -> np.ndarray:
        order = np.argsort(term.columns)
        table = term.table.transpose(*order, len(order))
        return table.reshape(*(sizes[c] if c in term.columns else 1 for c in columns), table.shape[-1])

    return Term(columns, combine(spread(a), spread(b)))
