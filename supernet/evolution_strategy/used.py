"""Used weights: which entries of the supernet's weights a path computes with."""

import jax
import numpy as np
from jax import tree_util

from search_spaces import Architecture
from supernet.engine.supernet import Params, Supernet


def used_entries(net: Supernet, architecture: Architecture) -> Params:
    """Returns a tree like the weights: True where the network of an architecture uses an entry.

    Weights that the sharing scheme changes count as used throughout, in one entry that broadcasts.
    """
    leaves, structure = jax.tree.flatten(net.plain_shapes)
    starts = np.cumsum([0, *(leaf.size for leaf in leaves)])
    # Slicing only picks entries, so a slice of the entries' numbers says which are used.
    numbers = [np.arange(at, at + leaf.size).reshape(leaf.shape) for at, leaf in zip(starts[:-1], leaves, strict=True)]
    nowhere = jax.tree.map(lambda leaf: np.full(leaf.shape, -1), net.statistics_shapes)
    flat = np.zeros(starts[-1], bool)
    for picked in jax.tree.leaves(net.slice(jax.tree.unflatten(structure, numbers), architecture, nowhere)):
        places = np.asarray(picked).reshape(-1)
        flat[places[places >= 0]] = True
    plain = {
        _path(path): flat[at : at + leaf.size].reshape(leaf.shape)
        for at, (path, leaf) in zip(starts[:-1], tree_util.tree_leaves_with_path(net.plain_shapes), strict=True)
    }

    def mask(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = _path(path)
        if name in net.sharing.changed or name not in plain or plain[name].shape != leaf.shape:
            return np.ones((1,) * len(leaf.shape), bool)
        return plain[name]

    return tree_util.tree_map_with_path(mask, net.shapes)


def _path(path: tuple) -> str:
    return "/".join(str(key.key) for key in path)
