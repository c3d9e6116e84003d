"""Shapes of the same weights in a server's network and in a client's smaller one, and the slices between them.

Weights are flat dicts here: path to array, of a stack with layers on a leading axis. A client's network has the first
layers of the server's, and no axis that is longer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flax import traverse_util
from jaxtyping import Array, Float

from search_spaces import SearchSpace
from search_spaces.parts import CENTRE, flat, lengths
from supernet.weights.described import Weights

FlatWeights = Mapping[str, Float[Array, "..."]]
"""Path to weight."""


@dataclass(frozen=True)
class WeightShapes:
    """Shapes of one weight in both networks.

    Attributes:
        server: In the server's network; layers first, where it is `layered`.
        client: In the client's.
        layered: Whether the first axis is that of layers.
        taps: Axes of the same length in both, such as the three projections of attention, each entry of which is a
            matrix of its own.
    """

    server: tuple[int, ...]
    client: tuple[int, ...]
    layered: bool
    taps: tuple[int, ...] = ()

    @property
    def smaller(self) -> bool:
        """True where the weight of a layer has another shape at the client."""
        return self.server[self.layered :] != self.client[self.layered :]

    @property
    def plane(self) -> tuple[int, ...]:
        """Axes of the matrices that are compressed."""
        return tuple(axis for axis in range(self.layered, len(self.server)) if axis not in self.taps)

    @property
    def layers(self) -> int:
        """Layers of the client, 1 for a weight outside the layers."""
        return self.client[0] if self.layered else 1

    @property
    def kernel(self) -> tuple[int, int]:
        """Sides of the filter between the two shapes: D - d + 1 for each axis of the matrix."""
        sides = [self.server[axis] - self.client[axis] + 1 for axis in self.plane]
        rows, columns = [*sides, 1, 1][:2]
        return rows, columns

    @property
    def filters(self) -> int:
        """Number of matrices, each of which has a filter of its own."""
        return self.layers * math.prod(self.client[axis] for axis in self.taps)

    def sliced(self, weight: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the first entries of every axis: what a client of this size has in the supernet."""
        return weight[tuple(slice(0, length) for length in self.client)]


def is_compressible(space: SearchSpace) -> bool:
    """Returns whether the networks of a space are compressed to smaller ones of it.

    Their layers are then one stack of equal ones, of which smaller networks have the first; smaller weights are
    matrices or vectors, the first entries of larger ones; and there are no batch statistics.
    """
    if not space.divisible or space.network.stacks[0].positions is not None:
        return False
    sublayers = list(space.network.sublayers)
    centred = any(axis.keeps == CENTRE for sublayer in sublayers for axis in sublayer.axes.values())
    shapes = weight_shapes(space, space).values()
    return not centred and not any(s.statistics for s in sublayers) and all(len(of.plane) <= 2 for of in shapes)


def weight_shapes(server: SearchSpace, client: SearchSpace) -> dict[str, WeightShapes]:
    """Returns the shapes of all weights, by path.

    Args:
        server: Space whose largest network the server has.
        client: The same space with the sizes of the client's network.
    """
    found: dict[str, WeightShapes] = {}
    ours, theirs = Weights(server), Weights(client)
    for (stack, sublayer), (other_stack, other) in zip(ours.sublayers, theirs.sublayers, strict=True):
        sizes, others = sublayer.sizes(ours.largest), other.sizes(theirs.largest)
        layered = stack is not None and stack.layers is not None
        for path, shape in sublayer.weights.items():
            axes = flat(shape)
            inside = [isinstance(e, int) for entry in shape for e in (entry if isinstance(entry, tuple) else ("",))]
            of_server, of_client = lengths(axes, sizes), lengths(axes, others)
            if layered:
                assert stack is not None
                assert other_stack is not None
                of_server, of_client = (stack.layers or 1, *of_server), (other_stack.layers or 1, *of_client)
            taps = tuple(axis + layered for axis, tap in enumerate(inside) if tap)
            found[ours.path(stack, sublayer, path)] = WeightShapes(of_server, of_client, layered, taps)
    return found


def flattened(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a nested tree of weights as path to weight."""
    return traverse_util.flatten_dict(dict(weights), sep="/")


def nested(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Returns path to weight as the nested tree that a network takes."""
    return traverse_util.unflatten_dict(dict(weights), sep="/")
