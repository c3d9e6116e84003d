"""Order by importance: heads, MLP units and channels are permuted so that prefixes hold what matters.

The permutation leaves the function unchanged. Layers stay where they are: their ranking is an order for the space
(`keep: ranked`).

References:
    Muralidharan et al. Compact Language Models via Pruning and Knowledge Distillation. NeurIPS 2024, arXiv:2407.14679.
    Differs: key-value heads move with all their queries, and queries within their group.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from supernet.importance import Importance
from supernet.language import along_stream
from supernet.supernet import Params


def reordered(params: Params, scores: Importance) -> Params:
    """The same network with its channels, heads and units in descending order of importance."""
    moves = permutation(params, scores)
    return jax.tree.map(lambda move, leaf: move(leaf), moves, params)


@dataclass(frozen=True)
class Moves:
    """Where the entries of one array go: orders along some of its axes, one after the other.

    Attributes:
        ndim: Of the array.
        orders: For each axis an order, with as many axes as the array, or of length 1 where all have the same.
    """

    ndim: int
    orders: tuple[tuple[Int[np.ndarray, "..."], int], ...] = ()

    def then(self, order: Int[np.ndarray, "..."], axis: int) -> "Moves":
        """These, and an order more."""
        return Moves(self.ndim, (*self.orders, (order, axis % self.ndim)))

    def of(self, part: slice) -> "Moves":
        """Those of a part of the first axis; nothing may move along it."""
        return Moves(self.ndim, tuple((order[part] if len(order) > 1 else order, axis) for order, axis in self.orders))

    def __call__(self, array: Any) -> Any:
        """The array with its entries moved; of NumPy or of JAX, as it was given."""
        take: Any = jnp.take_along_axis if isinstance(array, jax.Array) else np.take_along_axis
        for order, axis in self.orders:
            array = take(array, order, axis)
        return array


def permutation(params: Params, scores: Importance) -> Params:
    """The moves of each leaf that put what matters first, in the tree of the parameters.

    Args:
        params: Arrays, or anything that has as many axes.
        scores: Of the same network.
    """
    params = jax.tree.map(lambda leaf: Moves(len(leaf.shape)), params)
    channels = np.argsort(-scores.channels, kind="stable")
    params = along_stream(params, lambda moves, axis: moves.then(_beside(channels, moves.ndim, axis), axis))
    groups = np.argsort(-np.linalg.norm(scores.heads, axis=-1), axis=-1, kind="stable")
    heads = np.take_along_axis(scores.heads, groups[..., None], axis=1)
    queries = np.argsort(-heads, axis=-1, kind="stable")
    units = np.argsort(-scores.units, axis=-1, kind="stable")

    attention, mlp = params["layers"]["attention"], params["layers"]["mlp"]
    out, down = attention["out"], mlp["down"]
    attention = {
        **attention,
        "q": _by_layer(_by_layer(attention["q"], groups, -3), queries, -2),
        "k": _by_layer(attention["k"], groups, -2),
        "v": _by_layer(attention["v"], groups, -2),
        "out": {**out, "kernel": _by_layer(_by_layer(out["kernel"], groups, -4), queries, -3)},
    }
    inwards = {name: _by_layer(mlp[name], units, -1) for name in ("gate", "up") if name in mlp}
    mlp = {**mlp, **inwards, "down": {**down, "kernel": _by_layer(down["kernel"], units, -2)}}
    return {**params, "layers": {"attention": attention, "mlp": mlp}}


def _beside(order: Int[np.ndarray, " n"], ndim: int, axis: int) -> Int[np.ndarray, "..."]:
    """One order for all entries of the other axes."""
    shape = [1] * ndim
    shape[axis] = len(order)
    return order.reshape(shape)


def _by_layer(tree: Any, order: np.ndarray, axis: int) -> Any:
    """The moves of every leaf, and each layer's own order along an axis, counted from the end.

    Args:
        tree: Of leaves [l, ...].
        order: Int[l, ..., n]; what lies between are the axes before that one.
        axis: A negative number.
    """

    def then(moves: Moves) -> Moves:
        shape = [len(order)] + [1] * (moves.ndim - 1)
        last = moves.ndim + axis
        shape[last - order.ndim + 2 : last + 1] = order.shape[1:]
        return moves.then(order.reshape(shape), axis)

    return jax.tree.map(then, tree)
