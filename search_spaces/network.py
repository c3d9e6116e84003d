"""Description of a network: weights declare their axes, axes the choices that size them, parts their products.

A family writes its description once. Costs, slices, initial shapes, masks and mixtures of weights, and the passes of
the supernet follow from it (`search_spaces.network_cost`, `supernet.engine.elastic_network`).

Paths of weights are joined by slashes: `attention/qkv/kernel`.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from search_spaces.choice import Choice, Value
from search_spaces.cost import Cost
from search_spaces.edges import Edge
from search_spaces.parts import CENTRE, Axis, Extent, Part, Product, Shape, Sizes, Values, flat, lengths


@dataclass(frozen=True, eq=False)
class Sublayer:
    """Part of a layer that is computed at one size: parts, and products between activations.

    Attributes:
        name: By which the family's stages are found.
        parts: By path.
        products: Products without weights, such as attention's.
        path: Path of the parts within a layer, whose stages see what lies there; "" for the layer itself.
        feed_forward: Paths of the parts that are the matrices of a feed-forward network, of which a sharing scheme may
            have several experts; none in other sublayers.
        option: Option that the sublayer is, where it is one of several; `Alternatives` sets it.
    """

    name: str
    parts: Mapping[str, Part]
    products: tuple[Product, ...] = ()
    path: str = ""
    feed_forward: tuple[str, ...] = ()
    option: "Option | None" = None

    @cached_property
    def weights(self) -> dict[str, Shape]:
        """Axes of all weights, by path."""
        return _flat(self.parts, "weights")

    @cached_property
    def statistics(self) -> dict[str, Shape]:
        """Axes of all batch statistics, by path."""
        return _flat(self.parts, "statistics")

    @cached_property
    def axes(self) -> dict[str, Axis]:
        """All elastic axes, by name."""
        return {axis.name: axis for axis in self.all_axes}

    @property
    def all_axes(self) -> Iterator[Axis]:
        """The elastic axes of weights and products, one as often as it occurs."""
        for shape in self.weights.values():
            yield from (axis for axis in flat(shape) if isinstance(axis, Axis))
        for rows, reads, writes in self.all_products:
            yield from (axis for axis in (rows, *reads, *writes) if isinstance(axis, Axis))

    @cached_property
    def all_products(self) -> tuple[Product, ...]:
        """Products of the parts, then those without weights."""
        return (*(product for part in self.parts.values() for product in part.products), *self.products)

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """Names of the choices that size something."""
        return tuple(dict.fromkeys(name for axis in self.all_axes for name in axis.choices))

    @property
    def columns(self) -> tuple[str, ...]:
        """Choices of the sublayer, and before them the choice that it is an option of."""
        return self.choices if self.option is None else (self.option.of.choice, *self.choices)

    def on(self, values: Values) -> bool:
        """Returns whether the element is computed: always, or if its option is chosen."""
        return self.option is None or values[self.option.of.choice] == self.option.value

    @cached_property
    def centred(self) -> tuple[str, ...]:
        """Choices whose axes all keep the centre, so that a stage selects their values inside."""
        sides = {name: {axis.keeps for axis in self.all_axes if name in axis.choices} for name in self.choices}
        return tuple(name for name, keeps in sides.items() if keeps == {CENTRE})

    def sizes(self, values: Values) -> dict[str, int]:
        """Returns the length of each axis."""
        return {name: axis.at(values) for name, axis in self.axes.items()}

    def cost(self, sizes: Sizes) -> Cost:
        """Parameters, multiply-adds and bytes of the outputs of products in fp32."""
        params = sum(math.prod(lengths(shape, sizes)) for shape in self.weights.values())
        counted = [[math.prod(lengths(axes, sizes)) for axes in ((p.rows,), *p[1:])] for p in self.all_products]
        return Cost(params, sum(map(math.prod, counted)), 4 * sum(rows * writes for rows, _, writes in counted))

    def slices(self, shape: Shape, sizes: Sizes, largest: Sizes) -> tuple[slice, ...]:
        """Returns the part of a weight at the largest sizes that a network of other sizes uses."""

        def inside(axis: Extent) -> slice:
            return slice(0, axis) if isinstance(axis, int) else axis.inside(sizes[axis.name], largest[axis.name])

        return tuple(map(inside, flat(shape)))


@dataclass(frozen=True, eq=False)
class Alternatives:
    """A choice between sublayers of different kinds, such as the operations on an edge, of which one is computed.

    Each takes and returns what has the shape of the stream. One without parts and stages is a connection that skips.

    Attributes:
        choice: Name of the choice, which has no order; its values are the names of the sublayers.
        sublayers: By value of the choice.
        path: Path within a layer; the parts of each sublayer lie at its value's name below, and its own path there.
    """

    choice: str
    sublayers: Mapping[str, Sublayer]
    path: str = ""

    @cached_property
    def options(self) -> tuple[Sublayer, ...]:
        """The sublayers as a layer has them."""
        return tuple(
            replace(s, path="/".join(filter(None, (self.path, value, s.path))), option=Option(self, value))
            for value, s in self.sublayers.items()
        )


class Option(NamedTuple):
    """One of the sublayers of a choice between them."""

    of: Alternatives
    value: str


@dataclass(frozen=True, eq=False)
class Stack:
    """Like layers, which run one after the other, each its sublayers in turn.

    Attributes:
        path: Path of their weights.
        elements: Sublayers of each layer, and choices between some; paths of their parts are inside a layer.
        layers: Number of layers, on a leading axis of the weights; None for one layer that is always on and has no such
            axis.
        group: Index of the layers' gene among those of a repeated depth, and of the choices that it gates.
        first: Position of the first one among the positions of the depth.
        depth: Name of the choice that says how many positions are on; all, where the space has none of this name.
        positions: For each value of the depth, the position of each layer, -1 for those that are off; by default the
            first layers are on.
        module: Path of the list of layers in the plain module, where several stacks may follow each other.
        parallel: The sublayers of a layer all read its input, instead of what the one before has made of it.
        handed_on: Names of entries of the stream, which is then a dict, that its layers either read and do not change,
            or change and do not compute with: they replace one by another. They are not kept for the backward pass,
            which sees them as the stack received them.
        when: Choices that select a program, and the values at which the stack is there; always, where empty.
        edges: Edge of each layer, where the layers are edges of a graph. The stream is then a
            `supernet.engine.views.Graph`, and the sublayers see a pair: the sum in the node that an edge adds to, and
            the node that it reads.
        reads: Nodes that the edges read: those that they add to as well (`nodes`), or others (`inputs`).
    """

    path: str
    elements: tuple[Sublayer | Alternatives, ...]
    layers: int | None = None
    group: int = 0
    first: int = 0
    depth: str = "depth"
    positions: Int[np.ndarray, "n l"] | None = None
    module: str | None = None
    parallel: bool = False
    handed_on: tuple[str, ...] = ()
    edges: tuple[Edge, ...] = ()
    reads: Literal["nodes", "inputs"] = "nodes"
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def there(self, values: Values) -> bool:
        """Whether networks with these values have the stack."""
        return all(values[name] in those for name, those in self.when.items())

    @property
    def slots(self) -> int:
        """Number of positions that its layers may be at, from 0."""
        if self.edges:
            return 1 + max(max(edge.slots) for edge in self.edges)
        if self.positions is not None:
            return 1 + int(self.positions.max())
        return self.first + (self.layers or 1)

    @cached_property
    def groups(self) -> list[tuple[Sublayer, ...]]:
        """The sublayers of a layer in turn; the options of a choice between some together."""
        return [each.options if isinstance(each, Alternatives) else (each,) for each in self.elements]

    @cached_property
    def sublayers(self) -> tuple[Sublayer, ...]:
        """All sublayers of a layer, options among them."""
        return tuple(itertools.chain.from_iterable(self.groups))

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """Names of the choices that size something in a layer, or choose between sublayers."""
        return tuple(dict.fromkeys(name for sublayer in self.sublayers for name in sublayer.columns))

    def depths(self, values: Mapping[str, Sequence[Value]]) -> Sequence[Value]:
        """Returns the values of the stack's depth, from the values of all choices."""
        return values.get(self.depth, (self.first + (self.layers or 1),))

    def positions_of(self, depths: Sequence[Value]) -> Int[np.ndarray, "n l"]:
        """Returns the position of each layer at each depth; -1 for a layer that is off."""
        if self.layers is None:
            return np.full((len(depths), 1), self.first, np.int32)
        if self.positions is not None:
            return self.positions
        positions = np.arange(self.first, self.first + self.layers)
        return np.where(positions < np.array(depths)[:, None], positions, -1).astype(np.int32)


