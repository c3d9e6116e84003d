"""Figures of blocks: the entropy of the features between them, and the singular values of their mean Jacobians.

References:
    Lee, Ham. AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search. CVPR 2024, arXiv:2403.19232.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from supernet.weights.cuts import Tree

_LEAST = 1e-8


class BlockFigures(NamedTuple):
    """Figures of a network's blocks.

    Attributes:
        entropies: Entropies of the embedded stream and of each block's output.
        norms: Largest singular value of each block's mean Jacobian.
        means: Mean singular value of each block's mean Jacobian.
    """

    entropies: Float[Array | np.ndarray, " n"]
    norms: Float[Array | np.ndarray, " m"]
    means: Float[Array | np.ndarray, " m"]


def block_figures(stream: Tree, blocks: Sequence[Callable[[Tree], Tree]], key: Key[Array, ""]) -> BlockFigures:
    """Measures the blocks of a network on a batch.

    Args:
        stream: Input of the first block; its features are its first array [b, ..., c].
        blocks: Each makes a stream of the one before.
        key: Key of the random signs that are pulled back through each block.
    """
    entropies, stretches = [entropy(features(stream))], []
    for number, block in enumerate(blocks):
        leaves, tree = jax.tree.flatten(stream)

        def run(first: jax.Array, block: Callable = block, leaves: list = leaves, tree: Tree = tree) -> tuple:
            after = block(jax.tree.unflatten(tree, [first, *leaves[1:]]))
            return features(after), after

        out, pull, stream = jax.vjp(run, leaves[0], has_aux=True)
        signs = jax.random.rademacher(jax.random.fold_in(key, number), out.shape, out.dtype)
        stretches.append(singular_values(pull(signs)[0], signs))
        entropies.append(entropy(out))
    norms, means = [jnp.max(of) for of in stretches], [jnp.mean(of) for of in stretches]
    return BlockFigures(jnp.stack(entropies), jnp.stack(norms), jnp.stack(means))


def features(stream: Tree) -> Float[Array, "b ... c"]:
    """Returns the features of a stream: its first array."""
    return jax.tree.leaves(stream)[0]


def entropy(x: Float[Array, "b ... c"]) -> Float[Array, ""]:
    """Returns the entropy of the shares of the principal components in the variance of features."""
    rows = x.reshape(-1, x.shape[-1])
    rows = rows - jnp.mean(rows, axis=0)
    values = jnp.maximum(jnp.linalg.eigvalsh(rows.T @ rows / len(rows)), 0)
    shares = values / jnp.maximum(jnp.sum(values), _LEAST)
    return -jnp.sum(shares * jnp.log(shares + _LEAST))


def singular_values(into: Float[Array, "b ... c"], out: Float[Array, "b ... d"]) -> Float[Array, " n"]:
    """Estimates the singular values of a block's Jacobian between channels, averaged over examples and positions.

    The signs are independent, so the mean outer product of the signs at the output and the gradient at the input that
    they are pulled back to estimates the mean Jacobian. Where a block makes maps smaller, positions that are merged
    count as channels.

    Args:
        into: Gradient at the input.
        out: Random signs at the output.
    """
    if into.ndim == 4:
        into = _gathered(into, out.shape[1:3])
    rows, others = into.reshape(-1, into.shape[-1]), out.reshape(-1, out.shape[-1])
    return jnp.linalg.svd(rows.T @ others / len(others), compute_uv=False)


def _gathered(x: Float[Array, "b h w c"], sides: tuple[int, ...]) -> Float[Array, "b i j k"]:
    """Turns the positions of each output into channels, with zeros beyond an odd side."""
    steps = [-(-length // side) for length, side in zip(x.shape[1:3], sides, strict=True)]
    missing = [side * step - length for length, side, step in zip(x.shape[1:3], sides, steps, strict=True)]
    x = jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
    b, (i, j), (s, t), c = len(x), sides, steps, x.shape[-1]
    return x.reshape(b, i, s, j, t, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, i, j, s * t * c)
