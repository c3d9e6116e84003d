"""Gain: figures of a network before and after, with 95 % intervals from random groups of a split.

References:
    Wolter. Introduction to Variance Estimation. 2nd edition, Springer 2007, chapter 2 (random groups; t intervals).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import t

from experiments.data import Split
from experiments.exporting.stage import reached
from supernet.export.subnet import Subnet

_GROUPS, _LEVEL = 20, 0.95


@dataclass(frozen=True)
class Measured:
    """What a network reaches on a split.

    Attributes:
        figures: As `reached` gives them.
        name: Name of the figure that people read.
        groups: That figure on each of the groups that the examples are dealt out to.
    """

    figures: dict[str, Any]
    name: str
    groups: Float[np.ndarray, " k"]

    @property
    def interval(self) -> dict[str, float | None]:
        """The figure with its interval."""
        return _interval(self.figures[self.name], self.groups)

    def gain(self, before: "Measured") -> dict[str, float | None]:
        """How much higher the figure is than `before`, on the same examples, with the interval of the difference."""
        return _interval(self.figures[self.name] - before.figures[self.name], self.groups - before.groups)


def measured(subnet: Subnet, split: Split, name: str, where: str) -> Measured:
    """Measures a network on a split; see `reached` for arguments and errors."""
    labels = tuple(subnet.config["labels"])
    groups = [subnet.outputs.measures(labels) for _ in range(min(_GROUPS, len(split)))]
    figures = reached(subnet, split, where, groups)
    return Measured(figures, name, np.array([group.figures()[name] for group in groups], np.float64))


def _interval(value: float, groups: np.ndarray) -> dict[str, float | None]:
    """A figure and its interval; without ends where there is one group, or a group has no figure."""
    found: dict[str, float | None] = {"value": float(value), "low": None, "high": None}
    if len(groups) > 1 and np.isfinite(groups).all():
        half = t.ppf((1 + _LEVEL) / 2, len(groups) - 1) * groups.std(ddof=1) / np.sqrt(len(groups))
        found |= {"low": float(value - half), "high": float(value + half)}
    return found
