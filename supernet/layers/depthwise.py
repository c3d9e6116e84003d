"""Depthwise convolution with a gradient written by hand: shifted products on CPU, the library elsewhere.

XLA's CPU backend has no fast depthwise convolution, and differentiating a sum of shifted products gives it reductions
that it does not vectorise. Here both the output and the input's gradient are one sum of shifted products (at stride 2
the input's gradient is four, one for each parity of row and column, so that no product is with a zero). The kernel's
gradient is a sum over all positions: products of whole windows of columns are summed over a row, then one small
matrix product sums over rows and images. Kernels run over channels innermost, which is what vectorises.
"""

from collections.abc import Callable, Iterable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_TERMS = 16  # products in one sum; more take longer to compile and no less to run


def depthwise(x: Float[Array, "b h w c"], kernel: Float[Array, "k k c"], stride: int) -> Float[Array, "b i j c"]:
    """Convolves every channel with its own k × k kernel, padded with k // 2 zeros on every side.

    Args:
        x: Input.
        kernel: Weights; k is odd.
        stride: 1 or 2.

    Returns:
        The output; a stride of 2 halves a size, rounded up.
    """
    return _differentiable(x, kernel, stride)


@jax.named_scope("depthwise")
def _output(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return _by_device(_products, _library, stride, x, kernel)


def _forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _output(x, kernel, stride), (x, kernel)


@jax.named_scope("depthwise")
def _backward(stride: int, saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _by_device(_products_backward, _library_backward, stride, *saved, g)


_differentiable = jax.custom_vjp(_output, nondiff_argnums=(2,))
_differentiable.defvjp(_forward, _backward)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _by_device(cpu: Callable, other: Callable, stride: int, *arrays: jax.Array) -> Any:
    """Calls one of two functions, by the device that is compiled for; outside of `jit` compiled once a shape."""
    return jax.lax.platform_dependent(*arrays, cpu=partial(cpu, stride=stride), default=partial(other, stride=stride))


def _library(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    half, channels = kernel.shape[0] // 2, x.shape[-1]
    return jax.lax.conv_general_dilated(
        x, kernel[:, :, None, :], (stride, stride), [(half, half)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=channels,
    )  # fmt: skip


def _library_backward(x: jax.Array, kernel: jax.Array, g: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(lambda x, kernel: _library(x, kernel, stride), x, kernel)[1](g)


def _products(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    size, half = kernel.shape[0], kernel.shape[0] // 2
    out = [(n - 1) // stride + 1 for n in x.shape[1:3]]
    x = _padded(x, half)

    def plus(total: jax.Array | None, i: int) -> jax.Array:
        return _plus_row(total, _rows(x, i, out[0], stride), _entry(kernel, i), out[1], stride)

    return reduce(plus, range(1, size), plus(None, 0))


def _products_backward(x: jax.Array, kernel: jax.Array, g: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    return _input_gradient(kernel, g, stride, x.shape), _kernel_gradient(x, g, kernel.shape[0], stride)


def _input_gradient(kernel: jax.Array, g: jax.Array, stride: int, shape: tuple[int, ...]) -> jax.Array:
    if stride == 1:
        return _products(g, kernel[::-1, ::-1], 1)
    half = kernel.shape[0] // 2
    height, width = g.shape[1:3]
    padded = _padded(g, half)

    def taps(parity: int) -> list[tuple[int, int]]:
        """Returns the index in the kernel and the first row (or column) of `padded` for the inputs of a parity."""
        first = (parity + half) % 2
        return [(i, half + (parity + half - i) // 2) for i in range(first, kernel.shape[0], 2)]

    def inputs(row_parity: int, column_parity: int) -> jax.Array:
        products = [
            _scaled(_columns(_rows(padded, y, height, 1), x, width), _entry(_entry(kernel, i), j))
            for i, y in taps(row_parity)
            for j, x in taps(column_parity)
        ]
        return _sum(products) if products else jnp.zeros_like(g)

    rows = [jnp.stack([inputs(a, 0), inputs(a, 1)], axis=3) for a in (0, 1)]
    both = jnp.stack(rows, axis=2).reshape(shape[0], 2 * height, 2 * width, shape[3])
    return both[:, : shape[1], : shape[2]]


def _kernel_gradient(x: jax.Array, g: jax.Array, size: int, stride: int) -> jax.Array:
    batch, height, width, channels = g.shape
    half = size // 2
    # Columns in tiles of at most _TERMS; narrow maps take several images in one sum instead.
    tiles = -(-width // _TERMS)
    tile = -(-width // tiles)
    images = max(n for n in range(1, _TERMS // tile + 1) if batch % n == 0)
    group = batch // images

    span = stride * (tile - 1) + size
    right = stride * tile * (tiles - 1) + span - half - x.shape[2]
    bottom = stride * (height - 1) + size - half - x.shape[1]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (half, bottom, 0), (half, right, 0), (0, 0, 0)])
    x = jnp.stack([x[:, :, stride * tile * t :][:, :, :span] for t in range(tiles)], axis=2)
    g = jnp.pad(g, [(0, 0), (0, 0), (0, tiles * tile - width), (0, 0)])
    g = g.reshape(batch, height, tiles, tile, channels)

    # A plain sum would be fused with the products and lose their vectorisation; a matrix product is not.
    total = jnp.tile(jnp.eye(size, dtype=x.dtype), (1, group * height * tiles))
    # At a stride of 2 XLA would copy the rows that are cut out beforehand.
    cut = [(_rows(x, i, height, 1), 0) if stride == 1 else (x, i) for i in range(size)]
    return jnp.stack([_kernel_row(part, g, total, row, size, stride, images) for part, row in cut])


def _padded(x: jax.Array, edge: int) -> jax.Array:
    return jnp.pad(x, [(0, 0), (edge, edge), (edge, edge), (0, 0)])


# A MobileNet's step has more than ten thousand products. Those of a kernel's rows differ in their inputs alone, and are
# traced once; and `jax.lax` makes fewer operations of each than `jax.numpy`.


@partial(jax.jit, static_argnums=(3, 4))
def _plus_row(total: jax.Array | None, x: jax.Array, weights: jax.Array, width: int, stride: int) -> jax.Array:
    """The total so far and one row [k, c] of a kernel times the rows of `x` that it meets."""
    products = [_scaled(_columns(x, j, width, stride), _entry(weights, j)) for j in range(len(weights))]
    return _sum(products if total is None else [total, *products])


@partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _kernel_row(
    x: jax.Array, g: jax.Array, total: jax.Array, row: int, size: int, stride: int, images: int
) -> jax.Array:
    """The gradient [k, c] of a row of the kernel, which meets the rows of `x` from `row` on."""
    batch, _, _, tile, channels = g.shape
    group = batch // images
    sums = _sum(_met(x, g, row, t, m * group, group, size, stride) for m in range(images) for t in range(tile))
    return total @ sums.reshape(-1, channels)


def _rows(x: jax.Array, first: int, count: int, stride: int) -> jax.Array:
    return jax.lax.slice_in_dim(x, first, first + stride * (count - 1) + 1, stride, axis=1)


def _columns(x: jax.Array, first: int, count: int, stride: int = 1) -> jax.Array:
    return jax.lax.slice_in_dim(x, first, first + stride * (count - 1) + 1, stride, axis=2)


def _entry(x: jax.Array, index: int) -> jax.Array:
    return jax.lax.index_in_dim(x, index, keepdims=False)


def _scaled(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Each channel of `x` times its weight."""
    return jax.lax.mul(x, jax.lax.broadcast_in_dim(weights, x.shape, (x.ndim - 1,)))


def _met(
    x: jax.Array, g: jax.Array, row: int, column: int, image: int, images: int, size: int, stride: int
) -> jax.Array:
    """A column of each tile of `g` times the `size` columns of `x` that it met from `row` on, in `images` images."""
    _, height, tiles, _, channels = g.shape
    start, last = stride * column, row + stride * (height - 1) + 1
    met = jax.lax.slice(
        x, (image, row, 0, start, 0), (image + images, last, tiles, start + size, channels), (1, stride, 1, 1, 1)
    )
    own = jax.lax.slice(g, (image, 0, 0, column, 0), (image + images, height, tiles, column + 1, channels))
    return jax.lax.mul(met, jax.lax.broadcast_in_dim(own, met.shape, range(5)))


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return reduce(jax.lax.add, terms)
