"""Depthwise convolution with a dilation of 2: those of every second row and column on CPU, the library elsewhere.

The taps of an output lie two positions apart, so they meet rows and columns of one parity only: a dilated convolution
is four plain ones, of the maps of each parity, and at a stride of 2 it is the one of even rows and columns.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from supernet.layers.depthwise import depthwise

DILATION = 2


def dilated_depthwise(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c"], stride: int
) -> Float[Array, "b i j c"]:
    """Convolves every channel with its own k × k kernel, whose taps lie two positions apart.

    Args:
        x: Input, padded with k - 1 zeros on every side.
        kernel: Weights; k is odd.
        stride: 1 or 2.

    Returns:
        The output; a stride of 2 halves a size, rounded up.
    """
    cpu, other = partial(_by_parity, stride=stride), partial(_library, stride=stride)
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=other)


def _by_parity(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    if stride == DILATION:
        return depthwise(x[:, ::DILATION, ::DILATION], kernel, 1)
    batch, height, width, channels = x.shape
    x = jnp.pad(x, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)])
    rows, columns = (-(-side // 2) for side in (height, width))
    split = x.reshape(batch, rows, 2, columns, 2, channels).transpose(2, 4, 0, 1, 3, 5)
    y = depthwise(split.reshape(4 * batch, rows, columns, channels), kernel, 1)
    y = y.reshape(2, 2, batch, rows, columns, channels).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(batch, 2 * rows, 2 * columns, channels)[:, :height, :width]


def _library(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    edge = kernel.shape[0] - 1
    return jax.lax.conv_general_dilated(
        x, kernel[:, :, None, :], (stride, stride), [(edge, edge)] * 2, rhs_dilation=(DILATION, DILATION),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1],
    )  # fmt: skip
