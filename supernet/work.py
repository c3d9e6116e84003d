"""Work: what one process does of a training step, and how it is put together with what the others do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Share(NamedTuple):
    """The pass of one path over some rows of the batch.

    Attributes:
        path: Which of the step's paths.
        rows: Which rows; consecutive.
        weight: These rows over all rows of the path, so that means over shares add up to the path's mean.
    """

    path: int
    rows: slice
    weight: float


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
        """Every path on every row, in this process alone."""
        return Work(tuple(Share(path, slice(0, rows), 1.0) for path in range(paths)))

    @property
    def alone(self) -> bool:
        """Whether this is all of the step, every path on every row."""
        return self.sum is _same and not self.cut
