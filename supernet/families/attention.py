"""Attention between the projections before and behind it, as stages of the engine.

Projections are queries [b, g, n, t, k], and keys and values [b, g, t, k]: n queries share the keys of each of g groups.
"""

from typing import Any

import jax
import jax.numpy as jnp

from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import Params
from supernet.layers import attention


def attend(causal: bool = False) -> Stage:
    """The stage from projections to probabilities [b, g, n, t, t].

    Args:
        causal: A position sees none behind it.
    """

    def forward(params: Params, inputs: tuple, context: Context) -> jax.Array:
        (q, k, _), shape = _rows(inputs[1]), inputs[1][0].shape[:-1]
        seen = jnp.tile(jnp.tri(shape[-1], dtype=bool), (shape[2], 1)) if causal else None
        return attention.probabilities(q, k, seen).reshape(*shape, -1)

    def backward(params: Params, inputs: tuple, output: jax.Array, g: jax.Array, context: Context) -> tuple[Any, tuple]:
        (q, k, _), (like_q, like_k, v) = _rows(inputs[1]), inputs[1]
        shape = (*q.shape[:2], -1)
        dq, dk = attention.probabilities_gradient(q, k, output.reshape(shape), g.reshape(shape))
        return None, (None, (dq.reshape(like_q.shape), dk.reshape(like_k.shape), jnp.zeros_like(v)))

    return Stage(forward, backward)


def mixed(projected: tuple, p: jax.Array) -> jax.Array:
    """Returns the values that heads mix by their probabilities, which the output projection reads.

    Probabilities are [b, g, n, t, t], mixed values [b, t, g * n, k].
    """
    _, _, v = _rows(projected)
    b, groups, queries, t, _ = p.shape
    y = attention.batched_matmul(p.reshape(v.shape[0], -1, t), v)
    return y.reshape(b, groups * queries, t, -1).swapaxes(1, 2)


def _rows(projected: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values [b * g, rows, k]: the queries of a group are rows of one product with its keys."""
    q, k, v = projected
    return tuple(a.reshape(a.shape[0] * a.shape[1], -1, a.shape[-1]) for a in (q, k, v))  # type: ignore[return-value]
