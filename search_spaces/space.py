"""SearchSpace: ordered choices, and everything that only needs the choices (encode, sample, mutate, count)."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Int

from search_spaces.architecture import Architecture
from search_spaces.bounds import check_genes
from search_spaces.choice import Choice, Value
from search_spaces.cost import Cost, CostModel, Record
from search_spaces.errors import UserError, did_you_mean
from search_spaces.network import Layer, Network, Stack
from search_spaces.network_checks import check_genes_of_edges, check_network
from search_spaces.network_cost import cost_model
from search_spaces.sealed_json import JsonObject
from search_spaces.template import Template

Genes = Int[np.ndarray, "a g"]
Program = tuple[Value, ...]


class SearchSpace:
    """A set of networks: what may vary (`choices`) and what each costs (`cost`).

    A family is a frozen dataclass that derives from this class, so a space is its settings. Gene vectors are rows of
    int32 indices. Two rows that denote the same network are equal after `canonical`.
    """

    family: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    inputs: ClassVar[str | tuple[str, ...]] = "images"
    """Tasks whose examples its networks take, by name: images, tokens, arrays, or those of plug-ins."""
    several_arenas: ClassVar[bool] = False
    """Whether training is faster with a memory arena for each thread: buffers below 64 MiB, long compilation."""
    divisible: ClassVar[bool] = False
    """Whether its layers are one stack, all with weights of equal shapes, that `divided` can cut into parts."""
    metrics: ClassVar[tuple[str, ...]] = Cost._fields
    """What `cost` tells of."""

    def __post_init__(self) -> None:
        if type(self).network is not SearchSpace.network:
            self.check_positive()  # what sizes an axis
            check_network(self.network, self.choices)
            check_genes_of_edges(self.network, self.choices, self.column)

    def check_positive(self) -> None:
        """Refuses values of choices that are no size.

        Raises:
            UserError: A number that is not positive.
        """
        for choice in self.choices:
            if any(not isinstance(value, str) and value <= 0 for value in choice.values):
                raise UserError(f"space.{choice.name}: {list(choice.values)} has values that are not positive.")

    template: ClassVar[Template] = Template()
    """What an experiment file of the family begins with."""

    @classmethod
    def tasks(cls) -> tuple[str, ...]:
        """Returns the names of the tasks whose examples its networks take."""
        return (cls.inputs,) if isinstance(cls.inputs, str) else cls.inputs

    @classmethod
    def takes(cls, task: str) -> bool:
        """Returns whether networks of the space take the examples of a task."""
        return task in cls.tasks()

    @property
    def reference_error(self) -> float:
        """An error that no network should have, from which hypervolumes are measured: 1, as errors are shares."""
        return 1.0

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """The elastic dimensions, in gene order; a gate comes before the choices that it gates."""
        raise NotImplementedError(f"family {self.family} has no choices")

    @cached_property
    def network(self) -> Network:
        """The description: weights, their axes and products."""
        raise NotImplementedError(f"family {self.family} has no description")

    @cached_property
    def cost(self) -> CostModel:
        """Exact params, MACs and activation bytes of any number of architectures."""
        return cost_model(self)

    def price(self, cost: Cost, sizes: Mapping[str, int]) -> Record:
        """Returns what a sublayer costs in the space's `metrics`, from its counts and the lengths of its axes."""
        del sizes
        return cost

    # ---------------------------------------------------------------- layout

    @cached_property
    def _by_name(self) -> dict[str, Choice]:
        return {choice.name: choice for choice in self.choices}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Choice name to the shape of its genes: `()`, `(repeats,)`, `(layers,)` or `(stages, blocks)`."""
        shapes: dict[str, tuple[int, ...]] = {}
        for choice in self.choices:
            if choice.gate is None:
                shapes[choice.name] = () if choice.repeats == 1 else (choice.repeats,)
            else:
                gate = self._by_name[choice.gate]
                positions = int(max(gate.values))  # type: ignore[type-var]
                shapes[choice.name] = (positions,) if gate.repeats == 1 else (gate.repeats, positions)
            check_genes(choice.gate or choice.name, math.prod(shapes[choice.name]))
        return shapes

    @cached_property
    def columns(self) -> dict[str, Int[np.ndarray, "..."]]:
        """Choice name to the gene columns that hold it, in the choice's shape."""
        columns, start = {}, 0
        for name, shape in self.shapes.items():
            count = math.prod(shape)
            columns[name] = np.arange(start, start + count).reshape(shape)
            start += count
        return columns

    def column(self, name: str, group: int = 0, position: int = 0) -> int:
        """Returns the gene of a choice that a position of a stack of layers reads; see `network.Stack`."""
        columns, gate = self.columns[name], self._by_name[name].gate
        if gate is not None:
            return int(columns.reshape(-1, columns.shape[-1])[group, position])
        return int(columns.reshape(-1)[group if columns.size > 1 else 0])

    @cached_property
    def cardinalities(self) -> Int[np.ndarray, " g"]:
        """Number of values of each gene."""
        return np.concatenate(
            [np.full(self.columns[c.name].size, len(c.values), np.int32).reshape(-1) for c in self.choices]
        )

    @cached_property
    def member_columns(self) -> list[Int[np.ndarray, " g"]]:
        """For each member of an ensemble, its genes; one network is its only member. Those of members correspond."""
        return [np.arange(self.num_genes)]

    @property
    def num_genes(self) -> int:
        """Length of a gene vector."""
        return len(self.cardinalities)

    @cached_property
    def ordered(self) -> Bool[np.ndarray, " g"]:
        """Genes of which a later value makes a larger network."""
        each = [np.full(self.columns[choice.name].size, choice.ordered) for choice in self.choices]
        return np.concatenate(each)

    @cached_property
    def smallest(self) -> Architecture:
        """The architecture with the first value everywhere; where a choice has no order, the one of fewest MACs."""
        if self.ordered.all():
            return self.architecture(np.zeros(self.num_genes, np.int32))
        from search_spaces.extremes import lowest  # which is about spaces

        return self.architecture(lowest(self, self.cost, self._size_metric).genes)

    @cached_property
    def largest(self) -> Architecture:
        """The architecture with the last value everywhere; where a choice has no order, the one of most MACs."""
        if self.ordered.all():
            return self.deepest
        from search_spaces.extremes import highest

        return self.architecture(highest(self, self.cost, self._size_metric).genes)

    @property
    def _size_metric(self) -> str:
        return "macs" if "macs" in self.metrics else self.metrics[0]

    @cached_property
    def deepest(self) -> Architecture:
        """The architecture with the last value everywhere, of which all genes have a meaning."""
        return self.architecture(self.cardinalities - 1)

    @property
    def anchors(self) -> list[Architecture]:
        """Architectures of which some use what a gene governs, and stop using it when only this gene changes."""
        return [self.deepest]

    @property
    def covering(self) -> list[Architecture]:
        """Architectures that have all weights between them: the deepest, with each value of choices without order."""
        free = np.flatnonzero(~self.ordered)
        rows = np.tile(self.cardinalities - 1, (int(self.cardinalities[free].max(initial=1)), 1))
        rows[:, free] = np.minimum(np.arange(len(rows))[:, None], rows[:, free])
        return [self.architecture(row) for row in rows]

    @property
    def extremes(self) -> Genes:
        """Genes of the smallest architecture, then of the largest: int32[2, g]."""
        return np.array([self.smallest.genes, self.largest.genes], np.int32)

    @cached_property
    def size(self) -> int:
        """Exact number of distinct networks (canonical forms)."""
        total = 1
        gates = {choice.gate for choice in self.choices if choice.gate}
        for choice in self.choices:
            if choice.name in gates:
                per_position = math.prod(len(c.values) for c in self.choices if c.gate == choice.name)
                total *= sum(per_position ** int(depth) for depth in choice.values) ** choice.repeats
            elif choice.gate is None:
                total *= len(choice.values) ** choice.repeats
        return total

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the family and its settings; two spaces with equal fingerprints have the same networks.

        A setting that is None is left out, so that a family may get one more.
        """
        settings = dataclasses.asdict(self)  # type: ignore[call-overload]
        given = {name: value for name, value in settings.items() if value is not None}
        text = json.dumps([self.family, given], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    # ---------------------------------------------------------------- canonical form and membership

    def active(self, genes: Genes) -> Bool[np.ndarray, "a g"]:
        """Returns which genes mean something: False for positions beyond the sampled depth."""
        active = np.ones(genes.shape, bool)
        for choice in self.choices:
            if choice.gate is None:
                continue
            depths = np.asarray(self._by_name[choice.gate].values)[genes[:, self.columns[choice.gate]]]
            columns = self.columns[choice.name]
            active[:, columns] = np.arange(columns.shape[-1]) < depths[..., None]
        return active

    def canonical(self, genes: Genes) -> Genes:
        """Returns the canonical gene vector of each network: meaningless genes are 0."""
        genes = np.asarray(genes, np.int32)
        return np.where(self.active(genes), genes, 0).astype(np.int32)

    def isomorphic(self, genes: Genes) -> Genes:
        """Returns one gene vector for all networks that compute the same function after training alone.

        Their weights in a supernet may be different ones, so what works with a supernet tells them apart, as
        `canonical` does. What compares networks by a table of what they reach on their own may count each once.
        A family that knows of none returns the canonical form.
        """
        return self.canonical(genes)

    def contains(self, genes: Genes) -> Bool[np.ndarray, " a"]:
        """Returns which rows are gene vectors of this space."""
        genes = np.asarray(genes)
        return np.asarray(((genes >= 0) & (genes < self.cardinalities)).all(axis=1))

    def architecture(self, genes: Sequence[int] | Int[np.ndarray, " g"]) -> Architecture:
        """Returns the architecture that one gene vector denotes.

        Raises:
            UserError: The vector has another length or holds an index outside a choice's values.
        """
        row = np.asarray(genes, np.int64)
        if row.shape != (self.num_genes,):
            raise UserError(f"genes: shape {row.shape}, expected ({self.num_genes},). Use genes of this space.")
        bad = np.flatnonzero((row < 0) | (row >= self.cardinalities))
        if bad.size:
            i = int(bad[0])
            raise UserError(f"genes[{i}]: {row[i]} is outside 0..{self.cardinalities[i] - 1}. Use genes of this space.")
        canonical = self.canonical(row[None])[0]
        return Architecture(tuple(int(g) for g in canonical), self._describe(canonical))

    def _describe(self, genes: Int[np.ndarray, " g"]) -> JsonObject:
        active = self.active(genes[None])[0]

        def read(choice: Choice, columns: Any) -> Any:
            if columns.ndim == 0:
                return choice.values[genes[columns]]
            return [read(choice, c) for c in columns if c.ndim or active[c]]

        described = (choice for choice in self.choices if active[self.columns[choice.name]].any())
        return {choice.name: read(choice, self.columns[choice.name]) for choice in described}

    def encode(self, description: Mapping[str, Any]) -> Architecture:
        """Returns the architecture that a readable form denotes (the inverse of `Architecture.description`).

        Raises:
            UserError: A choice is missing, unknown, of the wrong length, has a value outside its list, or means nothing
                beside the values before it.
        """
        for name in description:
            if name not in self._by_name:
                raise UserError(f"architecture: {name!r} is no choice.{did_you_mean(name, self._by_name)}")
        genes = np.zeros(self.num_genes, np.int32)
        for choice in self.choices:
            columns, active = self.columns[choice.name], self.active(genes[None])[0]
            means = bool(active[columns].any())
            if means and choice.name not in description:
                raise UserError(f"architecture: {choice.name!r} is missing. Give one of {list(choice.values)}.")
            if not means and choice.name in description:
                raise UserError(f"architecture.{choice.name}: it means nothing beside the values before. Leave it out.")
            if means:
                self._write(genes, choice, columns, description[choice.name], active, choice.name)
        return self.architecture(genes)

    def _write(self, genes: np.ndarray, choice: Choice, columns: Any, given: Any, active: Any, where: str) -> None:
        if columns.ndim == 0:
            if given not in choice.values:
                raise UserError(f"architecture.{where}: {given!r} is outside {list(choice.values)}. Give one of these.")
            genes[columns] = choice.values.index(given)
            return
        kept = [column for column in columns if column.ndim or active[column]]
        if not isinstance(given, list | tuple) or len(given) != len(kept):
            raise UserError(f"architecture.{where}: {given!r} is not a list of {len(kept)}. Give one value each.")
        for i, (column, item) in enumerate(zip(kept, given, strict=True)):
            self._write(genes, choice, column, item, active, f"{where}[{i}]")

    def active_layers(self, architecture: Architecture) -> Iterator[Layer]:
        """Returns the layers of an architecture's network, in the order in which they run."""
        genes = architecture.genes

        def value(name: str, *at: int) -> Value:
            return self._by_name[name].values[genes[self.column(name, *at)]]

        known = {choice.name: value(choice.name) for choice in self.choices if choice.selects_program}
        for stack in (stack for stack in self.network.stacks if stack.there(known)):
            for index, position in enumerate(self._layer_positions(stack, genes)):
                if position >= 0:
                    yield Layer(stack, index, {name: value(name, stack.group, int(position)) for name in stack.choices})

    def _layer_positions(self, stack: Stack, genes: Sequence[int]) -> Sequence[int]:
        """The position of each layer of a stack; -1 for one that is off."""
        if stack.edges:
            return [edge.slots[genes[self.column(edge.choice)] if edge.choice else 0] for edge in stack.edges]
        depths = stack.depths({name: choice.values for name, choice in self._by_name.items()})
        row = genes[self.column(stack.depth, stack.group)] if stack.depth in self._by_name else 0
        return stack.positions_of(depths)[row].tolist()

    # ---------------------------------------------------------------- programs

    def program(self, genes: Sequence[int] | Int[np.ndarray, " g"]) -> Program:
        """Returns the values of the choices that select a compiled program (stream widths, resolution)."""
        return tuple(c.values[genes[int(self.columns[c.name])]] for c in self.choices if c.selects_program)

    @property
    def programs(self) -> int:
        """Number of compiled programs that the space can need."""
        return math.prod(len(c.values) for c in self.choices if c.selects_program)

    # ---------------------------------------------------------------- drawing

    def sample(self, rng: np.random.Generator, count: int) -> Genes:
        """Draws `count` architectures; every gene uniform over its values and independent of the others."""
        genes = rng.integers(0, self.cardinalities, size=(count, self.num_genes), dtype=np.int32)
        return self.canonical(genes)

    def mutate(
        self,
        rng: np.random.Generator,
        genes: Genes,
        probability: float,
        overrides: Mapping[str, float] | None = None,
    ) -> Genes:
        """Draws each gene anew with `probability` (or its choice's entry in `overrides`)."""
        rates = np.full(self.num_genes, probability)
        for name, rate in (overrides or {}).items():
            rates[self.columns[name]] = rate
        fresh = rng.integers(0, self.cardinalities, size=genes.shape, dtype=np.int32)
        return self.canonical(np.where(rng.random(genes.shape) < rates, fresh, genes))

    def crossover(self, rng: np.random.Generator, first: Genes, second: Genes) -> Genes:
        """Takes each gene from one of two parents with equal probability (uniform crossover)."""
        return self.canonical(np.where(rng.random(first.shape) < 0.5, first, second))

    def neighbours(self, genes: Int[np.ndarray, " g"]) -> Genes:
        """Returns all networks that differ in one active gene; a deeper one starts new layers at the first value."""
        genes = self.canonical(np.asarray(genes)[None])[0]
        rows = []
        for column in np.flatnonzero(self.active(genes[None])[0]):
            for value in range(self.cardinalities[column]):
                if value != genes[column]:
                    row = genes.copy()
                    row[column] = value
                    rows.append(row)
        if not rows:
            return np.zeros((0, self.num_genes), np.int32)
        return np.unique(self.canonical(np.stack(rows)), axis=0)
