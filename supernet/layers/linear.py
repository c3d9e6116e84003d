"""The dense layer of stages, whose weights are cut to one size."""

from collections.abc import Mapping

import jax
from jax.lax import optimization_barrier
from jaxtyping import Array, Float

_SMALL = 2**19
"""Numbers in an operand that is transposed before the product: 2 MiB stay in a processor's cache."""


def linear(x: Float[Array, "*n i"], params: Mapping[str, Float[Array, "..."]]) -> Float[Array, "*n o"]:
    """Multiplies by a kernel and adds the bias, if any.

    It is computed in the type of x; weights keep theirs, and so do their gradients.
    """
    y = _product(x, params["kernel"].astype(x.dtype))
    return y + params["bias"].astype(x.dtype) if "bias" in params else y


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel`, whose gradients are products of plain layouts where transposing costs little."""
    return x @ kernel


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    return x @ kernel, (x, kernel)


def _backward(saved: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    rows, outputs = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    if min(rows.size, outputs.size) > _SMALL or jax.default_backend() != "cpu":
        d_kernel = rows.T @ outputs
    elif rows.size < outputs.size:
        d_kernel = optimization_barrier(rows.T) @ outputs
    else:
        d_kernel = optimization_barrier(optimization_barrier(outputs.T) @ rows).T
    return g @ kernel.T, d_kernel


_product.defvjp(_forward, _backward)
