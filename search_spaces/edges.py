"""Edges of a graph, as layers of a stack (`search_spaces.network.Stack`)."""

from typing import NamedTuple


class Edge(NamedTuple):
    """An edge of a graph, as one of the layers of a stack: it adds to one node what it makes of another one.

    Attributes:
        target: Node that it adds to.
        source: Node that it reads.
        slots: For each value of the choice, the position whose genes are the edge's, -1 where the edge is off.
        choice: Name of the choice that says which edges a node has; None for an edge with one slot, which is always on.
    """

    target: int
    source: int
    slots: tuple[int, ...]
    choice: str | None = None
