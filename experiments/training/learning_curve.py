"""LearningCurve: validation figures of one network while it trains, kept so that a training goes on the same."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from search_spaces.sealed_json import read_sealed, sealed
from supernet.storage.manifest import write_text_atomically
from supernet.training.evaluation import Scores


@dataclass(frozen=True)
class Point:
    """Figures that a network reached after some steps.

    Attributes:
        step: Number of steps.
        figure: The figure of the data, such as accuracy.
        loss: The loss.
    """

    step: int
    figure: float
    loss: float


class LearningCurve:
    """The evaluations of a training so far, in a file.

    Args:
        path: The file; read where it is there already.

    Raises:
        UserError: The file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._points: list[Point] = []
        if path.exists():
            self._points = [Point(**point) for point in read_sealed(path, f"Delete {path.parent}.")["points"]]

    @property
    def points(self) -> Sequence[Point]:
        """The evaluations, in the order of their steps; failed ones are left out."""
        return self._points

    def add(self, done: int, scores: Scores) -> None:
        """Keeps an evaluation of one network, and drops those of later steps.

        After a kill, training goes on from its last checkpoint, before evaluations that are here already.

        Args:
            done: Number of steps so far.
            scores: Figures of the network.
        """
        self._points = [one for one in self._points if one.step < done]
        if not scores.failed[0]:
            self._points.append(Point(done, float(scores.figure[0]), float(scores.loss[0])))
        content = sealed({"points": [asdict(one) for one in self._points]})
        write_text_atomically(self._path, json.dumps(content) + "\n")


def evaluation_interval(steps: int, evaluations: int) -> int:
    """Returns the least number of steps between evaluations with which a training has at most so many of them."""
    return -(-steps // evaluations)
