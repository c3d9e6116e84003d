"""Normalisations over an active width, plain and masked.

References:
    Zhang, Sennrich. Root Mean Square Layer Normalization. NeurIPS 2019, arXiv:1910.07467.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from supernet.passes import wide

LAYER_NORM_EPSILON = 1e-6


@jax.named_scope("normalisation")
def layer_norm(
    x: jax.Array,
    params: dict[str, jax.Array],
    epsilon: float = LAYER_NORM_EPSILON,
    share: Float[Array, " d"] | None = None,
) -> jax.Array:
    """LayerNorm over the last axis.

    Args:
        x: Float[..., d].
        params: Scale and bias [d].
        epsilon: Added to the variance.
        share: How much each entry counts, summing to 1, where widths are mixed or masked; None: all alike.
    """

    def mean(x: jax.Array) -> jax.Array:
        return jnp.mean(x, axis=-1, keepdims=True) if share is None else (x @ share)[..., None]

    centred = x - mean(x)
    variance = mean(centred * centred)
    return centred * (jax.lax.rsqrt(variance + epsilon) * params["scale"]) + params["bias"]


def masked_layer_norm(
    x: jax.Array, params: dict[str, jax.Array], on: jax.Array, width: jax.Array, epsilon: float = LAYER_NORM_EPSILON
) -> jax.Array:
    """LayerNorm over the `width` entries of the last axis that `on` marks; zero elsewhere."""
    centred = (x - jnp.sum(x * on, axis=-1, keepdims=True) / width) * on
    variance = jnp.sum(centred * centred, axis=-1, keepdims=True) / width
    return (centred * (jax.lax.rsqrt(variance + epsilon) * params["scale"]) + params["bias"]) * on


@jax.named_scope("normalisation")
def rms_norm(x: jax.Array, params: dict[str, jax.Array], epsilon: float) -> jax.Array:
    """RMSNorm over the last axis of x [..., d] with scale [d]."""
    y = wide(x)
    return (y * (jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + epsilon) * params["scale"])).astype(x.dtype)


def masked_rms_norm(
    x: jax.Array, params: dict[str, jax.Array], on: jax.Array, width: jax.Array, epsilon: float
) -> jax.Array:
    """RMSNorm over the `width` entries of the last axis that `on` marks; zero elsewhere."""
    mean = jnp.sum(x * x * on, axis=-1, keepdims=True) / width
    return x * (jax.lax.rsqrt(mean + epsilon) * params["scale"]) * on
