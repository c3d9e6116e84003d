"""Gain: figures of a network before and after, with 95 % intervals from random groups of a split.

References:
    Wolter. Introduction to Variance Estimation. 2nd edition, Springer 2007, chapter 2 (random groups; t intervals).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from experiments.data import Split
from experiments.exporting.stage import reached
from experiments.objective import Objective
from experiments.records import Figures, Interval
from search_spaces.randomness import Purpose, stream
from supernet.export.subnet import Subnet

_GROUPS, _LEVEL = 20, 0.95


@dataclass(frozen=True)
class Measured:
    """Figures of a network on a split.

    Attributes:
        figures: Figures that `reached` returns.
        objective: Names the figure that people read, and its range.
        groups: Figure that people read on each of the random groups of examples.
    """

    figures: Figures
    objective: Objective
    groups: Float[np.ndarray, " k"]

    @property
    def value(self) -> float:
        """The figure that people read."""
        return float(self.figures[self.objective.shown])

    @property
    def interval(self) -> Interval:
        """The figure with its interval."""
        return _interval(self.value, self.groups, *self.objective.range)

    def gain(self, before: "Measured") -> Interval:
        """Returns by how much the figure is above `before`, with its interval, on the same examples."""
        least, most = self.objective.range
        return _interval(self.value - before.value, self.groups - before.groups, least - most, most - least)


def measured(subnet: Subnet, split: Split, objective: Objective, seed: int, where: str) -> Measured:
    """Measures a network on a split.

    Args:
        subnet: The network.
        split: The examples.
        objective: Names the figure that people read.
        seed: Seed of the random groups; a split has the same ones for all networks.
        where: Location as in `reached`, which lists the errors too.
    """
    labels, count = tuple(subnet.config["labels"]), min(_GROUPS, len(split))
    groups = [subnet.outputs.measures(labels) for _ in range(count)]
    group_of = stream(seed, Purpose.RANDOM_GROUPS).permutation(np.arange(len(split)) % count)
    figures = reached(subnet, split, where, groups, group_of)
    of_groups = [group.figures()[objective.shown] for group in groups]
    return Measured(figures, objective, np.array(of_groups, np.float64))


def _interval(value: float, groups: np.ndarray, least: float, most: float) -> Interval:
    """Returns a figure and its interval, which ends at `least` and `most`.

    There are no ends where there is one group, or where a group has no figure.
    """
    if len(groups) < 2 or not np.isfinite(groups).all():
        return Interval(value)
    from scipy.stats import t  # takes most of a second to import, so only where it is used

    half = t.ppf((1 + _LEVEL) / 2, len(groups) - 1) * groups.std(ddof=1) / np.sqrt(len(groups))
    return Interval(value, float(max(value - half, least)), float(min(value + half, most)))
