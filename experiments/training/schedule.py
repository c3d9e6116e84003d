"""Who trains what: the paths of a step, cut into shares of equal rows, and dealt out to the workers.

The shares of a step are the same whoever asks, so every worker knows what the others do without being told.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm
from typing import Literal

import numpy as np
from jaxtyping import Float

from search_spaces import UserError
from supernet.training.work import Share

PathBatch = Literal["whole", "share"]
Parallel = Literal["paths", "data"]


@dataclass(frozen=True)
class Schedule:
    """Division of the steps of a training between workers.

    Attributes:
        workers: Number n of workers.
        rows: Number of rows of the global batch.
        parallel: `paths`: every path is cut into n / gcd(paths, n) equal shares, the fewest that n workers can have
            equally many of. `data`: every path is cut into n shares, one for each worker.
        path_batch: `whole`: every path sees the whole batch. `share`: path i of k sees the i-th of k equal parts.
        divisible: Whether a path may be cut. One that normalises with its batch may not: its result would depend on
            the number of workers.
    """

    workers: int = 1
    rows: int = 64
    parallel: Parallel = "paths"
    path_batch: PathBatch = "whole"
    divisible: bool = True

    def cuts(self, paths: int) -> int:
        """Shares that each of so many paths is cut into; 1 where the rows do not divide."""
        wanted = self._wanted(paths)
        return 1 if self.rows % self.unit(paths) else wanted

    def shares(self, paths: int) -> list[Share]:
        """Returns all shares of a step, by path and then by row."""
        parts, cuts = self._parts(paths), self.cuts(paths)
        found = []
        for path in range(paths):
            first, end = (self.rows * (path % parts + i) // parts for i in (0, 1))
            size = (end - first) // cuts
            found += [Share(path, slice(first + i * size, first + (i + 1) * size), 1 / cuts) for i in range(cuts)]
        return found

    def dealt(self, costs: Float[np.ndarray, " k"]) -> list[list[Share]]:
        """Returns the shares of each worker, by path.

        Args:
            costs: Costs of each path, on the rows that it sees.
        """
        shares, cuts = self.shares(len(costs)), self.cuts(len(costs))
        if self.parallel == "data" and cuts == self.workers:
            return [shares[worker :: self.workers] for worker in range(self.workers)]
        units = np.repeat(np.asarray(costs, np.float64) / cuts, cuts)
        return [[shares[i] for i in mine] for mine in deal(units, self.workers)]

    def unit(self, paths: int) -> int:
        """Returns the number that must divide the rows so that a step of this many paths divides evenly."""
        return self._parts(paths) * self._wanted(paths)

    def check(self, paths: int, unit: int = 1) -> None:
        """Refuses what cannot be divided evenly.

        Args:
            paths: Number of paths of a step.
            unit: Further number of which the proposed rows must be a multiple.

        Raises:
            UserError: A batch that does not divide, or batch normalisation that would have to.
        """
        if self.parallel == "data" and not self.divisible and self.workers > 1:
            raise UserError(
                "ray.parallel: 'data' cuts batches, which this family normalises as a whole, so results would depend "
                "on the number of workers. Set ray.parallel to paths."
            )
        if self.rows % self.unit(paths):
            unit = lcm(unit, self.unit(paths))
            nearest = max(round(self.rows / unit), 1) * unit
            raise UserError(
                f"train.batch_size: {self.rows} rows do not divide into {self.unit(paths)} equal shares for {paths} "
                f"paths on {self.workers} worker{'s' if self.workers > 1 else ''}. Set {nearest}."
            )

    def _parts(self, paths: int) -> int:
        return paths if self.path_batch == "share" else 1

    def _wanted(self, paths: int) -> int:
        if not self.divisible:
            return 1
        return self.workers if self.parallel == "data" else self.workers // gcd(paths, self.workers)


def deal(costs: Sequence[float] | Float[np.ndarray, " u"], workers: int) -> list[list[int]]:
    """Deals units out, the most expensive first, each to the least loaded of the workers that have room.

    No worker gets more than its equal part, rounded up. Ties go to the first.

    Returns:
        The units of each worker, ascending.
    """
    room = -(-len(costs) // workers)
    loads = [(0.0, worker) for worker in range(workers)]
    dealt: list[list[int]] = [[] for _ in range(workers)]
    for unit in sorted(range(len(costs)), key=lambda u: (-costs[u], u)):
        load, worker = heapq.heappop(loads)
        dealt[worker].append(unit)
        if len(dealt[worker]) < room:
            heapq.heappush(loads, (load + costs[unit], worker))
    return [sorted(units) for units in dealt]


def balance(costs: Float[np.ndarray, " k"], dealt: Sequence[Sequence[Share]]) -> float:
    """Computes the mean work of the workers ÷ work of the slowest; 1 is best.

    Args:
        costs: Costs of each path, on the rows that it sees.
        dealt: The shares of each worker.
    """
    work = [sum(float(costs[share.path]) * share.weight for share in mine) for mine in dealt]
    return float(np.mean(work) / max(work))
