"""The NAS-Bench-201 space: every cell of four nodes, whose six edges choose one of five operations.

Counting convention: as for MobileNets, a batch norm has two parameters a channel, and multiply-adds are those of
convolutions and of the classifier. With 16 channels, 5 cells a stage and 10 classes parameters are the published ones
(0.073306, 0.028 a 1×1 and 0.24304 million a 3×3 convolution). The published FLOPs also count 2 a normalised, 1 an
activated and 9 a pooled value.

References:
    Dong, Yang. NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search. ICLR 2020,
    arXiv:2001.00326 (operations, skeleton, and 6,466 different cells among 15,625).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from search_spaces.choice import Choice
from search_spaces.errors import UserError, did_you_mean
from search_spaces.families import FAMILIES
from search_spaces.network import Alternatives, Network, Stack, Sublayer
from search_spaces.parts import Part, Product, batch_norm, linear
from search_spaces.space import Genes, SearchSpace
from search_spaces.template import SHARES, Template

NODES = 4
EDGES = tuple((target, source) for target in range(1, NODES) for source in range(target))
"""The edges, as node that is added to and node that is read, in the order of the published strings."""
OPERATIONS = ("none", "skip", "conv_1x1", "conv_3x3", "pool_3x3")
"""In the published order, where they are none, skip_connect, nor_conv_1x1, nor_conv_3x3 and avg_pool_3x3."""
TAPS = {"conv_1x1": 1, "conv_3x3": 9}


@FAMILIES.register("nas_bench_201")
@dataclass(frozen=True)
class NASBench201Space(SearchSpace):
    """Identical cells of four nodes. A node is the sum of its edges' operations on the nodes before it.

    Stem: 3×3 convolution and batch norm. Then stages of cells, and between stages a residual block that halves the
    sides and doubles the channels. Head: batch norm, ReLU, mean over positions, classifier. Operations: `none` adds
    nothing, `skip` the node, `conv_1x1` and `conv_3x3` are ReLU, convolution and batch norm, `pool_3x3` is the mean of
    a neighbourhood, without what lies beyond the edge.

    Args:
        width: Number of channels of the first stage.
        cells: Number of cells in each stage.
        edge_1_0: Candidate operations of the edge from node 0 to node 1.
        edge_2_0: Candidate operations of the edge from node 0 to node 2.
        edge_2_1: Candidate operations of the edge from node 1 to node 2.
        edge_3_0: Candidate operations of the edge from node 0 to node 3, the cell's output.
        edge_3_1: Candidate operations of the edge from node 1 to node 3.
        edge_3_2: Candidate operations of the edge from node 2 to node 3.
        stages: Number of stages.
        image_size: Number of pixels on a side of the input.
        channels: Number of channels of the input.
        classes: Number of outputs of the classifier.

    Raises:
        UserError: Sizes that are not positive, an unknown operation, or so many stages that the image vanishes.
    """

    family = "nas_bench_201"
    several_arenas = True
    template = Template(
        space="""\
  # Any field of the family can be set here, and then overrides the preset:
  width: 8                 # channels of the first stage; the published networks have 16, and 5 cells a stage
  # edge_1_0: [skip, conv_1x1, conv_3x3]     # operations of one edge
""",
        train="""\
  optimizer: {type: sgd, learning_rate: 0.025, weight_decay: 5.0e-4, momentum: 0.9, warmup_steps: 200, clip_norm: 5.0}
