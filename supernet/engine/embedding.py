"""Embedding: the weights of a standalone network put where its supernet keeps them, the inverse of extraction."""

import jax
import jax.numpy as jnp
import numpy as np

from search_spaces import Architecture
from supernet.engine.supernet import Params, Supernet


def embed(net: Supernet, weights: Params, architecture: Architecture) -> Params:
    """Full-size weights whose subnet is the given standalone network; all weights outside it are 0.

    With them `net.apply` computes that network and nothing else, and a gradient step keeps it so: what lies outside has
    an exactly zero gradient, and decay leaves zeros as they are. This is how a network is trained on its own by
    programs that are compiled already.

    Args:
        net: A supernet whose sharing leaves weights as they are (`entangled`).
        weights: State of the plain module, in the structure of `net.slice`. Batch statistics in it are left out.
        architecture: Of the network.
    """
    leaves, structure = jax.tree.flatten(net.plain_shapes)
    starts = np.cumsum([0, *(leaf.size for leaf in leaves)])
    # Slicing only picks entries, so a slice of the entries' numbers says where each weight lives.
    numbers = [
        np.arange(start, start + leaf.size).reshape(leaf.shape) for start, leaf in zip(starts[:-1], leaves, strict=True)
    ]
    # Statistics are no weights and have no place among them.
    nowhere = jax.tree.map(lambda leaf: np.full(leaf.shape, -1), net.statistics_shapes)
    places = net.slice(jax.tree.unflatten(structure, numbers), architecture, nowhere)
    flat = np.zeros(starts[-1], np.float32)

    def put(at: np.ndarray, values: jax.Array) -> None:
        if at.size and at.flat[0] >= 0:
            flat[at] = values

    jax.tree.map(put, places, weights)
    full = [
        jnp.asarray(flat[start : start + leaf.size].reshape(leaf.shape))
        for start, leaf in zip(starts[:-1], leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, full)
