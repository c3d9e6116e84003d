"""Settings of an evolution strategy."""

from dataclasses import dataclass
from typing import Literal

from search_spaces import UserError, did_you_mean
from supernet.evolution_strategy.fitness import FITNESS

_MOST_MEMBERS = 2**20
_MOST_STEPS = 10**9


@dataclass(frozen=True)
class EvolutionStrategySettings:
    """Evolution strategy with low-rank perturbations (EGGROLL), where `train.method` is `evolution_strategy`.

    Args:
        population: Number of perturbed networks with which each path of a step is evaluated, in pairs with opposite
            perturbations.
        sigma: Standard deviation of the perturbation of a weight. For int8 weights a whole number, which is multiplied
            by products of signs.
        rank: Rank of the perturbation of a matrix: number of columns of both factors.
        noise_reuse: Number of consecutive steps with the same perturbations.
        groups: Number of equal groups of the population, each with its own equal part of the batch. Fitness is compared
            within a group.
        fitness: Quantity that a member maximises: `loss` (its negative), `accuracy`, or a registered function of
            outputs and targets.
        shaping: Form of fitness in the update: centred `rank`s, or `standardise`d values, both with unit variance over
            the population; or the `sign` of the difference within each pair, which int8 weights need.
        cost_metric: Metric of a path's cost, such as `macs` or `latency_ms`.
        cost_exponent: Exponent e of the penalty: the weight of a path's fitness is (cost / cost of the largest
            path)^-e; 0 for no penalty.
        chunk: Largest number of members that one program evaluates at once. The actual number is the largest number of
            pairs within it that divides the pairs of a group, or of whole groups that divides all groups. Larger
            numbers take more memory.

    Raises:
        UserError: A value outside its range.
    """

    population: int = 64
    sigma: float = 0.02
    rank: int = 1
    noise_reuse: int = 1
    groups: int = 1
    fitness: str = "loss"
    shaping: Literal["rank", "standardise", "sign"] = "rank"
    cost_metric: str = "macs"
    cost_exponent: float = 0.0
    chunk: int = 16

    def __post_init__(self) -> None:
        checks = {
            "population": (
                2 <= self.population <= _MOST_MEMBERS and self.population % 2 == 0,
                f"an even number from 2 to {_MOST_MEMBERS:,}",
            ),
            "sigma": (0 < self.sigma <= 1000, "more than 0 and at most 1000"),
            "rank": (1 <= self.rank <= 1024, "at least 1 and at most 1024"),
            "noise_reuse": (1 <= self.noise_reuse <= _MOST_STEPS, f"at least 1 and at most {_MOST_STEPS:,}"),
            "groups": (
                self.groups >= 1 and self.population % (2 * self.groups) == 0,
                f"a number of groups that divides the {self.population // 2} pairs of the population evenly",
            ),
            "cost_exponent": (0 <= self.cost_exponent <= 100, "at least 0 and at most 100"),
            "chunk": (self.chunk >= 2 and self.chunk % 2 == 0, "an even number of at least 2"),
        }
        for name, (good, expected) in checks.items():
            if not good:
                value = getattr(self, name)
                raise UserError(f"train.evolution_strategy.{name}: {value} is out of range. Give {expected}.")
        if self.fitness not in FITNESS:
            nearest = did_you_mean(self.fitness, FITNESS)
            raise UserError(
                f"train.evolution_strategy.fitness: {self.fitness!r} is not known.{nearest} A module under plugins can "
                "register a function."
            )

    @property
    def pairs_of_group(self) -> int:
        """Pairs that see the same examples."""
        return self.population // (2 * self.groups)

    @property
    def groups_of_chunk(self) -> int:
        """Groups that one program evaluates, whole ones where there are several: as many as fit and divide them."""
        return _divisor(self.groups, self.chunk // (2 * self.pairs_of_group))

    @property
    def pairs_of_chunk(self) -> int:
        """Pairs that one program evaluates: those of its groups, or as many of a group's as fit and divide them."""
        return self.groups_of_chunk * _divisor(self.pairs_of_group, self.chunk // 2)

    @property
    def chunks(self) -> int:
        """Programs that evaluate the population on one path, one after the other."""
        return self.population // (2 * self.pairs_of_chunk)


def _divisor(count: int, most: int) -> int:
    """Returns the largest divisor of a number up to `most`; at least 1."""
    return max(n for n in range(1, max(1, min(count, most)) + 1) if count % n == 0)
