"""Normalisations over an active width, plain and masked."""

import jax
import jax.numpy as jnp

LAYER_NORM_EPSILON = 1e-6


def layer_norm(x: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
    """LayerNorm over the last axis of x [..., d] with scale and bias [d]."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return centred * (jax.lax.rsqrt(variance + LAYER_NORM_EPSILON) * params["scale"]) + params["bias"]


def masked_layer_norm(x: jax.Array, params: dict[str, jax.Array], on: jax.Array, width: jax.Array) -> jax.Array:
    """LayerNorm over the `width` entries of the last axis that `on` marks; zero elsewhere."""
    centred = (x - jnp.sum(x * on, axis=-1, keepdims=True) / width) * on
    variance = jnp.sum(centred * centred, axis=-1, keepdims=True) / width
    return (centred * (jax.lax.rsqrt(variance + LAYER_NORM_EPSILON) * params["scale"]) + params["bias"]) * on
