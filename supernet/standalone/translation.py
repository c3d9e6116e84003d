"""What plain translation models and their supernet compute alike: positions, and which source tokens are seen."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int


def positions(count: int, frequencies: Float32[np.ndarray, " n"], start: int = 0) -> Float[Array, "t d"]:
    """Computes sine and cosine of the positions from `start`, in turn: [t, 2 * n].

    Args:
        count: Positions.
        frequencies: Radians a position, the fastest first.
        start: Number of the first one.
    """
    angles = (start + jnp.arange(count))[:, None] * frequencies
    waves = [jnp.sin(angles)[..., None], jnp.cos(angles)[..., None]]
    return jnp.concatenate(waves, axis=-1).reshape(count, 2 * len(frequencies))


def visible(source: Int[Array, "b t"], pad: int) -> Bool[Array, "b t"]:
    """Tells which source tokens are attended to: all but padding, and always the first."""
    return (source != pad) | (jnp.arange(source.shape[1]) == 0)
