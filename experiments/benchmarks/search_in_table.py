"""Look-ups that searchers, and published search loops, need to find the best network of a truth table.

Command: `python -m experiments.benchmarks.search --table nas_bench_201 --json`, with the table's directory below
`$SUPERNEST_DATA`. Nothing is trained. Each searcher runs with its default settings and the single budget `full`, until
it has looked up a network with the highest figure. A repeated look-up of a network is free, as in a search. Three
search loops of the literature run beside the registered searchers: local search that moves at its first improvement,
local search that looks at all neighbours, and regularised evolution with one child at a time.

References:
    White, Nolen, Savani. Exploring the Loss Landscape in Neural Architecture Search. UAI 2021, arXiv:2005.02960 (local
    search; its queries on this table are distinct networks too).
    Real, Aggarwal, Huang, Le. Regularized Evolution for Image Classifier Architecture Search. AAAI 2019,
    arXiv:1802.01548.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata
from tqdm import tqdm

from experiments.benchmarks.proxies import published
from experiments.truth_tables import TruthTable
from search import SEARCHERS, Budget, Searcher
from search.warm_start import WarmStarted
from search_spaces import Genes, UserError, did_you_mean
from search_spaces.randomness import Purpose, stream
from search_spaces.sealed_json import JsonObject
from supernet.proxies import PROXIES

Values = Float[np.ndarray, " a"]


class Counted:
    """Function that looks figures up and counts distinct networks.

    Args:
        table: The table.
        values: Figure of each row; higher is better.
    """

    def __init__(self, table: TruthTable, values: Values) -> None:
        self.table, self.space, self._values = table, table.space, values
        self._seen: set[int] = set()
        self.queries = 0
        self.found: int | None = None
        """Queries until the best network was looked up."""

    def __call__(self, genes: Genes) -> Values:
        """Returns the figures of networks."""
        rows = self.table.rows(self.space, np.atleast_2d(genes))
        for row in rows.tolist():
            if row not in self._seen:
                self._seen.add(row)
                if self.found is None:
                    self.queries += 1
                    if self._values[row] >= self._best:
                        self.found = self.queries
        return self._values[rows]

    @cached_property
    def _best(self) -> float:
        return float(self._values.max())

    @property
    def exhausted(self) -> bool:
        """Whether all networks were looked up."""
        return len(self._seen) == len(self._values)


Loop = Callable[[Counted, np.random.Generator], None]


def first_improvement(look_up: Counted, rng: np.random.Generator) -> None:
    """Runs local search from random networks: moves to the first better neighbour, in random order."""
    while look_up.found is None:
        at = look_up.space.sample(rng, 1)[0]
        figure, improved = look_up(at)[0], True
        while improved and look_up.found is None:
            improved = False
            for row in rng.permutation(look_up.space.neighbours(at)):
                other = look_up(row)[0]
                if other > figure:
                    at, figure, improved = row, other, True
                    break


def best_neighbour(look_up: Counted, rng: np.random.Generator) -> None:
    """Runs local search from random networks: moves to the best of all neighbours if it is better."""
    while look_up.found is None:
        at = look_up.space.sample(rng, 1)[0]
        figure = look_up(at)[0]
        while look_up.found is None:
            near = rng.permutation(look_up.space.neighbours(at))
            figures = look_up(near)
            if figures.max() <= figure:
                break
            at, figure = near[figures.argmax()], figures.max()


def evolution(look_up: Counted, rng: np.random.Generator, population: int = 30, sample: int = 10) -> None:
    """Runs regularised evolution with one child at a time and the population sizes of NASLib for this table."""
    living = deque(((row, look_up(row)[0]) for row in look_up.space.sample(rng, population)), population)
    while look_up.found is None and not look_up.exhausted:
        parent = max((living[i] for i in rng.integers(population, size=sample)), key=lambda one: one[1])[0]
        near = look_up.space.neighbours(parent)
        child = near[rng.integers(len(near))]
        living.append((child, look_up(child)[0]))


LOOPS: dict[str, Loop] = {
    "published: local, first improvement": first_improvement,
    "published: local, best neighbour": best_neighbour,
    "published: regularised evolution": evolution,
}


@dataclass(frozen=True)
class WarmStart:
    """Cells whose zero-cost proxies were published, of which a search begins with the best.

    Attributes:
        genes: The cells.
        scores: Score of each by each proxy; larger is better.
        candidates: Number of cells that a run draws.
    """

    genes: Genes
    scores: Float[np.ndarray, "a p"]
    candidates: int

    @classmethod
    def read(cls, path: Path, data_set: str, names: Sequence[str], candidates: int) -> "WarmStart":
        """Reads the published scores.

        Raises:
            UserError: The file is missing or damaged, or lacks a proxy or so many cells.
        """
        genes, _, scores = published(path, data_set)
        for name in names:
            if name not in scores:
                raise UserError(f"--warm-start: {name!r} is no proxy of {path}.{did_you_mean(name, scores)}")
        if candidates > len(genes):
            raise UserError(f"--candidates: {candidates} of the {len(genes)} cells of {path}. Give at most that.")
        columns = [scores[name] if PROXIES[name].larger_is_better else -scores[name] for name in names]
        table = np.stack(columns, axis=1)
        return cls(genes, np.where(np.isfinite(table), table, -np.inf), candidates)

    def around(self, searcher: Searcher, seed: int) -> Searcher:
        """Returns the searcher, begun with the best of random cells by their mean place."""
        rows = stream(seed, Purpose.WARM_START).permutation(len(self.genes))[: self.candidates]
        places = rankdata(self.scores[rows], axis=0).mean(axis=1)
        best = self.genes[rows[np.argsort(-places, kind="stable")]]
        size = len(searcher.ask(searcher.init()))
        return WarmStarted.of(searcher, best[:size], {"candidates": self.candidates})


def registered(name: str, look_up: Counted, seed: int, warm: WarmStart | None = None) -> None:
    """Runs a registered searcher until it has looked up the best network or stops asking."""
    space = look_up.space
    budget = Budget.parse("full", "macs<=100%").resolve(space)
    searcher: Searcher = SEARCHERS[name](space, (budget,), seed)
    searcher = searcher if warm is None else warm.around(searcher, seed)
    state = searcher.init()
    while look_up.found is None and not look_up.exhausted:
        genes = searcher.ask(state)
        if not len(genes):
            return
        objectives = np.empty((len(genes), len(searcher.objectives)))
        objectives[:, 0] = 1 - look_up(genes) / 100
        costs = space.cost(genes)
        for i, metric in enumerate(searcher.objectives[1:], start=1):
            objectives[:, i] = costs[metric]
        state = searcher.tell(state, genes, objectives)


def queries(table: TruthTable, measure: str, names: list[str], seeds: int, warm: WarmStart | None = None) -> JsonObject:
    """Counts look-ups until the optimum for each searcher and loop: mean, median, quartiles and share of success.

    Args:
        table: The table.
        measure: Column of the table to maximise.
        names: Names of registered searchers.
        seeds: Number of runs of each.
        warm: What registered searchers begin with; their own first generation when None.
    """
    values = table.measure(measure)
    loops = {name: lambda look_up, seed, loop=loop: loop(look_up, np.random.default_rng(seed))
             for name, loop in LOOPS.items()}  # fmt: skip
    loops |= {name: lambda look_up, seed, name=name: registered(name, look_up, seed, warm) for name in names}
    needed: dict[str, LookUps] = {}
    for name, loop in tqdm(loops.items(), desc="searchers", disable=None):
        found = []
        for seed in range(seeds):
            look_up = Counted(table, values)
            loop(look_up, seed)
            found.append(np.inf if look_up.found is None else float(look_up.found))
        needed[name] = LookUps.of(np.array(found))
    return {
        "table": table.name, "networks": len(values), "measure": measure, "seeds": seeds,
        "different": len(np.unique(table.space.isomorphic(table.genes), axis=0)),
        "best": float(values.max()), "networks_that_reach_it": int((values == values.max()).sum()),
        **{name: dataclasses.asdict(of) for name, of in needed.items()},
    }  # fmt: skip


@dataclass(frozen=True)
class LookUps:
    """Look-ups that runs of a searcher needed to find the best network.

    Attributes:
        mean: Their mean; None if a run did not find it.
        median: Their median; None if infinite.
        quartiles: First and third quartile; None if infinite.
        reached: Number of runs that found it.
    """

    mean: float | None
    median: float | None
    quartiles: list[float | None]
    reached: int

    @classmethod
    def of(cls, found: Float[np.ndarray, " s"]) -> "LookUps":
        """Returns the summary of look-ups, one value for each run, infinite if it did not find the best network."""
        first, median, third = (
            float(q) if np.isfinite(q) else None for q in np.quantile(found, [0.25, 0.5, 0.75], method="lower")
        )
        mean = float(found.mean())
        return cls(round(mean, 1) if np.isfinite(mean) else None, median, [first, third], int(np.isfinite(found).sum()))
