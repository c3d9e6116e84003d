"""MIP: the best network of an additive surrogate within exact limits, as a mixed integer program.

References:
    Shen, Yin, Molchanov, Mao, Liu, Alvarez. Structural Pruning via Latency-Saliency Knapsack. NeurIPS 2022,
    arXiv:2210.06659 (allocation as a knapsack with exact costs).
    Bercovich et al. Puzzle: Distillation-Based NAS for Inference-Optimized LLMs. ICML 2025, arXiv:2411.19146 (a mixed
    integer program over the choices of layers, whose scores are added up).
    Differs: scores are learned from whole networks by ridge regression, first from a D-optimal design of them
    (`search.design`), and again after each generation; limits hold for costs of pairs of choices and for maxima, too;
    solved by HiGHS.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.additive import Additive, Allocation, Allocator, Limits, tables_of
from search.design import d_optimal
from search.sampling import Unseen, draw, meets_any
from search.searcher import SEARCHERS, SearchState, at_least
from search_spaces.cost import CostTables, Factor
from search_spaces.predictor import one_hot

_TRIES = 4  # optima that are over a limit by rounding before a limit is given up
_POOL = 512  # random candidates that a design chooses from
_SPARE, _LARGEST_DESIGN = 2, 64
_NODES = 10_000  # of the tree of subproblems; a limit of time would make resumed searches differ


@SEARCHERS.register("mip")
@dataclass(frozen=True)
class MIP(Allocator):
    """Asks HiGHS for the best networks of an additive surrogate; costs are exact constraints.

    The first generation is a D-optimal design: of random networks that meet a budget, and both ends of the space, those
    that tell most about the surrogate's numbers, whichever budget they meet.

    Args:
        population: Number of candidates of a later generation.
        penalty: Weight of the squared coefficients of the surrogate in its fit (ridge regression).
        first: Number of candidates of the design; random ones complete them to `population`. Null: the surrogate's
            number of free coefficients plus two, but at most 64.
    """

    designs_first = True

    population: int = 12
    first: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first is not None:
            at_least("first", self.first, 1)

    def begin(self, state: SearchState, rng: np.random.Generator, unseen: Unseen) -> None:
        if state.generation:
            return
        space = self.space
        free = 1 + int((space.cardinalities - 1).sum())
        wanted = self.first or min(free + _SPARE, _LARGEST_DESIGN)
        extremes, drawn = space.extremes[::-1], Unseen(space, state.genes)
        drawn.add(extremes[meets_any(self.budgets, self.costs, extremes)], len(extremes))
        for budget, share in zip(self.budgets, self.shares(state, _POOL), strict=True):
            draw(space, rng, int(share), budget, self.costs, drawn)
        unseen.add(drawn.genes[d_optimal(one_hot(space, drawn.genes), wanted, self.penalty)], wanted)

    def allocate(self, surrogate: Additive, limits: Limits) -> Allocation | None:
        program = _Program(self, surrogate, limits)
        for _ in range(_TRIES):
            found = program.solve()
            if found is None:
                return None
            genes, proven = found
            costs = self.costs(genes[None])
            if all(costs[metric][0] <= most for metric, most in limits):
                return Allocation(genes, float(surrogate(genes[None])[0]), proven)
            program.exclude(genes)
        return None


class _Program:
    """A mixed integer program over networks.

    Variables: one for each value of each gene, 0 or 1; one for each entry of a table over several genes, which follows
    from them; one for each maximum.
    """

    def __init__(self, searcher: MIP, surrogate: Additive, limits: Limits) -> None:
        self._space = space = searcher.space
        self._sizes = [int(size) for size in space.cardinalities]
        self._starts = np.cumsum([0, *self._sizes])
        self._columns = int(self._starts[-1])
        self._entries: dict[tuple[int, ...], int] = {}
        self._rows: list[tuple[dict[int, float], float, float]] = []
        for start, size in zip(self._starts, self._sizes, strict=False):
            self._rows.append(({int(start) + value: 1.0 for value in range(size)}, 1.0, 1.0))
        self._switch_off()
        of = surrogate.tables
        self._objective = self._sum(of.sums)
        spread = float(np.abs(list(self._objective.values())).max(initial=0.0)) or 1.0
        self._objective = {column: value / spread for column, value in self._objective.items()}
        for table, (_, most) in zip(tables_of(searcher.cost or space.cost, limits), limits, strict=True):
            self._limit(table, most)

    def solve(self) -> tuple[np.ndarray, bool] | None:
        """Genes of a best network, and whether that is proven; None where nothing is within the limits."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        objective = np.zeros(self._columns)
        for column, value in self._objective.items():
            objective[column] = value
        cells = [(i, column, value) for i, (row, _, _) in enumerate(self._rows) for column, value in row.items()]
        at, columns, values = zip(*cells, strict=True)
        matrix = csr_array((values, (at, columns)), shape=(len(self._rows), self._columns))
        sides = [np.array([row[side] for row in self._rows]) for side in (1, 2)]
        limits = np.where(self._free, -np.inf, 0.0), np.where(self._free, np.inf, 1.0)
        binary = np.arange(self._columns) < self._starts[-1]
        result = milp(
            objective,
            integrality=binary.astype(int),
            bounds=Bounds(*limits),  # type: ignore[arg-type]
            constraints=LinearConstraint(matrix, *sides),  # type: ignore[arg-type]
            options={"mip_rel_gap": 0.0, "node_limit": _NODES},
        )
        if result.x is None:
            return None
        chosen = [
            result.x[start : start + size].argmax() for start, size in zip(self._starts, self._sizes, strict=False)
        ]
        return self._space.canonical(np.array([chosen], np.int32))[0], result.status == 0

    def exclude(self, genes: np.ndarray) -> None:
        """Leaves one network out from now on."""
        row = {int(start) + int(gene): 1.0 for start, gene in zip(self._starts, genes, strict=False)}
        self._rows.append((row, -np.inf, len(row) - 1.0))

    @property
    def _free(self) -> np.ndarray:
        free = np.zeros(self._columns, bool)
        free[self._maxima] = True
        return free

    def _switch_off(self) -> None:
        """A gene that means nothing has its first value, so that a network is one point."""
        self._maxima: list[int] = []
        space = self._space
        for choice in space.choices:
            if choice.gate is None:
                continue
            depths = next(gate.values for gate in space.choices if gate.name == choice.gate)
            columns, gates = space.columns[choice.name], space.columns[choice.gate]
            for place in np.ndindex(columns.shape):
                gate, own = self._starts[int(gates[place[:-1]])], self._starts[int(columns[place])]
                row = {int(gate) + i: -1.0 for i, depth in enumerate(depths) if int(depth) <= place[-1]}  # type: ignore[arg-type]
                self._rows.append(({**row, int(own): 1.0}, 0.0, np.inf))

    def _limit(self, table: CostTables, most: float) -> None:
        room = most * table.per - table.constant
        scale = max(abs(room), 1.0)
        row = self._sum(table.sums)
        for factors in table.peaks:
            dearest = self._column()
            self._maxima.append(dearest)
            for factor in factors:
                below = self._sum([factor])
                below[dearest] = -1.0 * scale
                self._rows.append(({column: value / scale for column, value in below.items()}, -np.inf, 0.0))
            row[dearest] = row.get(dearest, 0.0) + scale
        if row:
            self._rows.append(({column: value / scale for column, value in row.items()}, -np.inf, room / scale + 1e-9))
        elif room < 0:
            self._rows.append(({0: 0.0}, 1.0, 1.0))

    def _sum(self, factors: Sequence[Factor]) -> dict[int, float]:
        """Coefficients of a sum of tables."""
        row: dict[int, float] = {}
        for columns, table in factors:
            first = self._entry(columns)
            for i, value in enumerate(np.asarray(table, float).reshape(-1)):
                if value:
                    row[first + i] = row.get(first + i, 0.0) + float(value)
        return row

    def _entry(self, columns: tuple[int, ...]) -> int:
        """The first of the variables of a table's entries.

        For several genes they are 1 where all of these have their value, which their sums over the other genes say.
        """
        if len(columns) == 1:
            return int(self._starts[columns[0]])
        if columns in self._entries:
            return self._entries[columns]
        sizes = [self._sizes[column] for column in columns]
        numbers = self._columns + np.arange(int(np.prod(sizes))).reshape(sizes)
        self._entries[columns] = self._columns
        self._columns += numbers.size
        if not columns:
            self._rows.append(({int(numbers.reshape(-1)[0]): 1.0}, 1.0, 1.0))
        for axis, column in enumerate(columns):
            for value in range(sizes[axis]):
                row = dict.fromkeys(numbers.take(value, axis).reshape(-1).tolist(), 1.0)
                row[int(self._starts[column]) + value] = -1.0
                self._rows.append((row, 0.0, 0.0))
        return self._entries[columns]

    def _column(self) -> int:
        self._columns += 1
        return self._columns - 1
