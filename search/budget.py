"""Budget: named limits on what a network may cost, absolute or as a share of what the dearest subnet costs.

The dearest subnet is the largest one, unless a cost does not grow with every gene, as a measured latency may not.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
from jaxtyping import Bool, Float, Shaped

from search_spaces import CostModel, Genes, SearchSpace, UserError, did_you_mean
from search_spaces.extremes import highest, lowest, nearest
from search_spaces.names import name_fault

Costs = Mapping[str, Shaped[np.ndarray, " a"]]
"""Metric name to one number an architecture."""

CostFunction = Callable[[Genes], Costs]
"""Costs of architectures; a space's cost model, or one that adds a latency table's metrics to it."""

_LIMIT = re.compile(r"\s*(\w+)\s*(?:<=|≤)\s*(.+?)\s*")
_SUFFIXES = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_EXAMPLE = "Write an amount such as 100000, 1.5e6, 300M, or a share of the dearest subnet's cost such as 50%."


@dataclass(frozen=True)
class Limit:
    """One metric and the most it may be.

    Attributes:
        metric: Metric that is limited.
        amount: The limit, in the metric's unit or in percent of what the dearest subnet costs; positive.
        percent: Whether the amount is a percentage, then at most 100.
    """

    metric: str
    amount: float
    percent: bool = False

    def __str__(self) -> str:
        whole = self.amount.is_integer() and self.amount < 2**53
        return f"{self.metric}<={int(self.amount) if whole else repr(self.amount)}{'%' if self.percent else ''}"


@dataclass(frozen=True)
class ResolvedBudget:
    """A budget in absolute numbers.

    Attributes:
        name: Its name, in reports and as the directory of the subnet found for it.
        limits: Metric and the most it may be, in the metric's unit.
        anchor: Genes of a subnet that meets it, which others are drawn towards; the smallest one when None.
    """

    name: str
    limits: tuple[tuple[str, float], ...]
    anchor: tuple[int, ...] | None = field(default=None, compare=False)

    def feasible(self, costs: Costs) -> Bool[np.ndarray, " a"]:
        """Returns which architectures meet every limit; one that costs exactly the limit does."""
        return np.logical_and.reduce([np.asarray(costs[metric]) <= most for metric, most in self.limits])

    def excess(self, costs: Costs) -> Float[np.ndarray, " a"]:
        """Returns how far each architecture is over its worst limit, as a share of that limit; 0 where it meets all."""
        over = [np.asarray(costs[metric]) / most - 1 for metric, most in self.limits]
        return np.maximum(np.maximum.reduce(over), 0.0)


@dataclass(frozen=True)
class Budget:
    """Named limits as the user wrote them; `Budget.parse` makes it. `str` gives the form that `parse` reads.

    Attributes:
        name: Its name.
        limits: At least one, each metric once.
    """

    name: str
    limits: tuple[Limit, ...]

    def __str__(self) -> str:
        return ", ".join(str(limit) for limit in self.limits)

    @staticmethod
    def parse(
        name: str, spec: str | Mapping[str, int | float | str], metrics: tuple[str, ...] = CostModel.metrics
    ) -> "Budget":
        """Reads a budget.

        Args:
            name: The name cannot be that of a directory: see `search_spaces.names`.
            spec: `{"macs": "50%", "params": 100000}` or `"macs<=50%, params<=100k"`.
            metrics: The metrics that can be limited.

        Raises:
            UserError: A bad name, no limit, an unknown metric, a metric limited twice, or an amount that is no
                positive number, or a percentage over 100.
        """
        fault = name_fault(name)
        if fault is not None:
            raise UserError(f"search.budgets: {str(name)[:60]!r} {fault}")
        where = f"search.budgets.{name}"
        limits: dict[str, Limit] = {}
        for metric, amount in _pairs(where, spec):
            if metric not in metrics:
                raise UserError(f"{where}: {metric!r} is no metric.{did_you_mean(metric, metrics)}")
            limit = _limit(f"{where}.{metric}", metric, amount)
            if metric in limits:
                raise UserError(f"{where}: '{limits[metric]}' and '{limit}' limit {metric} twice. Keep one of them.")
            limits[metric] = limit
        if not limits:
            raise UserError(f"{where}: no limit. Write one, such as macs<=50%.")
        return Budget(name, tuple(limits.values()))

    def resolve(self, space: SearchSpace, cost: CostFunction | None = None) -> ResolvedBudget:
        """Returns the budget in absolute numbers for a space.

        Args:
            space: The space; percentages are of what its dearest subnet costs.
            cost: Costs of its architectures; the space's cost model when None.

        Raises:
            UserError: Nothing in the space meets it: a limit is below what any subnet costs, or limits that can be met
                alone contradict each other.
        """
        cost = cost or space.cost
        limits = tuple(
            (limit.metric, limit.amount / 100 * highest(space, cost, limit.metric).value)
            if limit.percent
            else (limit.metric, limit.amount)
            for limit in self.limits
        )
        resolved = ResolvedBudget(self.name, limits)
        smallest = np.array([space.smallest.genes], np.int32)
        if resolved.feasible(cost(smallest))[0]:
            return resolved
        met = nearest(space, cost, limits).genes
        if not resolved.feasible(cost(met[None]))[0]:
            self._explain(space, cost, resolved)
        return replace(resolved, anchor=tuple(met.tolist()))

    def _explain(self, space: SearchSpace, cost: CostFunction, resolved: ResolvedBudget) -> NoReturn:
        where = f"search.budgets.{self.name}"
        for limit, (metric, most) in zip(self.limits, resolved.limits, strict=True):
            cheapest = lowest(space, cost, metric)
            if cheapest.value > most:
                below = "what any subnet costs; the cheapest"
                if not cheapest.exact:
                    below = "all costs that a bounded search found; the cheapest subnet"
                elif tuple(cheapest.genes.tolist()) == space.smallest.genes:
                    below = "the smallest subnet, which"
                raise UserError(
                    f"{where}.{metric}: '{limit}' is below {below} costs {_in_each_unit(space, cost, cheapest.genes)}. "
                    f"Raise the limit to {_round_up(cheapest.value)}{_unit(metric)} or more."
                )
        for count in range(2, len(self.limits) + 1):
            for chosen in itertools.combinations(range(len(self.limits)), count):
                near = nearest(space, cost, [resolved.limits[i] for i in chosen])
                if near.value > 1:
                    texts = [f"'{self.limits[i]}'" for i in chosen]
                    found = "" if near.exact else " that a bounded search found"
                    raise UserError(
                        f"{where}: {', '.join(texts[:-1])} and {texts[-1]} contradict each other: each can be met, but "
                        f"the nearest subnet to {'both' if count == 2 else 'all'}{found} costs "
                        f"{_in_each_unit(space, cost, near.genes)}; the smallest costs "
                        f"{_in_each_unit(space, cost, np.array(space.smallest.genes, np.int32))}. Raise one of them."
                    )
        raise UserError(
            f"{where}: no subnet that meets {self} was found, though each limit can be met and any of them together "
            "may be. Raise one of them."
        )


def _in_each_unit(space: SearchSpace, cost: CostFunction, genes: np.ndarray) -> str:
    """What an architecture costs, also as shares of the dearest."""
    shares = {
        metric: value[0] / (highest(space, cost, metric).value or 1) for metric, value in cost(genes[None]).items()
    }
    return ", ".join(
        f"{metric} {value[0]:.10g}{_unit(metric)} ({100 * shares[metric]:.3g}% of the dearest)"
        for metric, value in cost(genes[None]).items()
    )


def _unit(metric: str) -> str:
    """The unit of a metric whose name ends with it; params and MACs are counts."""
    return next((f" {unit}" for unit in ("ms", "bytes") if metric.endswith(f"_{unit}")), "")


def _round_up(value: float) -> str:
    """A number of at most ten digits that is not less."""
    text = f"{value:.10g}"
    return text if float(text) >= value else f"{value * (1 + 1e-9):.10g}"


def _pairs(where: str, spec: str | Mapping[str, int | float | str]) -> list[tuple[str, int | float | str]]:
    if isinstance(spec, Mapping):
        return list(spec.items())
    if not isinstance(spec, str):
        raise UserError(f"{where}: {spec!r} is no budget. Write limits, such as macs<=50%.")
    pairs: list[tuple[str, int | float | str]] = []
    for part in spec.split(","):
        match = _LIMIT.fullmatch(part)
        if match is None:
            raise UserError(f"{where}: {part.strip()!r} is no limit. Write metric<=amount, such as macs<=50%.")
        pairs.append((match[1], match[2]))
    return pairs


def _limit(where: str, metric: str, given: int | float | str) -> Limit:
    percent, scale = False, 1.0
    text = given.strip() if isinstance(given, str) else repr(given)
    number = text
    if text.endswith("%"):
        percent, number = True, text[:-1]
    elif text[-1:] in _SUFFIXES:
        scale, number = _SUFFIXES[text[-1]], text[:-1]
    try:
        amount = float(number) * scale
    except ValueError:
        amount = math.nan
    if isinstance(given, bool) or not math.isfinite(amount):
        raise UserError(f"{where}: {given!r} is no amount. {_EXAMPLE}")
    if amount <= 0:
        raise UserError(f"{where}: {given!r} is not positive. {_EXAMPLE}")
    if percent and amount > 100:
        raise UserError(f"{where}: {given!r} is more than the dearest subnet costs. Give at most 100%.")
    return Limit(metric, amount, percent)
