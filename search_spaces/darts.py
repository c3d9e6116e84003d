"""The DARTS space: a normal and a reduction cell, whose nodes each choose two inputs and an operation for each.

Counting convention: as for MobileNets, a batch norm has two parameters a channel, and multiply-adds are those of
convolutions and of the classifier; the auxiliary head of published trainings is no part of a network.

References:
    Liu, Simonyan, Yang. DARTS: Differentiable Architecture Search. ICLR 2019, arXiv:1806.09055 (operations, cells,
    skeleton).
    Differs: which two inputs a node has is a choice of its own, where DARTS keeps those whose operation weighs most; a
    supernet has no operation `none`, and no batch norm behind poolings.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from search_spaces.architecture import Architecture
from search_spaces.choice import Choice
from search_spaces.darts_isomorphism import first_of_isomorphic
from search_spaces.edges import Edge
from search_spaces.errors import UserError, did_you_mean
from search_spaces.families import FAMILIES
from search_spaces.network import Alternatives, Network, Stack, Sublayer
from search_spaces.parts import Part, Product, batch_norm, linear
from search_spaces.space import Genes, SearchSpace
from search_spaces.template import SHARES, Template

OPERATIONS = (
    "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "max_pool_3x3", "avg_pool_3x3", "skip_connect",
)  # fmt: skip
"""The published names, without `none`, which is no part of an architecture."""
SIDES = {"sep_conv_3x3": 3, "sep_conv_5x5": 5, "dil_conv_3x3": 3, "dil_conv_5x5": 5}
"""Side of the kernel of each convolution."""
INPUTS, MOST_NODES = 2, 4
KINDS = ("normal", "reduction")
STRIDED = "strided/"
"""Before the names of operations that read a cell's inputs and halve their sides."""

Genotype = Mapping[str, tuple[tuple[str, int], ...]]
"""By kind of cell, operation and input of each edge: two of each node, in the order of the nodes."""


def pairs_of(node: int) -> tuple[str, ...]:
    """Returns the names of the pairs of inputs that a node chooses from; nodes 0 and 1 are the cell's inputs."""
    return tuple(f"{a}+{b}" for a, b in itertools.combinations(range(node), 2))


