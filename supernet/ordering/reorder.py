"""Order by importance in language models: heads, MLP units and channels are moved so that prefixes hold what matters.

The permutation leaves the function unchanged. Layers stay where they are: their ranking is an order for the space
(`keep: ranked`).

References:
    Muralidharan et al. Compact Language Models via Pruning and Knowledge Distillation. NeurIPS 2024, arXiv:2407.14679.
    Differs: key-value heads move with all their queries, and queries within their group.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from search_spaces import SearchSpace
from search_spaces.parts import flat
from supernet.engine.supernet import Params
from supernet.ordering.importance import Importance
from supernet.weights.cuts import put
from supernet.weights.described import Weights

_LAYER = "layer"


def reordered(space: SearchSpace, params: Params, scores: Importance) -> Params:
    """Reorders the channels, heads and units of a network by descending importance."""
    moves = permutation(space, scores)
    return jax.tree.map(lambda move, leaf: move(leaf), moves, params)


@dataclass(frozen=True)
class Moves:
    """Permutations of the entries of one array, along some of its axes, one after the other.

    Attributes:
        ndim: Axes of the array.
        orders: For each axis an order, with as many axes as the array, or of length 1 where all have the same.
    """

    ndim: int
    orders: tuple[tuple[Int[np.ndarray, "..."], int], ...] = ()

    def of(self, part: slice) -> "Moves":
        """Restricts the moves to a part of the first axis; nothing may move along it."""
        return Moves(self.ndim, tuple((order[part] if len(order) > 1 else order, axis) for order, axis in self.orders))

    def __call__(self, array: Any) -> Any:
        """The array with its entries moved; of NumPy or of JAX, as it was given."""
        take: Any = jnp.take_along_axis if isinstance(array, jax.Array) else np.take_along_axis
        for order, axis in self.orders:
            array = take(array, order, axis)
        return array


def permutation(space: SearchSpace, scores: Importance) -> Params:
    """Returns the permutations of each weight that sort by importance, in the tree of the parameters.

    Args:
        space: Space whose description names the axes of the weights.
        scores: Importance of the axes' entries.
    """
    orders, moves = _orders(scores), {}
    for path, names in _named_axes(space):
        found = [move for over, order in orders.items() for move in _along(order, over, names)]
        put(moves, path, Moves(len(names), tuple(found)))
    return moves


def _orders(scores: Importance) -> dict[tuple[str, ...], Int[np.ndarray, "..."]]:
    """Descending orders of the last named axis, for each entry of the axes before it, in the order to apply them."""

    def descending(scores: np.ndarray) -> np.ndarray:
        return np.argsort(-scores, axis=-1, kind="stable")

    groups = descending(np.linalg.norm(scores.heads, axis=-1))
    return {
        ("width",): descending(scores.channels),
        (_LAYER, "kv_heads"): groups,
        (_LAYER, "kv_heads", "queries"): descending(np.take_along_axis(scores.heads, groups[..., None], axis=1)),
        (_LAYER, "mlp_width"): descending(scores.units),
    }


def _named_axes(space: SearchSpace) -> Iterator[tuple[str, list[str]]]:
    """Path of each weight, and the name of each of its axes; empty for one of fixed length."""
    for stack, sublayer in Weights(space).sublayers:
        above = (sublayer.path,) if stack is None else (stack.path, sublayer.path)
        for path, shape in sublayer.weights.items():
            names = [getattr(axis, "name", "") for axis in flat(shape)]
            layers = [_LAYER] if stack is not None and stack.layers is not None else []
            yield "/".join(filter(None, (*above, path))), layers + names


def _along(
    order: Int[np.ndarray, "..."], over: tuple[str, ...], names: list[str]
) -> Iterator[tuple[Int[np.ndarray, "..."], int]]:
    """The order of an axis, for each axis of that name, shaped to broadcast against the weight."""
    *outer, last = over
    for axis in (i for i, name in enumerate(names) if name == last):
        shape = [1] * len(names)
        for name, length in zip(outer, order.shape, strict=False):
            shape[names.index(name)] = length
        shape[axis] = order.shape[-1]
        yield order.reshape(shape), axis
