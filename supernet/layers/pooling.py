"""Pooling over 3×3 neighbourhoods: shifted slices on CPU, the library elsewhere.

What lies beyond the edge of a map counts for nothing: it is no maximum, and no part of a mean. XLA's CPU backend has no
fast gradient of pooling.
"""

from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def max_pool(x: Float[Array, "b h w c"], stride: int) -> Float[Array, "b i j c"]:
    """Takes the largest value of each neighbourhood, of equals the first; sides become ceil(side / stride)."""
    return _by_device(_shifted_max, partial(_windows, -np.inf, jax.lax.max), x, stride)


def mean_pool(x: Float[Array, "b h w c"], stride: int) -> Float[Array, "b i j c"]:
    """Takes the mean of each neighbourhood; sides become ceil(side / stride)."""
    total = _by_device(_shifted_sum, partial(_windows, 0.0, jax.lax.add), x, stride)
    counts = np.multiply.outer(*(met(side)[::stride] for side in x.shape[1:3])).astype(np.float32)
    return total / counts[..., None]


def _by_device(cpu: Callable, other: Callable, x: jax.Array, stride: int) -> jax.Array:
    return jax.lax.platform_dependent(x, cpu=partial(cpu, stride=stride), default=partial(other, stride=stride))


def _windows(start: float, combine: Callable, x: jax.Array, stride: int) -> jax.Array:
    edges = ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, np.float32(start), combine, (1, 3, 3, 1), (1, stride, stride, 1), edges)


def _shifted_max(x: jax.Array, stride: int) -> jax.Array:
    # Columns before rows, so that of equals the first in reading order is kept.
    for axis in (2, 1):
        x = reduce(_first_max, _shifts(x, axis, stride, -np.inf))
    return x


def _first_max(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(a >= b, a, b)


def _shifted_sum(x: jax.Array, stride: int) -> jax.Array:
    return sum(_shifts(sum(_shifts(x, 2, stride, 0)), 1, stride, 0))  # type: ignore[arg-type, return-value]


def _shifts(x: jax.Array, axis: int, stride: int, beyond: float) -> list[jax.Array]:
    """The neighbours before each position of an axis, the positions, and the neighbours behind them."""
    length = x.shape[axis]
    padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)], constant_values=beyond)
    return [jax.lax.slice_in_dim(padded, start, start + length, stride, axis=axis) for start in range(3)]


def met(length: int) -> Float[np.ndarray, " n"]:
    """Counts, for each position of a row, the position itself and its neighbours."""
    return np.convolve(np.ones(length), np.ones(3))[1 : length + 1]
