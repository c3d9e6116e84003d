"""Batch norm for networks that change at every step: the batch's own moments, or calibrated ones; nothing is stored.

The moments are an output of the stage that computes the normalised product, so the backward pass reads them instead
of computing them again; `normalise` gives the whole gradient, through the moments too, to the product.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from supernet.layers.normalisation import LEFT_OUT

BATCH_NORM_EPSILON = 1e-5
Moments = dict[str, Float[Array, " c"]]


@jax.named_scope("normalisation")
def moments(x: Float[Array, "*n c"]) -> Moments:
    """Computes mean and biased variance [c] of each channel of x [..., c]; no gradient flows through them."""
    x = jax.lax.stop_gradient(x).reshape(-1, x.shape[-1])
    mean = jnp.mean(x, axis=0)
    return {"mean": mean, "var": jnp.mean(jnp.square(x - mean), axis=0)}


def normalise(
    x: Float[Array, "*n c"], of_x: Moments, params: dict[str, Float[Array, " c"]], activation: str | None
) -> Float[Array, "*n c"]:
    """Computes the activation of the batch norm of x [..., c] with its moments `of_x`.

    Args:
        x: Product of a convolution.
        of_x: `moments(x)`; their share of the gradient goes to x.
        params: Scale and bias [c].
        activation: `relu`, `hard_swish`, or None.
    """
    return activate(x, activation) if LEFT_OUT.get() else _differentiable(x, of_x, params, activation)


@jax.named_scope("normalisation")
def normalise_with(
    x: Float[Array, "*n c"], given: Moments, params: dict[str, Float[Array, " c"]], activation: str | None
) -> Float[Array, "*n c"]:
    """Computes the activation of the batch norm of x [..., c] with constant moments of other batches."""
    z = (x - given["mean"]) * (_inverse(given) * params["scale"]) + params["bias"]
    return activate(z, activation)


def activate(z: Float[Array, "*n"], activation: str | None) -> Float[Array, "*n"]:
    """Applies `relu`, `hard_swish` (z · relu6(z + 3) / 6) or nothing."""
    match activation:
        case None:
            return z
        case "relu":
            return jnp.maximum(z, 0)
        case "hard_swish":
            return z * jnp.clip(z / 6 + 0.5, 0, 1)
    raise AssertionError(activation)


def _slope(z: jax.Array, activation: str | None) -> jax.Array | float:
    match activation:
        case None:
            return 1.0
        case "relu":
            return (z > 0).astype(z.dtype)
        case "hard_swish":
            return jnp.where(z <= -3, 0, jnp.where(z >= 3, 1, z / 3 + 0.5))
    raise AssertionError(activation)


def _inverse(given: Moments) -> jax.Array:
    return jax.lax.rsqrt(given["var"] + BATCH_NORM_EPSILON)


def _forward(x: jax.Array, of_x: Moments, params: dict[str, jax.Array], activation: str | None) -> tuple:
    return normalise_with(x, of_x, params, activation), (x, of_x, params)


@jax.named_scope("normalisation")
def _backward(activation: str | None, saved: tuple[Any, ...], g: jax.Array) -> tuple:
    x, of_x, params = saved
    shape, channels = x.shape, x.shape[-1]
    x, g = x.reshape(-1, channels), g.reshape(-1, channels)
    inverse = _inverse(of_x)
    scaled = inverse * params["scale"]
    g = g * _slope((x - of_x["mean"]) * scaled + params["bias"], activation)
    bias = jnp.sum(g, axis=0)
    # Not the sum of g (x - mean), for which XLA's CPU back-end would write out x - mean.
    scale = (jnp.sum(g * x, axis=0) - of_x["mean"] * bias) * inverse
    dx = scaled * (g - bias / len(x) - (x - of_x["mean"]) * (inverse * scale / len(x)))
    return dx.reshape(shape), None, {"scale": scale, "bias": bias}


_differentiable = jax.custom_vjp(normalise_with, nondiff_argnums=(3,))
_differentiable.defvjp(_forward, _backward)
