"""Views: what the sublayers of a layer see of the stream, and how it takes up what they make of it.

A view that is `paired` shows a pair, the sum so far and what is read; sublayers change nothing of it but the sum, to
which they add. So the read part is all that the backward pass needs of a pair.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from search_spaces.network import Stack
from supernet.weights.cuts import Tree

Index = int | Int[Array, ""]


class Graph(NamedTuple):
    """Stream of a stack whose layers are edges.

    Attributes:
        nodes: Nodes that edges add to, and may read: [n, b, ...].
        inputs: Nodes that edges only read, whose shape may be another one: [m, b, ...]; None without.
        carried: Whatever the edges leave as it is.
    """

    nodes: Float[Array, "n b ..."]
    inputs: Float[Array, "m b ..."] | None = None
    carried: Tree = None


@dataclass(frozen=True)
class View:
    """View of the whole stream, which sublayers replace."""

    @property
    def paired(self) -> bool:
        """Whether it shows a pair."""
        return False

    def enter(self, x: Tree, layer: Index) -> Tree:
        """Returns the part of the stream that the first sublayer of a layer takes."""
        del layer
        return x

    def leave(self, x: Tree, y: Tree, layer: Index) -> Tree:
        """Returns the stream behind a layer, from the one before it and what its last sublayer returned."""
        del x, layer
        return y

    def enter_back(self, g: Tree, layer: Index) -> Tree:
        """Returns the cotangent of the last sublayer's output, from the cotangent of the stream behind the layer."""
        del layer
        return g

    def leave_back(self, g: Tree, inner: Tree, layer: Index) -> Tree:
        """Returns the cotangent of the stream before a layer, from the one behind it and that of the first input."""
        del g, layer
        return inner


WHOLE = View()


@dataclass(frozen=True)
class Parallel(View):
    """View as a pair of the stream and itself: sublayers read the layer's input."""

    @property
    def paired(self) -> bool:
        return True

    def enter(self, x: Tree, layer: Index) -> Tree:
        return x, x

    def leave(self, x: Tree, y: Tree, layer: Index) -> Tree:
        return y[0]

    def enter_back(self, g: Tree, layer: Index) -> Tree:
        # The sum's cotangent is that of the layer's output; the other grows to that of its input.
        return g, g

    def leave_back(self, g: Tree, inner: Tree, layer: Index) -> Tree:
        return inner[1]


@dataclass(frozen=True)
class Edges(View):
    """View of one node of a `Graph` that an edge adds to, and of the one that it reads.

    Attributes:
        targets: Node that each layer adds to.
        sources: Node that each layer reads.
        reads: Kind of the nodes that are read.
    """

    @property
    def paired(self) -> bool:
        return True

    targets: tuple[int, ...]
    sources: tuple[int, ...]
    reads: Literal["nodes", "inputs"]

    @cached_property
    def _tables(self) -> tuple[jax.Array, jax.Array]:
        with jax.ensure_compile_time_eval():
            return jnp.asarray(self.targets, jnp.int32), jnp.asarray(self.sources, jnp.int32)

    def _ends(self, layer: Index) -> tuple[Index, Index]:
        if isinstance(layer, int):
            return self.targets[layer], self.sources[layer]
        targets, sources = self._tables
        return targets[layer], sources[layer]

    def enter(self, x: Graph, layer: Index) -> tuple[Float[Array, "b ..."], Float[Array, "b ..."]]:
        target, source = self._ends(layer)
        return x.nodes[target], getattr(x, self.reads)[source]

    def leave(self, x: Graph, y: Tree, layer: Index) -> Graph:
        return x._replace(nodes=x.nodes.at[self._ends(layer)[0]].set(y[0]))

    def enter_back(self, g: Graph, layer: Index) -> tuple[Float[Array, "b ..."], Float[Array, "b ..."]]:
        return g.nodes[self._ends(layer)[0]], jnp.zeros_like(getattr(g, self.reads)[0])

    def leave_back(self, g: Graph, inner: Tree, layer: Index) -> Graph:
        read = getattr(g, self.reads)
        return g._replace(**{self.reads: read.at[self._ends(layer)[1]].add(inner[1])})


def view_of(stack: Stack | None) -> View:
    """Returns the view that the sublayers of a stack have."""
    if stack is None:
        return WHOLE
    if stack.edges:
        targets, sources = (tuple(getattr(edge, end) for edge in stack.edges) for end in ("target", "source"))
        return Edges(targets, sources, stack.reads)
    return Parallel() if stack.parallel else WHOLE
