"""Depthwise convolution whose kernel size is data: a switch over centre crops of one kernel.

The switch has its own gradient, a second switch, so that its branches don't multiply those of the sublayer around it
and only the input and the full kernel are kept.
"""

from functools import partial

import jax
from jaxtyping import Array, Float, Int

from supernet.layers.depthwise import depthwise


def centre(kernel: Float[Array, "k k c"], size: int) -> Float[Array, "s s c"]:
    """Returns the middle [size, size, c] of a kernel [k, k, c]."""
    edge = (kernel.shape[0] - size) // 2
    return kernel[edge : edge + size, edge : edge + size]


def elastic_depthwise(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c"],
    index: Int[Array, ""],
    sizes: tuple[int, ...],
    stride: int,
) -> Float[Array, "b i j c"]:
    """Convolves x [b, h, w, c] with the middle `sizes[index]` of `kernel` [k, k, c], padded by half that size.

    Args:
        x: Input.
        kernel: The full kernel; k is the last of `sizes`.
        index: int32 scalar.
        sizes: Odd sizes, smallest first.
        stride: 1 or 2.
    """
    return _differentiable(x, kernel, index, sizes, stride)


def _output(x: jax.Array, kernel: jax.Array, index: jax.Array, sizes: tuple[int, ...], stride: int) -> jax.Array:
    return jax.lax.switch(index, [partial(_at, size=size, stride=stride) for size in sizes], x, kernel)


# Compiled functions are traced once for all places that call them with equal shapes; there are many.
@partial(jax.jit, static_argnames=("size", "stride"))
def _at(x: jax.Array, kernel: jax.Array, size: int, stride: int) -> jax.Array:
    return depthwise(x, centre(kernel, size), stride)


@partial(jax.jit, static_argnames=("size", "stride"))
def _pull_back(x: jax.Array, kernel: jax.Array, g: jax.Array, size: int, stride: int) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(partial(_at, size=size, stride=stride), x, kernel)[1](g)


def _forward(x: jax.Array, kernel: jax.Array, index: jax.Array, sizes: tuple[int, ...], stride: int) -> tuple:
    return _output(x, kernel, index, sizes, stride), (x, kernel, index)


def _backward(sizes: tuple[int, ...], stride: int, saved: tuple, g: jax.Array) -> tuple:
    x, kernel, index = saved
    dx, d_kernel = jax.lax.switch(
        index, [partial(_pull_back, size=size, stride=stride) for size in sizes], x, kernel, g
    )
    return dx, d_kernel, None


_differentiable = jax.custom_vjp(_output, nondiff_argnums=(3, 4))
_differentiable.defvjp(_forward, _backward)
