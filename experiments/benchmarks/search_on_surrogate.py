"""Searchers on tables that measure a sample of a space: look-ups until most of the front's hypervolume is found.

Command: `python -m experiments.benchmarks.search --table hw_gpt_bench --json`, or `--table ofa`, with the files below
`$SUPERNEST_DATA`. Nothing is trained. Figures are those of additive surrogates
(`experiments.benchmarks.surrogate_tables`), whose cross-validated tau-b is told: what searchers with an additive model
of their own (`mip`, `linas` by ridge) gain on them is an upper bound. As the surrogates are sums, the front is known:
for evenly spread limits of the cost the best network is proven by a mixed integer program. Hypervolumes are to a
reference point 10 % beyond that front's ends.
"""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from experiments.benchmarks.search_in_table import LookUps
from experiments.benchmarks.surrogate_tables import SurrogateTable
from search import MIP, SEARCHERS, Budget, ResolvedBudget, Searcher, hypervolume, pareto_front
from search_spaces.extremes import highest, lowest
from search_spaces.sealed_json import JsonObject

SHARES = (0.95, 0.99)
_LIMITS = 48
_BEYOND = 0.1
_BUDGETS = ("quarter", "25%"), ("half", "50%"), ("full", "100%")

Points = Float[np.ndarray, "n 2"]


@dataclass(frozen=True)
class Goal:
    """The front of a table, and what of it is to be found.

    Attributes:
        ideal: Its least error and least cost.
        worst: Its largest error and cost.
        volume: Its hypervolume, of objectives between 0 at the ideal and 1 at the worst.
        networks: Number of networks on it.
    """

    ideal: Float[np.ndarray, " 2"]
    worst: Float[np.ndarray, " 2"]
    volume: float
    networks: int

    @classmethod
    def of(cls, table: SurrogateTable) -> "Goal":
        """Proves the best networks of evenly spread limits."""
        space, cost, metric = table.space, table.cost, table.metric
        low, high = lowest(space, cost, metric).value, highest(space, cost, metric).value
        solver = MIP(space, budgets(table), 0, cost)
        found = []
        for limit in tqdm(np.linspace(low, high, _LIMITS), desc="front", disable=None):
            best = solver.allocate(table.error, ((metric, float(limit)),))  # type: ignore[arg-type]
            if best is not None:
                found.append(best.genes)
        points = objectives(table, np.array(found, np.int32))
        front = points[pareto_front(points)]
        ideal, worst = front.min(axis=0), front.max(axis=0)
        volume = hypervolume((front - ideal) / (worst - ideal), np.full(2, 1 + _BEYOND))
        return cls(ideal, worst, volume, len(front))


class Found:
    """The front of what was looked up, and its hypervolume as a share of the true front's."""

    def __init__(self, goal: Goal) -> None:
        self._goal, self._front, self.share = goal, np.zeros((0, 2)), 0.0

    def add(self, point: Float[np.ndarray, " 2"]) -> None:
        """Adds what a network has: its error and cost."""
        scaled = (point - self._goal.ideal) / (self._goal.worst - self._goal.ideal)
        if (self._front <= scaled).all(axis=1).any():
            return
        self._front = np.concatenate([self._front[~(self._front >= scaled).all(axis=1)], scaled[None]])
        self.share = hypervolume(self._front, np.full(2, 1 + _BEYOND)) / self._goal.volume


def budgets(table: SurrogateTable) -> tuple[ResolvedBudget, ...]:
    """Limits of a quarter, half and all of what the dearest network costs; those that nothing meets are left out."""
    most = highest(table.space, table.cost, table.metric).value
    least = lowest(table.space, table.cost, table.metric).value
    parsed = [Budget.parse(name, {table.metric: share}, (table.metric,)) for name, share in _BUDGETS]
    return tuple(one.resolve(table.space, table.cost) for one in parsed if one.limits[0].amount / 100 * most >= least)


def objectives(table: SurrogateTable, genes: np.ndarray) -> Points:
    """Error and cost of networks."""
    return np.column_stack([table.error(genes), np.asarray(table.cost(genes)[table.metric], float)])


def needed(searcher: Searcher, table: SurrogateTable, goal: Goal, most: int) -> list[float]:
    """Look-ups until each share of the hypervolume is found; infinite where `most` do not suffice."""
    state, front, count, reached = searcher.init(), Found(goal), 0, [np.inf] * len(SHARES)
    while count < most and not np.isfinite(reached).all():
        genes = searcher.ask(state)[: most - count]
        if not len(genes):
            break
        points = objectives(table, genes)
        for point in points:
            count += 1
            front.add(point)
            reached = [min(old, count) if front.share >= share else old
                       for old, share in zip(reached, SHARES, strict=True)]  # fmt: skip
        costs = searcher.costs(genes)
        told = np.column_stack([points[:, 0], *(costs[metric] for metric in searcher.objectives[1:])])
        state = searcher.tell(state, genes, told)
    return [float(one) for one in reached]


def figures(table: SurrogateTable, names: list[str], seeds: int, most: int) -> JsonObject:
    """Look-ups by searcher: median and quartiles over seeds, and how often each share was reached.

    Args:
        table: The table.
        names: Registered searchers.
        seeds: Runs of each.
        most: Look-ups after which a run has not reached its goal.
    """
    goal, limits = Goal.of(table), budgets(table)
    found: JsonObject = {
        "table": table.name, "networks": table.space.size, "measured": table.measured, "error": table.error_name,
        "cost": table.metric, "cross-validated tau-b": table.taus, "front": goal.networks,
        "front_errors": [float(goal.ideal[0]), float(goal.worst[0])],
        "front_costs": [float(goal.ideal[1]), float(goal.worst[1])],
        "budgets": [budget.name for budget in limits], "seeds": seeds, "most": most,
    }  # fmt: skip
    for name in tqdm(names, desc="searchers", disable=None):
        runs = np.array([
            needed(SEARCHERS[name](table.space, limits, seed, table.cost), table, goal, most) for seed in range(seeds)
        ])  # fmt: skip
        for share, column in zip(SHARES, runs.T, strict=True):
            found[f"{name}/{share:.0%}"] = asdict(LookUps.of(column))
    return found
