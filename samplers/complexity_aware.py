"""Complexity-aware sampling: the paths of a step cost alike, and steps that follow each other cost nearly alike.

References:
    Tang, Zhang, Jiang, Xu, Cao, Zhang, Yang, Wang, Yang. ElasticViT: Conflict-aware Supernet Training for Deploying
    Fast Vision Transformer on Diverse Mobile Devices. ICCV 2023, arXiv:2303.09730. Differs: levels and smallest
    subnets follow from the space instead of being written out for one; see also `samplers.levels`.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float, Float32, Int32

from samplers.levels import EmptyLevel, Levels, LevelWalk, Tables, build_tables
from samplers.sampler import MOST_PATHS, SAMPLERS, Paths, Sampler, SamplerState, Score, at_least
from samplers.windows import CostOf
from search_spaces import SearchSpace, UserError

_MOST_LEVELS = 1000


@SAMPLERS.register("complexity_aware")
@dataclass(frozen=True)
class ComplexityAwareSampler(Sampler):
    """One cost level per step, by a lazy random walk: random paths of that level, then its smallest subnet.

    There is no largest subnet: it conflicts with the small ones, which is what the method removes. The levels are
    divided into tiers. The smallest subnet of the first tier is that of the space; those of later ones are larger, and
    the random paths of a tier are at least as large as its smallest subnet in every gene.

    Args:
        levels: Number of levels, spread evenly over the costs of the space; or the lowest cost of each, as numbers or
            as texts like "25%" of the most expensive subnet's.
        slack: Largest difference of costs within a level, as a share of the most expensive subnet's.
        cost_metric: Name of the cost that defines the levels.
        random_paths: Number of random paths per step.
        table_size: Number of architectures per level from which random paths are drawn, with replacement. They are
            drawn once, uniformly among those of the level; the paper has 150,000 for its own space.
        smallest: Train the smallest subnet of the level at every step.
        tiers: Number of groups of consecutive levels, each with its own smallest subnet.
        smallest_share: Largest cost of the smallest subnet of a later tier, as a share of the tier's lowest level.
        unbiased: Weigh random paths so that their gradient is, in expectation, that of uniform sampling from all levels
            together. The paper does not: it trains all levels equally often, whatever their numbers of architectures.
            Needs `tiers` of 1 and levels that do not overlap.
    """

    levels: int | tuple[float | str, ...] = 8
    slack: float = 0.02
    cost_metric: str = "macs"
    random_paths: int = 3
    table_size: int = 2000
    smallest: bool = True
    tiers: int = 3
    smallest_share: float = 0.5
    unbiased: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("random_paths", self.random_paths, 1, MOST_PATHS)
        for setting in ("table_size", "tiers"):
            at_least(setting, getattr(self, setting), 1)
        if (self.levels if isinstance(self.levels, int) else len(self.levels)) > _MOST_LEVELS:
            raise UserError(f"sampler.levels: more than {_MOST_LEVELS:,} levels. Give fewer; 8 to 16 are usual.")
        if not 0 < self.smallest_share <= 1:
            raise UserError(f"sampler.smallest_share: {self.smallest_share} is not between 0 and 1. Give 0.5 or so.")
        if self.tiers > len(self.windows):
            raise UserError(
                f"sampler.tiers: {self.tiers} is more than the {len(self.windows)} levels. Give at most "
                f"{len(self.windows)}."
            )
        if self.unbiased and self.tiers > 1:
            raise UserError(
                f"sampler.unbiased: with {self.tiers} tiers some architectures are never drawn, so no weights can make "
                f"up for it. Set sampler.tiers to 1."
            )
        if self.unbiased and not self.windows.disjoint:
            gap = min(b - a for a, b in zip(self.windows.lower, self.windows.lower[1:], strict=False))
            most = gap / self.windows.width * self.slack
            raise UserError(
                f"sampler.slack: {self.slack} makes levels overlap, which unbiased weights do not allow for. Give less "
                f"than {most:.4g}."
            )
        self.tables  # noqa: B018  (a level that cannot be reached is refused now, not at the first step)

    @property
    def paths_per_step(self) -> int:
        return self.random_paths + self.smallest

    def costs_of(self, genes: Int32[np.ndarray, "a g"]) -> Float[np.ndarray, " a"]:
        """Returns the cost that defines the levels, for gene vectors that need not be canonical."""
        return self.costs(genes if self.cost is None else self.space.canonical(genes), self.cost_metric)

    @cached_property
    def windows(self) -> Levels:
        """The cost levels."""
        return Levels.of(self.levels, self.slack, *self.cost_range(self.cost_metric))

    @cached_property
    def walk(self) -> LevelWalk:
        """The walk over the levels."""
        return LevelWalk(len(self.windows), self.seed)

    @property
    def tables(self) -> Tables:
        """Architectures of each level."""
        return self._drawn[0]

    @property
    def smallest_genes(self) -> Int32[np.ndarray, "l g"]:
        """The smallest subnet of each level."""
        return self._drawn[1]

    @cached_property
    def _drawn(self) -> tuple[Tables, np.ndarray]:
        if self.cost is None:
            return _tables_of_space(
                self.space, self.cost_metric, self.windows, self.table_size, self.seed, self.tiers, self.smallest_share
            )
        return _tiered(
            self.space, self.costs_of, self.windows, self.table_size, self.seed, self.tiers, self.smallest_share
        )

    @cached_property
    def level_weights(self) -> Float32[np.ndarray, " l"]:
        """Weight of a random path of each level; over many steps they average 1."""
        if not self.unbiased:
            return np.ones(len(self.windows), np.float32)
        probabilities = self.tables.probabilities
        return np.maximum(probabilities / probabilities.mean(), np.finfo(np.float32).tiny).astype(np.float32)

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        level = self.walk.level(step)
        rows = self.rng(step).integers(self.table_size, size=self.random_paths)
        weights = np.full(self.random_paths, self.level_weights[level])
        return self.paths_of(level, self.tables.genes[level, rows], weights)

    def paths_of(self, level: int, genes: Int32[np.ndarray, "k g"], weights: Float32[np.ndarray, " k"]) -> Paths:
        """Draws random paths of a level, followed by its smallest subnet if configured."""
        roles = ("random",) * len(genes)
        if self.smallest:
            genes = np.concatenate([genes, self.smallest_genes[level][None]])
            weights = np.append(weights, np.float32(1))
            roles = (*roles, "smallest")
        return Paths(self.space.canonical(genes), roles, weights.astype(np.float32))


def _tiered(
    space: SearchSpace, cost: CostOf, levels: Levels, count: int, seed: int, tiers: int, share: float
) -> tuple[Tables, Int32[np.ndarray, "l g"]]:
    """The tables of all levels and the smallest subnet of each.

    Raises:
        EmptyLevel: No architecture reaches a level.
    """
    tables, smallest = [], []
    for number, group in enumerate(np.array_split(np.arange(len(levels)), tiers)):
        part = Levels(tuple(levels.lower[i] for i in group), levels.width)
        floors = _floors(space)
        least = np.where(space.ordered, floors, np.array(space.smallest.genes, np.int32))
        affordable = np.flatnonzero(cost(least) <= share * part.lower[0])
        # The last floor is all zeros, which is what the first tier has and what remains where nothing is affordable.
        start = affordable[0] if number and len(affordable) else len(floors) - 1
        for floor, own in zip(floors[start:], least[start:], strict=True):
            try:
                tables.append(build_tables(space, cost, part, count, seed, floor, int(group[0])))
            except EmptyLevel:
                if not floor.any():
                    raise
                continue
            smallest += [own] * len(group)
            break
    genes = np.concatenate([table.genes for table in tables])
    probabilities = np.concatenate([table.probabilities for table in tables])
    return Tables(genes, probabilities), space.canonical(np.stack(smallest))


def _floors(space: SearchSpace) -> Int32[np.ndarray, "r g"]:
    """Gene vectors with every gene at the same share of its range, rounded down; the largest share first.

    Genes whose values have no order are at 0, which is no bound.
    """
    ranges = np.where(space.ordered, space.cardinalities.astype(np.int64) - 1, 0)
    shares = {(k, int(n)) for n in np.unique(ranges[ranges > 0]) for k in range(n)} | {(0, 1)}
    ordered = sorted(shares, key=lambda share: share[0] / share[1], reverse=True)
    return np.stack([k * ranges // n for k, n in ordered]).astype(np.int32)


@lru_cache(maxsize=16)
def _tables_of_space(
    space: SearchSpace, metric: str, levels: Levels, count: int, seed: int, tiers: int, share: float
) -> tuple[Tables, np.ndarray]:
    """Tables by the space's own costs, which samplers of equal settings share."""

    def cost(genes: np.ndarray) -> np.ndarray:
        return np.asarray(space.cost(genes)[metric], np.float64)

    return _tiered(space, cost, levels, count, seed, tiers, share)
