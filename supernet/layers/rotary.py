"""Rotary positions: queries and keys turn by angles that grow with the position, so their products see distances.

References:
    Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. 2021, arXiv:2104.09864.
    Differs: entry i turns with entry i + n / 2 of the n that turn, as LLaMA and GPT-NeoX do, not with i + 1.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from supernet.layers.passes import wide


def rotate(
    x: Float[Array, "*n t k"], positions: Int[Array, " t"], frequencies: Float[np.ndarray, " f"]
) -> Float[Array, "*n t k"]:
    """Turns the first entries of heads.

    Args:
        x: float[..., t, k], heads of size k.
        positions: int[t].
        frequencies: Radians a position, float32[n / 2]; the n entries from the start turn.
    """
    half = len(frequencies)
    angles = positions.astype(jnp.float32)[:, None] * frequencies
    cos, sin, y = jnp.cos(angles), jnp.sin(angles), wide(x)
    first, second, rest = y[..., :half], y[..., half : 2 * half], y[..., 2 * half :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1).astype(x.dtype)
