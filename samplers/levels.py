"""Cost levels: windows of cost, tables of architectures for each, and the walk that visits them.

References:
    Tang, Zhang, Jiang, Xu, Cao, Zhang, Yang, Wang, Yang. ElasticViT: Conflict-aware Supernet Training for Deploying
    Fast Vision Transformer on Diverse Mobile Devices. ICCV 2023, arXiv:2303.09730. Differs: levels follow from any
    cost of any space; tables are drawn from their exact conditional distribution; one walk for the whole of training,
    without its extra step at the end of an epoch.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Num

from samplers.windows import Box, CostOf, Drawn, EmptyWindow, draw
from search_spaces import SearchSpace, UserError
from search_spaces.randomness import Purpose, stream

_CHUNK = 4096  # steps of a walk that are drawn at once

LevelSettings = int | tuple[float | str, ...]
"""A number of levels, or the lowest cost of each: a number, or a text such as "25%" of the dearest subnet's."""


class EmptyLevel(UserError):
    """A level that no architecture reaches."""


@dataclass(frozen=True)
class Levels:
    """Windows of cost that all have one width.

    Attributes:
        lower: Lowest cost of each level, ascending.
        width: Highest cost of a level less its lowest.
    """

    lower: tuple[float, ...]
    width: float

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def windows(self) -> list[tuple[float, float]]:
        """Lowest and highest cost of each level."""
        # The next number up, for the sum's rounding may leave out the dearest subnet.
        return [(low, math.nextafter(low + self.width, math.inf)) for low in self.lower]

    @property
    def disjoint(self) -> bool:
        """Whether no cost belongs to two levels."""
        windows = self.windows
        return all(high < low for (_, high), (low, _) in itertools.pairwise(windows))

    def inside(self, level: int, costs: Num[np.ndarray, " a"]) -> Bool[np.ndarray, " a"]:
        """Returns which costs belong to a level."""
        low, high = self.windows[level]
        return (costs >= low) & (costs <= high)

    @staticmethod
    def of(setting: LevelSettings, slack: float, smallest: float, largest: float) -> "Levels":
        """Returns the levels of the settings.

        Args:
            setting: Levels as in `LevelSettings`; a number of levels is spread evenly from the cheapest subnet's cost
                to one level's width below the most expensive subnet's.
            slack: Width of a level as a share of the dearest subnet's cost.
            smallest: Cost of the cheapest subnet.
            largest: Cost of the dearest.

        Raises:
            UserError: Levels that do not ascend, cannot be read, or do not fit.
        """
        if not 0 < slack < 1:
            raise UserError(f"sampler.slack: {slack} is not between 0 and 1. Give 0.02 or so.")
        width = slack * largest
        if not isinstance(setting, tuple):
            if isinstance(setting, bool) or setting < 2:
                raise UserError(f"sampler.levels: {setting} is less than 2. Give 2 or more, or a list of costs.")
            if width > largest - smallest:
                most = math.floor((1 - smallest / largest) * 1e4) / 1e4
                raise UserError(f"sampler.slack: {slack} is wider than all costs of the space. Give at most {most}.")
            return Levels(tuple(np.linspace(smallest, largest - width, setting).tolist()), width)
        if not setting:
            raise UserError("sampler.levels: no levels. Give the cost of at least one.")
        lower = tuple(_cost(level, largest) for level in setting)
        if list(lower) != sorted(set(lower)):
            ordered = dict(sorted(zip(lower, setting, strict=True))).values()
            raise UserError(f"sampler.levels: {list(setting)} does not ascend. Give {list(ordered)}.")
        return Levels(lower, width)


def _cost(level: float | str, largest: float) -> float:
    try:
        if isinstance(level, str):
            cost = float(level.removesuffix("%")) / 100 * largest if level.endswith("%") else math.nan
        else:
            cost = float(level)
    except ValueError:
        cost = math.nan
    if not 0 <= cost < math.inf:
        raise UserError(f"sampler.levels: {level!r} is no cost. Give a number, or a share of the dearest, '25%'.")
    return cost


@dataclass(frozen=True)
class Tables:
    """Architectures of each level.

    Attributes:
        genes: Gene vectors as drawn: genes that mean nothing are random, so that a layer that is switched on later
            has a size from the same distribution as the others.
        probabilities: Probability, for each level, that a uniform architecture (above the level's floor) belongs to it.
    """

    genes: Int32[np.ndarray, "l a g"]
    probabilities: Float[np.ndarray, " l"]


def build_tables(
    space: SearchSpace,
    cost: CostOf,
    levels: Levels,
    count: int,
    seed: int,
    floor: Sequence[int] | Int[np.ndarray, " g"] | None = None,
    first: int = 0,
) -> Tables:
    """Draws `count` architectures of each level, distributed as `space.sample` given the level's costs.

    Args:
        space: The space to draw from.
        cost: One number a gene vector; the vectors it gets may not be canonical.
        levels: Costs of the levels.
        count: Architectures a level.
        seed: Seed of the draws.
        floor: Least value of each gene; 0 where None.
        first: Name of the first level in messages.

    Raises:
        EmptyLevel: No architecture reaches a level.
    """
    low = np.zeros(space.num_genes, np.int32) if floor is None else np.asarray(floor, np.int32)
    rng = stream(seed, Purpose.LEVEL_TABLES, first)
    try:
        drawn: list[Drawn] = draw(Box(low, space.cardinalities), cost, levels.windows, count, rng)
    except EmptyWindow as empty:
        lowest, highest = levels.windows[empty.window]
        raise EmptyLevel(
            f"sampler.levels: level {first + empty.window}, from {lowest:.6g} to {highest:.6g}, holds no "
            f"architecture. Give it the nearest cost that one has, {_exact(empty.nearest)}, or give a larger slack."
        ) from None
    return Tables(np.stack([d.genes for d in drawn]), np.array([d.probability for d in drawn]))


def _exact(cost: float) -> str:
    return str(int(cost)) if cost.is_integer() else repr(cost)


@dataclass(frozen=True)
class LevelWalk:
    """The level of each step: a lazy random walk.

    From one step to the next it goes down, stays, or goes up with a third each; at an end it stays where it would
    leave. Every level is equally likely at every step.

    Args:
        levels: Number of levels.
        seed: Seed of the walk.
    """

    levels: int
    seed: int

    def level(self, step: int) -> int:
        """Returns the level of a step."""
        # The walk is a free one on the integers, folded: 0, 1, ..., L-1, L-1, ..., 1, 0 and again. Stepping over a
        # fold is staying at an end. So a sum gives the level of any step without the ones before.
        chunk, offset = divmod(step, _CHUNK)
        position = (_start(self.seed, self.levels) + int(_free(self.seed, chunk)[offset])) % (2 * self.levels)
        return min(position, 2 * self.levels - 1 - position)


@lru_cache(maxsize=64)
def _start(seed: int, levels: int) -> int:
    return int(stream(seed, Purpose.LEVEL_START).integers(levels))


@lru_cache(maxsize=64)
def _free(seed: int, chunk: int) -> np.ndarray:
    """Positions of the unfolded walk at the steps of a chunk."""
    before = sum(int(_increments(seed, c).sum()) for c in range(chunk))
    return before + np.cumsum(_increments(seed, chunk))


def _increments(seed: int, chunk: int) -> np.ndarray:
    return stream(seed, Purpose.LEVEL_WALK, chunk).integers(-1, 2, _CHUNK)
