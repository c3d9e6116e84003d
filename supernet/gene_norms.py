"""GeneNorms: the norm of the gradient of the weights that each gene governs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from supernet.supernet import Params, Supernet


class GeneNorms:
    """Sums squares once over a gradient and reads every gene's share of them.

    A gene governs the weights of which another part is used when the gene takes its other values: heads govern a
    layer's attention, a depth the layers that it can leave out, a width everything. Where layers are stacked, each
    layer counts on its own. A gene that changes no weight, such as a resolution, governs the whole network; one with
    a single value governs nothing.

    Args:
        net: The supernet.
    """

    def __init__(self, net: Supernet) -> None:
        leaves, structure = jax.tree.flatten_with_path(net.shapes)
        self._stacked = [any(getattr(key, "key", None) == net.stacked for key in path) for path, _ in leaves]
        # Slicing is pure indexing, so it also cuts a tree that holds the number of each weight's row.
        starts = np.cumsum([0, *(self._rows(leaf, on) for (_, leaf), on in zip(leaves, self._stacked, strict=True))])
        numbers = [
            np.broadcast_to(
                np.arange(start, end).reshape(-1, *[1] * (leaf.ndim - 1)) if leaf.ndim else np.array(start), leaf.shape
            )
            for (_, leaf), start, end in zip(leaves, starts[:-1], starts[1:], strict=True)
        ]
        rows = jax.tree.unflatten(structure, numbers)
        statistics = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), net.statistics_shapes)

        def used(genes: np.ndarray) -> np.ndarray:
            counts = np.zeros(starts[-1], np.int64)
            for leaf in map(np.asarray, jax.tree.leaves(net.slice(rows, net.space.architecture(genes), statistics))):
                if leaf.dtype.kind == "i":  # batch statistics are no weights
                    counts[leaf.flat[0]] += leaf.size
            return counts

        largest = np.array(net.space.largest.genes)
        others = np.where(np.eye(len(largest), dtype=bool), 0, largest)
        governed = np.array([used(genes) for genes in others]) != used(largest)
        governed[~governed.any(axis=1) & (net.space.cardinalities > 1)] = True
        self._governed = jnp.asarray(governed, jnp.float32)

    @staticmethod
    def _rows(leaf: Any, stacked: bool) -> int:
        return len(leaf) if stacked else 1

    def __call__(self, gradient: Params) -> Float[Array, " g"]:
        """Norms of one gradient, by gene."""
        squares = [
            jnp.sum(jnp.square(leaf).reshape(self._rows(leaf, stacked), -1), axis=1)
            for leaf, stacked in zip(jax.tree.leaves(gradient), self._stacked, strict=True)
        ]
        return jnp.sqrt(self._governed @ jnp.concatenate(squares))
