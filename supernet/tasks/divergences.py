"""Divergences between distributions, and the softening of logits: what classes are taught by.

References:
    Wang, Gong, Li, Liu, Chandra. AlphaNet: Improved Training of Supernets with Alpha-Divergence. ICML 2021,
    arXiv:2102.07954.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.jit
def soften(logits: Float[Array, "*n c"], temperature: float) -> Float[Array, "*n c"]:
    """Computes the distribution of logits at a temperature."""
    return jax.nn.softmax(logits / temperature)


def alpha_divergence(
    p: Float[Array, "*n c"], logits: Float[Array, "*n c"], alpha_min: float, alpha_max: float, clip: float
) -> Float[Array, "*n"]:
    """Computes the larger of two alpha-divergences from teacher `p` for each example (AlphaNet's adaptive loss).

    `D_a(p|q) = sum q ((p/q)^a - 1) / (a (a - 1))`, with `(p/q)^a` at most `clip` for `alpha_min`. The value is that
    of the divergence, the gradient that of AlphaNet's surrogate `-sum sg(q rho_a) log q`, which equals the
    divergence's own where nothing is clipped.

    Args:
        p: The teacher's distribution.
        logits: Logits of the student.
        alpha_min: Negative order.
        alpha_max: Positive order; 1 is the Kullback-Leibler divergence.
        clip: Bound of the ratio's power at `alpha_min`.
    """
    low, low_gradient = _order(p, logits, alpha_min, clip)
    high, high_gradient = _order(p, logits, alpha_max, None)
    return jnp.where(high > low, high_gradient, low_gradient)


def _order(
    p: Float[Array, "*n c"], logits: Float[Array, "*n c"], alpha: float, clip: float | None
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The divergence of one order; and the same value with the surrogate's gradient."""
    log_q = jax.nn.log_softmax(logits)
    q = jnp.exp(log_q)
    log_ratio = jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny)) - log_q
    bound = jnp.inf if clip is None else jnp.log(clip)
    weighted = jnp.exp(log_q + jnp.minimum(alpha * log_ratio, bound))  # q (p/q)^alpha; q alone may underflow
    if alpha == 1:
        value = jnp.sum(jnp.where(p > 0, p * log_ratio, 0.0), axis=-1)
    else:
        value = jnp.sum(weighted - q, axis=-1) / (alpha * (alpha - 1))
    # AlphaNet's rho also has a constant, whose gradient is zero because sum q grad(log q) is.
    surrogate = -jnp.sum(jax.lax.stop_gradient(weighted / alpha) * log_q, axis=-1)
    return value, jax.lax.stop_gradient(value - surrogate) + surrogate
