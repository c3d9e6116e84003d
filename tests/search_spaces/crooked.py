"""Toy spaces whose costs rise and fall with their genes, as measured ones do."""

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from search_spaces import Choice, CostModel, Genes, SearchSpace, Term
from search_spaces.cost import CostTables


@dataclass(frozen=True)
class Crooked(SearchSpace):
    """A width, a depth, layers of two genes each, and two free genes; every table is random.

    Attributes:
        seed: Of the tables.
        layers: Layers of the deepest network.
        pairs: Further tables over random pairs of ungated genes.
        span: Costs are whole numbers below it.
    """

    seed: int
    layers: int = 2
    pairs: int = 2
    span: int = 20

    family = "crooked"

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return (
            Choice("width", (1, 2, 3)),
            Choice("depth", tuple(range(1, self.layers + 1))),
            Choice("kernel", (3, 5, 7), gate="depth"),
            Choice("expand", (1, 2), gate="depth"),
            Choice("free", (1, 2), repeats=2),
        )

    @cached_property
    def cost(self) -> CostModel:
        return CostModel(self.num_genes, self.terms(self.seed, 3))

    def terms(self, seed: int, metrics: int) -> list[Term]:
        """Random tables; what a layer costs is 0 where it is left out."""
        rng, sizes = np.random.default_rng(seed), self.cardinalities

        def table(*columns: int) -> np.ndarray:
            return rng.integers(0, self.span, size=(*sizes[list(columns)], metrics))

        width, depth = int(self.columns["width"]), int(self.columns["depth"])
        terms = [Term((width,), table(width))]
        for layer in range(self.layers):
            of_layer = (width, depth, *(int(self.columns[name][layer]) for name in ("kernel", "expand")))
            costs = table(*of_layer)
            costs[:, :layer] = 0  # the depth with index i has i + 1 layers
            terms.append(Term(of_layer, costs))
        free = [width, depth, *self.columns["free"].tolist()]
        for _ in range(self.pairs):
            pair = tuple(int(c) for c in rng.choice(free, 2, replace=False))
            terms.append(Term(pair, table(*pair)))
        return terms

    @cached_property
    def members(self) -> Genes:
        """All networks."""
        rows = np.array(list(itertools.product(*(range(n) for n in self.cardinalities))), np.int32)
        return np.unique(self.canonical(rows), axis=0)


@dataclass(frozen=True)
class Measured:
    """Costs of a device: a sum of random tables, and another sum with the dearest of further tables on top."""

    space: Crooked
    seed: int

    @cached_property
    def _models(self) -> tuple[CostModel, CostModel, CostModel]:
        models = []
        for i, combine in enumerate((np.add, np.add, np.maximum)):
            terms = self.space.terms(self.seed + i, 1)
            models.append(CostModel(self.space.num_genes, terms, ("value",), combine))
        return models[0], models[1], models[2]

    def __call__(self, genes: Genes) -> dict[str, np.ndarray]:
        latency, fixed, peak = (model(genes)["value"] for model in self._models)
        return {**self.space.cost(genes), "latency_ms": (3 + latency) / 7, "memory_bytes": 5 + fixed + peak}

    def tables(self, metric: str) -> CostTables:
        if metric == "latency_ms":
            return replace(self._models[0].tables("value"), constant=3, per=7)
        if metric == "memory_bytes":
            return CostTables(self._models[1].tables("value").sums, self._models[2].tables("value").peaks, 5)
        return self.space.cost.tables(metric)
