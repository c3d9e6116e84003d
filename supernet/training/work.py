"""Work: what one process does of a training step, and how it is put together with what the others do."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple


class Share(NamedTuple):
    """The pass of one path over some rows of the batch.

    Attributes:
        path: Index of the path in the step.
        rows: Rows of the batch; consecutive.
        weight: Share of these rows of all rows of the path, so that means over shares add up to the path's mean.
    """

    path: int
    rows: slice
    weight: float

    def piece(self, i: int, count: int) -> "Share":
        """Returns the i-th of `count` parts of the rows."""
        first, size = self.rows.start, self.rows.stop - self.rows.start
        rows = slice(first + size * i // count, first + size * (i + 1) // count)
        return Share(self.path, rows, self.weight * (rows.stop - rows.start) / size)


def _same(tree: Any) -> Any:
    return tree


@dataclass(frozen=True)
class Work:
    """The shares of this process.

    Attributes:
        shares: By path; none where there is nothing to do.
        cut: Whether any path has several shares, of this process or of others.
        sum: Sums a tree of arrays over all processes; every process calls it equally often, with the same shapes.
        place: Brings rows of the batch to the devices that work on them.
    """

    shares: tuple[Share, ...]
    cut: bool = False
    sum: Callable[[Any], Any] = _same
    place: Callable[[Any], Any] = _same

    @staticmethod
    def whole(paths: int, rows: int) -> "Work":
        """Returns the work of one process: every path on every row."""
        return Work(tuple(Share(path, slice(0, rows), 1.0) for path in range(paths)))

    def in_pieces(self, count: int) -> "Work":
        """Returns the same work with each share in several passes over equal parts of its rows (if divisible).

        All passes over the same rows follow each other, so that what is kept of them can go before the next.
        """
        if count == 1:
            return self
        shares = tuple(piece for i in range(count) for share in self.shares if (piece := share.piece(i, count)).weight)
        return replace(self, shares=shares, cut=True)
