"""Embedding: the weights of a standalone network put where its supernet keeps them, the inverse of extraction."""

import jax
import jax.numpy as jnp
import numpy as np

from search_spaces import Architecture
from supernet.engine.supernet import Params, Statistics, Supernet

_NOWHERE = -1


def embed(net: Supernet, weights: Params, architecture: Architecture) -> Params:
    """Returns full-size weights that contain a standalone network as a subnet; all other weights are 0.

    With them `net.apply` computes that network and nothing else, and a gradient step keeps it so: what lies outside has
    an exactly zero gradient, and decay leaves zeros as they are. This is how a network is trained on its own by
    programs that are compiled already.

    Args:
        net: A supernet whose sharing leaves weights as they are (`entangled`).
        weights: State of the plain module, in the structure of `net.slice`. Batch statistics in it are left out.
        architecture: Architecture of the network.
    """
    # Statistics are no weights and have no place among them.
    places = net.slice(_numbered(net.plain_shapes), architecture, _nowhere(net.statistics_shapes))
    return _put(net.plain_shapes, places, weights)


def embed_statistics(net: Supernet, weights: Params, architecture: Architecture) -> Statistics:
    """Returns full-size batch statistics that contain those of a standalone network; all others are 0.

    With these and what `embed` gives, extraction returns the network, bit for bit.

    Args:
        net: As in `embed`.
        weights: State of the plain module, batch statistics among it.
        architecture: Architecture of the network.

    Returns:
        Statistics as `net.apply` collects them; an empty tree for families without any.
    """
    places = net.slice(_nowhere(net.plain_shapes), architecture, _numbered(net.statistics_shapes))
    return _put(net.statistics_shapes, places, weights)


def owned(net: Supernet, architecture: Architecture) -> Params:
    """Returns which full-size weights a network has: true in the tree of `embed`, also where the weight is 0.

    Args:
        net: As in `embed`.
        architecture: Architecture of the network.
    """
    numbered = _numbered(net.plain_shapes)
    places = net.slice(numbered, architecture, _nowhere(net.statistics_shapes))
    flat = np.zeros(_starts(net.plain_shapes)[-1], bool)
    for at in jax.tree.leaves(places):
        flat[at[at != _NOWHERE]] = True
    return jax.tree.map(lambda numbers: flat[numbers], numbered)


def _starts(shapes: Params) -> np.ndarray:
    return np.cumsum([0, *(leaf.size for leaf in jax.tree.leaves(shapes))])


def _numbered(shapes: Params) -> Params:
    """The tree with the number of each entry. A slice of it, which only picks entries, says where each weight lives."""
    leaves, structure = jax.tree.flatten(shapes)
    starts = _starts(shapes)[:-1]
    numbers = [
        np.arange(start, start + leaf.size).reshape(leaf.shape) for start, leaf in zip(starts, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, numbers)


def _nowhere(shapes: Params) -> Params:
    return jax.tree.map(lambda leaf: np.full(leaf.shape, _NOWHERE), shapes)


def _put(shapes: Params, places: Params, values: Params) -> Params:
    """Returns a tree of these shapes and types with the values at their places, and zeros elsewhere."""
    leaves, structure = jax.tree.flatten(shapes)
    starts = _starts(shapes)
    flat = np.zeros(starts[-1], np.float32)  # which holds int8 exactly too

    def put(at: np.ndarray, part: jax.Array) -> None:
        if at.size and at.flat[0] != _NOWHERE:
            flat[at] = part

    jax.tree.map(put, places, values)
    full = [
        jnp.asarray(flat[start : start + leaf.size].reshape(leaf.shape).astype(leaf.dtype))
        for start, leaf in zip(starts[:-1], leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, full)
