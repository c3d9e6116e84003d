"""Averages of weights: the mean of each entry over the trees that own it.

Where all trees own everything, this is the plain mean of model soups. Networks of several sizes, put where one parent
keeps their weights, own different entries: each entry is then divided by the number of networks that own it, and one
that nobody owns stays what it was. Dividing by the number of all networks instead, as if what a network does not own
were 0, would shrink every entry that not all of them own.

References:
    Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
    inference time", 2022, arXiv:2203.05482.
Differs: theirs are networks of one shape; the count of owners for each entry is ours.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from supernet.weights.cuts import Tree


def owned_mean(members: Iterable[tuple[Tree, Tree]], otherwise: Tree) -> Tree:
    """Averages weights, each entry over the members that own it.

    Sums are in float64, so that the mean of equal float32 weights is that weight, bit for bit. Means of whole numbers
    are rounded to the nearest, halves to the even one.

    Args:
        members: For each member its weights, and a tree of the same structure that is true where it owns an entry. They
            are read one after the other, and not kept.
        otherwise: Weights of the same structure, for entries that no member owns; it gives shapes and types too.

    Returns:
        The weights, as JAX arrays.
    """
    leaves, structure = jax.tree.flatten(otherwise)
    sums = [np.zeros(leaf.shape, np.float64) for leaf in leaves]
    counts = [np.zeros(leaf.shape, np.int32) for leaf in leaves]
    for weights, owned in members:
        parts = structure.flatten_up_to(weights), structure.flatten_up_to(owned)
        for total, count, part, own in zip(sums, counts, *parts, strict=True):
            np.add(total, np.asarray(part, np.float64), out=total, where=np.asarray(own))
            count += own
    means = [
        _like(leaf, np.where(count > 0, total / np.maximum(count, 1), np.asarray(leaf)))
        for leaf, total, count in zip(leaves, sums, counts, strict=True)
    ]
    return jax.tree.unflatten(structure, means)


def _like(leaf: jax.Array, mean: np.ndarray) -> jax.Array:
    """Returns a mean as the type of a leaf: that of whole numbers to the nearest, where cutting off would shrink it."""
    return jnp.asarray((np.rint(mean) if np.issubdtype(leaf.dtype, np.integer) else mean).astype(leaf.dtype))