@FAMILIES.register("darts")
@dataclass(frozen=True)
class DARTSSpace(SearchSpace):
    """Cells of two kinds; each node is the sum of two operations on two different nodes before it.

    Stem: 3×3 convolution and batch norm. Then cells, of which those at a third and at two thirds are reduction cells,
    which double the channels and halve the sides; the others are normal ones, all alike. A cell reads the outputs of
    the two cells before it (nodes 0 and 1), each through ReLU, 1×1 convolution and batch norm, and gives the
    concatenation of its other nodes. Head: mean over positions, classifier. Operations: `sep_conv` is twice ReLU,
    depthwise and 1×1 convolution and batch norm, `dil_conv` once, with every second position read; `max_pool` and
    `avg_pool` leave out what lies beyond the edge; `skip_connect` is the node itself, or, where sides are halved, ReLU,
    two 1×1 convolutions of every second position and batch norm.

    Args:
        width: Number of channels of the first cell's nodes.
        cells: Number of cells, 3 or more.
        nodes: Number of nodes of a cell, 1 to 4.
        normal_3_inputs: Candidate pairs of inputs of node 3 in normal cells; node 2 reads nodes 0 and 1.
        normal_4_inputs: Candidate pairs of inputs of node 4.
        normal_5_inputs: Candidate pairs of inputs of node 5.
        normal_operations: Candidate operations of each edge in normal cells.
        reduction_3_inputs: Candidate pairs of inputs of node 3 in reduction cells.
        reduction_4_inputs: Candidate pairs of inputs of node 4.
        reduction_5_inputs: Candidate pairs of inputs of node 5.
        reduction_operations: Candidate operations of each edge in reduction cells.
        stem_multiplier: Ratio of the stem's channels to `width`.
        image_size: Number of pixels on a side of the input.
        channels: Number of channels of the input.
        classes: Number of outputs of the classifier.

    Raises:
        UserError: Sizes out of range, an unknown operation or pair, or no convolution among the operations.
    """

    family = "darts"
    several_arenas = True
    template = Template(
        space="""\
  # Any field of the family can be set here, and then overrides the preset:
  width: 8                 # channels of the first nodes; published: 36, and 20 cells
  cells: 5                 # reductions at a third and at two thirds
  # nodes: 2               # of a cell; published: 4
  # normal_operations: [sep_conv_3x3, dil_conv_3x3, max_pool_3x3, skip_connect]
""",
        train="""\
  optimizer: {type: sgd, learning_rate: 0.025, weight_decay: 3.0e-4, momentum: 0.9, warmup_steps: 200, clip_norm: 5.0}
""",
        budgets=SHARES,
    )
    presets = {
        "small": {"width": 8, "cells": 5, "image_size": 16},
        "search": {"width": 16, "cells": 8},
        "published": {"width": 36, "cells": 20},
    }

    width: int
    cells: int
    nodes: int = MOST_NODES
    normal_3_inputs: tuple[str, ...] = pairs_of(3)
    normal_4_inputs: tuple[str, ...] = pairs_of(4)
    normal_5_inputs: tuple[str, ...] = pairs_of(5)
    normal_operations: tuple[str, ...] = OPERATIONS
    reduction_3_inputs: tuple[str, ...] = pairs_of(3)
    reduction_4_inputs: tuple[str, ...] = pairs_of(4)
    reduction_5_inputs: tuple[str, ...] = pairs_of(5)
    reduction_operations: tuple[str, ...] = OPERATIONS
    stem_multiplier: int = 3
    image_size: int = 32
    channels: int = 3
    classes: int = 10

    def __post_init__(self) -> None:
        for name in ("width", "stem_multiplier", "channels", "classes"):
            if getattr(self, name) < 1:
                raise UserError(f"space.{name}: {getattr(self, name)} is less than 1. Give a positive size.")
        for name, least, why in (("cells", 3, "so that there are normal cells"), ("image_size", 4, "halved twice")):
            if getattr(self, name) < least:
                raise UserError(
                    f"space.{name}: {getattr(self, name)} is less than {least}. Give {least} or more, {why}."
                )
        if not 1 <= self.nodes <= MOST_NODES:
            raise UserError(f"space.nodes: {self.nodes} is outside 1 to {MOST_NODES}. Give one of these.")
        for kind in KINDS:
            self._check_kind(kind)
        super().__post_init__()

    def _check_kind(self, kind: str) -> None:
        for node in range(INPUTS + 1, INPUTS + MOST_NODES):
            self._check_names(f"{kind}_{node}_inputs", pairs_of(node))
            if node >= INPUTS + self.nodes and self._inputs(kind, node) != pairs_of(node):
                raise UserError(
                    f"space.{kind}_{node}_inputs: a cell of {self.nodes} nodes has no node {node}. Leave it "
                    f"out, or set nodes to {node - 1}."
                )
        self._check_names(f"{kind}_operations", OPERATIONS)
        given = self.operations(kind)
        if given and not set(given) & set(SIDES):
            raise UserError(
                f"space.{kind}_operations: {list(given)} has no convolution, so there is nothing to train. Add one of "
                f"{', '.join(SIDES)}."
            )

    def _check_names(self, field: str, known: Sequence[str]) -> None:
        for value in getattr(self, field):
            if value not in known:
                raise UserError(f"space.{field}: {value!r} is not known.{did_you_mean(str(value), known)}")

    # ---------------------------------------------------------------- choices

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        found = []
        for kind in KINDS:
            for node in self._choosing:
                found.append(Choice(f"{kind}_{node}_inputs", self._inputs(kind, node), ordered=False))
            edges = 2 * self.nodes
            found.append(Choice(f"{kind}_operations", self.operations(kind), repeats=edges, ordered=False))
        return tuple(found)

    @property
    def _choosing(self) -> range:
        """Nodes that choose their inputs."""
        return range(INPUTS + 1, INPUTS + self.nodes)

    def operations(self, kind: str) -> tuple[str, ...]:
        """Returns the operations that the edges of a kind of cell choose from."""
        return getattr(self, f"{kind}_operations")

    def _inputs(self, kind: str, node: int) -> tuple[str, ...]:
        return getattr(self, f"{kind}_{node}_inputs")

    def column(self, name: str, group: int = 0, position: int = 0) -> int:
        """See `SearchSpace.column`: of the operations, the positions are the edges, two a node."""
        columns = self.columns[name]
        return int(columns[position]) if columns.ndim else int(columns)

    @cached_property
    def covering(self) -> list[Architecture]:  # type: ignore[override]
        """See `SearchSpace.covering`: each operation with weights on all edges, by few pairs of inputs."""
        return self._covering(False)

    @cached_property
    def anchors(self) -> list[Architecture]:  # type: ignore[override]
        """See `SearchSpace.anchors`: as `covering`, but that an edge is both the first and the second of its node."""
        return self._covering(True)

    def _covering(self, by_slot: bool) -> list[Architecture]:
        covers = {column: self._cover(kind, node, by_slot) for kind, node, column in self._choosers}
        weighty = {kind: [o for o in self.operations(kind) if self._parts(o, 1, 1, kind)] for kind in KINDS}
        rows = []
        for turn in range(max(map(len, covers.values()), default=1)):
            for number in range(max(map(len, weighty.values()))):
                row = np.zeros(self.num_genes, np.int32)
                for column, values in covers.items():
                    row[column] = values[min(turn, len(values) - 1)]
                for kind, operations in weighty.items():
                    operation = operations[min(number, len(operations) - 1)]
                    row[self.columns[f"{kind}_operations"]] = self.operations(kind).index(operation)
                rows.append(row)
        return [self.architecture(row) for row in rows]

    @property
    def _choosers(self) -> Iterator[tuple[str, int, int]]:
        """Kind, node and gene of each choice of inputs."""
        for kind in KINDS:
            yield from ((kind, node, self.column(f"{kind}_{node}_inputs")) for node in self._choosing)

    def _cover(self, kind: str, node: int, by_slot: bool) -> list[int]:
        """Few values of a choice of inputs that have every input that any value has, in each slot if `by_slot`."""
        found: list[int] = []
        pairs = [list(enumerate(value.split("+"))) for value in self._inputs(kind, node)]
        held = [{(slot * by_slot, source) for slot, source in pair} for pair in pairs]
        left = set().union(*held)
        while left:  # each time the one of most new ones
            found.append(max(range(len(held)), key=lambda i: len(held[i] & left)))
            left -= held[found[-1]]
        return found

    # ---------------------------------------------------------------- genotypes

    def genotype(self, architecture: Architecture) -> Genotype:
        """Returns an architecture in the published form: operation and input of each edge."""
        found = {}
        for kind in KINDS:
            operations = architecture.description[f"{kind}_operations"]
            chosen = [architecture.description[f"{kind}_{node}_inputs"] for node in self._choosing]
            inputs = [int(number) for pair in ("0+1", *chosen) for number in pair.split("+")]
            found[kind] = tuple(zip(operations, inputs, strict=True))
        return found

    def of_genotype(self, genotype: Genotype) -> Architecture:
        """Returns the architecture of a genotype, in which the two edges of a node may stand in either order.

        Raises:
            UserError: The genotype has too few or too many edges, or an operation or a pair of inputs that the space
                lacks.
        """
        description: dict[str, object] = {}
        for kind in KINDS:
            edges = list(genotype[kind])
            if len(edges) != 2 * self.nodes:
                raise UserError(
                    f"genotype.{kind}: {len(edges)} edges, expected {2 * self.nodes}: two for each of {self.nodes} "
                    "nodes. Give these."
                )
            ordered = [sorted(edges[i : i + 2], key=lambda edge: edge[1]) for i in range(0, len(edges), 2)]
            description[f"{kind}_operations"] = [operation for both in ordered for operation, _ in both]
            for node, both in enumerate(ordered, INPUTS):
                pair = "+".join(str(source) for _, source in both)
                if node in self._choosing:
                    description[f"{kind}_{node}_inputs"] = pair
                elif pair != "0+1":
                    raise UserError(f"genotype.{kind}: node {node} reads {pair}. Give it 0 and 1.")
        return self.encode(description)

    def isomorphic(self, genes: Genes) -> Genes:
        """See `SearchSpace.isomorphic`: of each kind, the first cell that differs in the numbers of its nodes alone.

        The order of a node's two edges is no part of the genes. The order of nodes only permutes the channels of a
        cell's output.
        """
        genes = self.canonical(genes)
        for kind in KINDS:
            inputs = [(self.columns[f"{kind}_{node}_inputs"], self._inputs(kind, node)) for node in self._choosing]
            genes = first_of_isomorphic(genes, inputs, self.columns[f"{kind}_operations"])
        return genes

    # ---------------------------------------------------------------- geometry

    def reduces(self, cell: int) -> bool:
        """Returns whether a cell is a reduction cell."""
        return cell in (self.cells // 3, 2 * self.cells // 3)

    def cell_width(self, cell: int) -> int:
        """Returns the number of channels of the nodes of a cell."""
        return self.width * 2 ** sum(map(self.reduces, range(cell + 1)))

    def cell_size(self, cell: int) -> int:
        """Returns the number of positions on a side of the maps of a cell's output; cell -1 is the stem."""
        return -(-self.image_size // 2 ** sum(map(self.reduces, range(cell + 1))))

    def out_width(self, cell: int) -> int:
        """Returns the number of channels of a cell's output; negative cells are the stem."""
        return self.nodes * self.cell_width(cell) if cell >= 0 else self.stem_multiplier * self.width

    # ---------------------------------------------------------------- description

    @cached_property
    def network(self) -> Network:
        stem = self.out_width(-1)
        kernel = Part(
            {"kernel": ((9, self.channels), stem)}, (Product(self.image_size**2, (9, self.channels), (stem,)),)
        )
        last = self.cells - 1
        outside = {
            "stem": kernel,
            "stem_norm": batch_norm(stem, self.image_size**2),
            "classifier": linear(self.out_width(last), self.classes),
        }
        stacks = [stack for cell in range(self.cells) for stack in self._cell(cell)]
        return Network(Sublayer("outside_layers", outside), tuple(stacks))

    def _cell(self, cell: int) -> Iterator[Stack]:
        """Yields the stacks of a cell: preparation of its inputs, its edges, and concatenation of its nodes."""
        path, width, reduces = f"cell_{cell}", self.cell_width(cell), self.reduces(cell)
        halved = cell > 0 and self.reduces(cell - 1)  # the cell before the last one gives maps of twice the sides
        positions = self.cell_size(cell - 1) ** 2
        parts = {
            **_convolution("second", self.out_width(cell - 1), width, positions),
            **(_halving if halved else _convolution)("first", self.out_width(cell - 2), width, positions),
        }
        name = f"enter/{'reduction' if reduces else 'normal'}{'/halved' if halved else ''}"
        yield Stack(path, (Sublayer(name, parts),))
        kind, positions = KINDS[reduces], self.cell_size(cell) ** 2
        from_inputs, between = self._edges(kind)
        if reduces:
            operations = self._alternatives(kind, width, positions, STRIDED)
            yield self._edges_of(f"{path}/strided/edges", path, from_inputs, INPUTS, 0, operations, "inputs")
            shift = INPUTS
        else:
            between, shift = (*from_inputs, *between), 0
        if between:
            operations = self._alternatives(kind, width, positions, "")
            yield self._edges_of(f"{path}/edges", path, between, shift, shift, operations, "nodes")
        yield Stack(path, (Sublayer("close", {}),))

    def _edges(self, kind: str) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
        """Edges from the cell's inputs, then those between its nodes; none that no value of a choice has."""
        found: tuple[list[Edge], list[Edge]] = [], []
        for target in range(INPUTS, INPUTS + self.nodes):
            choice = f"{kind}_{target}_inputs" if target in self._choosing else None
            pairs = [tuple(map(int, pair.split("+"))) for pair in (self._inputs(kind, target) if choice else ("0+1",))]
            for source in range(target):
                first = 2 * (target - INPUTS)
                slots = tuple(first + pair.index(source) if source in pair else -1 for pair in pairs)
                if max(slots) >= 0:
                    found[source >= INPUTS].append(Edge(target, source, slots, choice))
        return tuple(found[0]), tuple(found[1])

    @staticmethod
    def _edges_of(
        path: str, cell: str, edges: Sequence[Edge], before_target: int, before_source: int, operations: Alternatives,
        reads: str,
    ) -> Stack:  # fmt: skip
        moved = tuple(e._replace(target=e.target - before_target, source=e.source - before_source) for e in edges)
        return Stack(path, (operations,), len(moved), module=f"{cell}/edges", edges=moved, reads=reads)  # type: ignore[arg-type]

    def _alternatives(self, kind: str, width: int, positions: int, strided: str) -> Alternatives:
        operations = {
            name: Sublayer(
                f"{strided}{name}", self._parts(name, width, positions, "reduction" if strided else "normal")
            )
            for name in self.operations(kind)
        }
        return Alternatives(f"{kind}_operations", operations)

    @staticmethod
    def _parts(operation: str, width: int, positions: int, kind: str) -> dict[str, Part]:
        """Parts of an operation; those of `reduction` read maps of twice the sides."""
        if operation == "skip_connect":
            return _halving("skip", width, width, positions) if kind == "reduction" else {}
        if operation not in SIDES:
            return {}
        taps = SIDES[operation] ** 2
        names = ("first", "second") if operation.startswith("sep") else ("dilated",)
        return {
            path: part
            for name in names
            for path, part in {
                f"{name}_depthwise": Part({"kernel": ((taps, 1), width)}, (Product(positions, (taps,), (width,)),)),
                **_convolution(name, width, width, positions),
            }.items()
        }


def _convolution(name: str, reads: int, writes: int, positions: int) -> dict[str, Part]:
    """A bias-free 1×1 convolution and its batch norm."""
    return {name: linear(reads, writes, positions, bias=False), f"{name}_norm": batch_norm(writes, positions)}


def _halving(name: str, reads: int, writes: int, positions: int) -> dict[str, Part]:
    """Two bias-free 1×1 convolutions, of even and of odd positions, to half of the channels each, and a batch norm."""
    return {
        f"{name}_even": linear(reads, writes // 2, positions, bias=False),
        f"{name}_odd": linear(reads, writes - writes // 2, positions, bias=False),
        f"{name}_norm": batch_norm(writes, positions),
    }