class Layer(NamedTuple):
    """A layer of one architecture, in the order in which layers run.

    Attributes:
        stack: Stack of the layer.
        number: Index of the layer in the stack, from 0.
        values: Values of all choices there.
    """

    stack: Stack
    number: int
    values: dict[str, Value]


@dataclass(frozen=True, eq=False)
class Network:
    """A network: what embeds the input and reads the result, and layers between.

    Attributes:
        outside_layers: Parts outside the layers.
        stacks: In the order in which they run.
        head: Paths of the parts outside the layers that the head reads, and nothing else; an ensemble has them once a
            member.
    """

    outside_layers: Sublayer
    stacks: tuple[Stack, ...]
    head: tuple[str, ...] = ()

    @property
    def sublayers(self) -> Iterator[Sublayer]:
        """All sublayers, those outside the layers first."""
        yield self.outside_layers
        for stack in self.stacks:
            yield from stack.sublayers

    def values_per_statistic(self, choices: Sequence[Choice]) -> int:
        """Values of one example that a batch statistic averages, in the norm and the network where they are fewest."""
        values = {choice.name: choice.values for choice in choices}
        parts = [part for sublayer in self.sublayers for part in sublayer.parts.values() if part.statistics]
        found = [
            part.averages if isinstance(part.averages, int) else part.averages.at(combination)
            for part in parts
            for combination in combinations(part.averages, values)
        ]
        return min(found, default=1)


def _flat(parts: Mapping[str, Part], kind: str) -> dict[str, Shape]:
    return {
        f"{path}/{name}" if name else path: shape
        for path, part in parts.items()
        for name, shape in getattr(part, kind).items()
    }


def combinations(axis: Extent, values: Mapping[str, Sequence[Value]]) -> Iterator[dict[str, Value]]:
    """Returns all values of the choices that size an axis, together; one empty combination for a fixed extent."""
    choices = () if isinstance(axis, int) else axis.choices
    for combination in itertools.product(*(values[name] for name in choices)):
        yield dict(zip(choices, combination, strict=True))
