"""Elastic resolution: one resize, the same wherever images change their size."""

import jax
from jaxtyping import Array, Float


def resize(x: Float[Array, "b h w c"], size: int | tuple[int, int]) -> Float[Array, "b i j c"]:
    """Resizes images [b, h, w, c], antialiased and bilinear; returns the same array where nothing changes.

    Args:
        x: Images.
        size: Height and width of the result, or one number for both.
    """
    height, width = (size, size) if isinstance(size, int) else size
    b, h, w, c = x.shape
    if (h, w) == (height, width):
        return x
    return jax.image.resize(x, (b, height, width, c), "bilinear")