""",
        budgets=SHARES,
    )
    presets = {
        "small": {"width": 8, "cells": 1, "image_size": 16},
        "published": {"width": 16, "cells": 5},
    }

    width: int
    cells: int
    edge_1_0: tuple[str, ...] = OPERATIONS
    edge_2_0: tuple[str, ...] = OPERATIONS
    edge_2_1: tuple[str, ...] = OPERATIONS
    edge_3_0: tuple[str, ...] = OPERATIONS
    edge_3_1: tuple[str, ...] = OPERATIONS
    edge_3_2: tuple[str, ...] = OPERATIONS
    stages: int = 3
    image_size: int = 32
    channels: int = 3
    classes: int = 10

    def __post_init__(self) -> None:
        for name in ("width", "cells", "stages", "image_size", "channels", "classes"):
            if getattr(self, name) < 1:
                raise UserError(f"space.{name}: {getattr(self, name)} is less than 1. Give a positive size.")
        for choice in self.choices:
            for value in choice.values:
                if value not in OPERATIONS:
                    raise UserError(
                        f"space.{choice.name}: {value!r} is not known.{did_you_mean(str(value), OPERATIONS)}"
                    )
        if self.image_size < 2 ** (self.stages - 1):
            raise UserError(
                f"space.stages: {self.stages} stages halve {self.image_size} pixels {self.stages - 1} times, so the "
                f"image vanishes. Give at most {self.image_size.bit_length()}."
            )
        super().__post_init__()

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return tuple(Choice(name, getattr(self, name), ordered=False) for name in map(edge_name, EDGES))

    def stage_width(self, stage: int) -> int:
        """Channels of a stage."""
        return self.width * 2**stage

    def stage_size(self, stage: int) -> int:
        """Positions on a side of the maps of a stage."""
        return -(-self.image_size // 2**stage)

    # ---------------------------------------------------------------- description

    @cached_property
    def network(self) -> Network:
        last = self.stage_width(self.stages - 1)
        outside = {
            **convolution("stem", 9, self.channels, self.width, self.image_size**2),
            "final_norm": batch_norm(last, self.stage_size(self.stages - 1) ** 2),
            "classifier": linear(last, self.classes),
        }
        stacks = []
        for stage in range(self.stages):
            width, positions = self.stage_width(stage), self.stage_size(stage) ** 2
            if stage:
                narrow = self.stage_width(stage - 1)
                parts = {
                    **convolution("first", 9, narrow, width, positions),
                    **convolution("second", 9, width, width, positions),
                    "shortcut": linear(narrow, width, positions, bias=False),
                }
                stacks.append(Stack(f"reduction_{stage}", (Sublayer("reduction", parts),)))
            edges = (self._edge(choice, width, positions) for choice in self.choices)
            stacks.append(Stack(f"stage_{stage}/cells", (*edges, Sublayer("close", {})), self.cells))
        return Network(Sublayer("outside_layers", outside), tuple(stacks), ("final_norm", "classifier"))

    @staticmethod
    def _edge(choice: Choice, width: int, positions: int) -> Alternatives:
        def parts(operation: str) -> dict[str, Part]:
            return convolution("conv", TAPS[operation], width, width, positions) if operation in TAPS else {}

        operations = {str(value): Sublayer(f"{choice.name}/{value}", parts(str(value))) for value in choice.values}
        return Alternatives(choice.name, operations, path=choice.name)

    # ---------------------------------------------------------------- isomorphic cells

    def isomorphic(self, genes: Genes) -> Genes:
        """See `SearchSpace.isomorphic`: the first cell, in the order of genes, with the same expression.

        A cell's expression says of its output which operations are applied to what, in any order of the summands. An
        edge that skips stands for the node that it reads. An edge that is none is a zero, as is one that reads node 1
        where that is zero. That is the published convention, by which 15,625 cells are 6,466: zeros stay as summands.
        (Without them there are 5,390. But a convolution of zeros gives the bias of its batch norm, and counts.)
        """
        rows = self._operations(self.canonical(genes))
        first = [self._first[expression(row)] for row in rows.tolist()]
        return np.array(first, np.int32).reshape(-1, self.num_genes)

    @cached_property
    def _first(self) -> dict[str, tuple[int, ...]]:
        """The first genes of each expression."""
        first: dict[str, tuple[int, ...]] = {}
        every = np.array(list(np.ndindex(*self.cardinalities.tolist())), np.int32)
        for row, operations in zip(every.tolist(), self._operations(every).tolist(), strict=True):
            first.setdefault(expression(operations), tuple(row))
        return first

    def _operations(self, genes: Genes) -> Genes:
        """The index in `OPERATIONS` of each edge's operation."""
        columns = [np.array([OPERATIONS.index(str(value)) for value in choice.values]) for choice in self.choices]
        return np.stack([column[genes[:, i]] for i, column in enumerate(columns)], axis=1)


def edge_name(edge: tuple[int, int]) -> str:
    """Returns the name of the choice of an edge."""
    return f"edge_{edge[0]}_{edge[1]}"


def expression(operations: list[int]) -> str:
    """Writes out the function of a cell, given the index of the operation of each edge, in operation order of `EDGES`.

    Cells of one text are isomorphic (`NASBench201Space.isomorphic`).
    """
    nodes, of_edge = ["0"], iter(operations)
    for target in range(1, NODES):
        summands = []
        for source in range(target):
            operation = OPERATIONS[next(of_edge)]
            if operation == "none" or nodes[source] == "#":
                summands.append("#")
            else:
                summands.append(nodes[source] if operation == "skip" else f"({nodes[source]}){operation}")
        nodes.append("+".join(sorted(summands)))
    return nodes[-1]


def convolution(name: str, taps: int, reads: int, writes: int, positions: int) -> dict[str, Part]:
    """Returns a bias-free convolution, whose kernel is [taps, reads, writes], and its batch norm."""
    product = Product(positions, (taps, reads), (writes,))
    return {name: Part({"kernel": ((taps, reads), writes)}, (product,)), f"{name}_norm": batch_norm(writes, positions)}
