"""Attention products, softmax and their gradients, in the layouts that run fast."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from supernet.layers.passes import wide


@jax.custom_vjp
@jax.named_scope("attention")
def batched_matmul(a: Float[Array, "n i k"], b: Float[Array, "n k j"]) -> Float[Array, "n i j"]:
    """Returns `a[n, i, k] @ b[n, k, j]`.

    The gradient transposes its operands first: XLA's CPU back-end is several times slower on the contractions that
    automatic differentiation would emit.
    """
    return jnp.matmul(a, b)


@jax.named_scope("attention")
def _forward(a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple]:
    return jnp.matmul(a, b), (a, b)


@jax.named_scope("attention")
def _backward(saved: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b = saved
    return jnp.matmul(g, b.swapaxes(1, 2)), jnp.matmul(a.swapaxes(1, 2), g)


batched_matmul.defvjp(_forward, _backward)


@jax.named_scope("attention")
def probabilities(
    q: Float[Array, "n s d"],
    k: Float[Array, "n t d"],
    seen: Bool[Array, "s t"] | Bool[Array, "n #s t"] | None = None,
) -> Float[Array, "n s t"]:
    """Computes the softmax of scaled scores: q [n, s, d], k [n, t, d] to [n, s, t]; 0 where `seen` [s, t] is False.

    `seen` may differ by n, bool[n, s, t], and be one for all s, bool[n, 1, t]. Of no row may all be False.
    """
    scores = wide(batched_matmul(q, k.swapaxes(1, 2))) * q.shape[-1] ** -0.5
    return jax.nn.softmax(scores if seen is None else jnp.where(seen, scores, -jnp.inf)).astype(q.dtype)


@jax.named_scope("attention")
def probabilities_gradient(
    q: Float[Array, "n s d"], k: Float[Array, "n t d"], p: Float[Array, "n s t"], g: Float[Array, "n s t"]
) -> tuple[Float[Array, "n s d"], Float[Array, "n t d"]]:
    """Cotangents of q and k from the probabilities `p` and their cotangent `g`, without computing scores again."""
    like, p, g = q.dtype, wide(p), wide(g)
    scores = (p * (g - jnp.sum(p * g, axis=-1, keepdims=True)) * q.shape[-1] ** -0.5).astype(like)
    return jnp.matmul(scores, k), jnp.matmul(scores.swapaxes(1, 2), q)
