"""Normalisations over an active width.

References:
    Zhang, Sennrich. Root Mean Square Layer Normalization. NeurIPS 2019, arXiv:1910.07467.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from supernet.layers.passes import wide

LAYER_NORM_EPSILON = 1e-6
Share = Float[Array, " d"] | None
"""How much each entry counts, summing to 1, where widths are mixed or masked; None: all alike."""

LEFT_OUT: ContextVar[bool] = ContextVar("left_out", default=False)
"""Whether norms, while a pass is traced, give what they read; activations behind them stay."""


@contextmanager
def without_norms() -> Iterator[None]:
    """Passes that are traced within have no norms; do not share their compiled programs with others."""
    token = LEFT_OUT.set(True)
    try:
        yield
    finally:
        LEFT_OUT.reset(token)


@jax.named_scope("normalisation")
def layer_norm(
    x: Float[Array, "*n d"],
    params: dict[str, Float[Array, " d"]],
    epsilon: float = LAYER_NORM_EPSILON,
    share: Share = None,
) -> Float[Array, "*n d"]:
    """Computes LayerNorm over the last axis.

    Args:
        x: Float[..., d].
        params: Scale and bias [d].
        epsilon: Added to the variance.
        share: Weight of each entry.
    """
    if LEFT_OUT.get():
        return x
    centred = x - _mean(x, share)
    variance = _mean(centred * centred, share)
    return centred * (jax.lax.rsqrt(variance + epsilon) * params["scale"]) + params["bias"]


@jax.named_scope("normalisation")
def rms_norm(
    x: Float[Array, "*n d"], params: dict[str, Float[Array, " d"]], epsilon: float, share: Share = None
) -> Float[Array, "*n d"]:
    """Computes RMSNorm over the last axis of x [..., d] with scale [d]; `share` as in `layer_norm`."""
    if LEFT_OUT.get():
        return x
    y = wide(x)
    return (y * (jax.lax.rsqrt(_mean(y * y, share) + epsilon) * params["scale"])).astype(x.dtype)


def _mean(x: jax.Array, share: Share) -> jax.Array:
    return jnp.mean(x, axis=-1, keepdims=True) if share is None else (x @ share)[..., None]
