"""A cell space in small: cells whose nodes are a tree of streams and whose edges choose an operation, all cells alike.

As in NAS-Bench-201 (Dong, Yang. ICLR 2020, arXiv:2001.00326), only narrower: `none` gives nothing, `skip` the node, and
`linear` a product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces import Choice, SearchSpace
from search_spaces.network import Alternatives, Network, Stack, Sublayer
from search_spaces.parts import linear
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import Params
from supernet.standalone import MODULES

EDGES = ((0, 1), (0, 2), (1, 2))
OPERATIONS = ("none", "skip", "linear")
WIDTH, CELLS = 4, 2


@dataclass(frozen=True)
class Cells(SearchSpace):
    """Two cells of three nodes."""

    family = "cells"

    image_size: int = 2
    channels: int = 3
    classes: int = 3

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return tuple(Choice(f"edge_{a}{b}", OPERATIONS, ordered=False) for a, b in EDGES)

    @cached_property
    def network(self) -> Network:
        positions = self.image_size**2

        def edge(name: str) -> Alternatives:
            parts = {"none": {}, "skip": {}, "linear": {"product": linear(WIDTH, WIDTH, positions)}}
            operations = {operation: Sublayer(f"{name}/{operation}", parts[operation]) for operation in OPERATIONS}
            return Alternatives(name, operations, path=name)

        outside = {"stem": linear(self.channels, WIDTH, positions), "head": linear(WIDTH, self.classes)}
        cell = (*(edge(choice.name) for choice in self.choices), Sublayer("close", {}))
        return Network(Sublayer("outside_layers", outside), (Stack("cells", cell, CELLS),))


class CellSupernet(ElasticNetwork):
    """Edges add to the node that they lead to; the last node becomes the first of the next cell."""

    space: Cells

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        def add(operation: str, a: int, b: int, params: Params, inputs: tuple, context: Context) -> tuple:
            nodes = list(inputs[0])
            own = params.get("product")
            update = nodes[a] if own is None else jnp.sin(nodes[a] @ own["kernel"] + own["bias"])
            nodes[b] = nodes[b] + update
            return tuple(nodes)

        def close(params: Params, inputs: tuple, context: Context) -> tuple:
            return _nodes(inputs[0][-1])

        edges = {
            f"edge_{a}{b}/{operation}": (Stage(partial(add, operation, a, b)),)
            for a, b in EDGES
            for operation in OPERATIONS[1:]
        }
        return {**edges, "close": (Stage(close),)}

    def embed(self, params: Params, x: jax.Array, context: Context) -> tuple:
        return _nodes(x @ params["stem"]["kernel"] + params["stem"]["bias"])

    def head(self, params: Params, x: tuple, context: Context) -> jax.Array:
        return jnp.sin(x[0]).mean(axis=(1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]

    def config(self, architecture: Any) -> dict[str, Any]:
        return {"edges": [architecture.description[choice.name] for choice in self.space.choices]}


def _nodes(first: jax.Array) -> tuple:
    return first, jnp.zeros_like(first), jnp.zeros_like(first)


class _Edge(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Dict(product=nnx.Linear(WIDTH, WIDTH, rngs=rngs))


class _Cell(nnx.Module):
    def __init__(self, edges: Sequence[str], rngs: nnx.Rngs) -> None:
        self.edges = tuple(edges)
        for (a, b), operation in zip(EDGES, edges, strict=True):
            if operation == "linear":
                setattr(self, f"edge_{a}{b}", _Edge(rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        nodes = list(_nodes(x))
        for (a, b), operation in zip(EDGES, self.edges, strict=True):
            if operation == "skip":
                nodes[b] += nodes[a]
            if operation == "linear":
                nodes[b] += jnp.sin(getattr(self, f"edge_{a}{b}").linear["product"](nodes[a]))
        return nodes[-1]


@MODULES.register("cells")
class PlainCells(nnx.Module):
    """The plain network.

    Args:
        edges: The operation of each.
    """

    def __init__(self, edges: Sequence[str], *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Linear(3, WIDTH, rngs=rngs)
        self.cells = nnx.List([_Cell(edges, rngs) for _ in range(CELLS)])
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x)
        return self.head(jnp.sin(x).mean(axis=(1, 2)))
