"""Pictures of any size, brought to that of the training images inside a file, as Pillow's `ImageOps.fit` does it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt8


def fitted(images: UInt8[Array, "b h w c"], size: tuple[int, int]) -> UInt8[Array, "b i j c"]:
    """Crops pictures uint8[b, h, w, c] about their centre and resizes them, bilinear and antialiased.

    Across first, then down. Pillow 13 takes the other order where the height shrinks by more than twice as many pixels
    as the width; up to a quarter of the pixels of such a picture then differ from these, by one level of 255.

    Args:
        images: Pictures of one size, which may be symbolic.
        size: Height and width of the result.

    Returns:
        uint8[b, *size, c].
    """
    height, width = (jnp.asarray(images.shape[axis], jnp.float32) for axis in (1, 2))
    ratio = size[1] / size[0]
    wide = width >= ratio * height
    kept_width, kept_height = jnp.where(wide, ratio * height, width), jnp.where(wide, height, width / ratio)
    across = _weights(images.shape[2], size[1], (width - kept_width) / 2, kept_width)
    down = _weights(images.shape[1], size[0], (height - kept_height) / 2, kept_height)
    # Bytes between the two steps, as Pillow has.
    x = _bytes(jnp.einsum("bhwc,xw->bhxc", images.astype(jnp.float32), across))
    return _bytes(jnp.einsum("bhxc,yh->byxc", x, down)).astype(jnp.uint8)


def _weights(size: int, wanted: int, first: jax.Array, length: jax.Array) -> jax.Array:
    """What each of `size` pixels counts in each of `wanted`, which share the `length` pixels from `first` on."""
    scale = length / wanted
    reach = jnp.maximum(scale, 1.0)
    centre = first + (jnp.arange(wanted, dtype=jnp.float32) + 0.5) * scale
    distance = jnp.abs(jnp.arange(size, dtype=jnp.float32)[None] + 0.5 - centre[:, None])
    weights = jnp.maximum(1 - distance / reach, 0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def _bytes(x: jax.Array) -> jax.Array:
    return jnp.clip(jnp.floor(x + 0.5), 0, 255)
