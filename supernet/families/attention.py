"""Attention between the projections before and behind it, as stages of the engine.

Projections are queries [b, g, n, t, k], and keys and values [b, g, t, k]: n queries share the keys of each of g groups.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import Params
from supernet.layers import attention

_BLOCKS, _LENGTH = 4, 64
"""Into how many blocks of positions causal attention is cut at most, and how long they are at least."""


def attend(causal: bool = False) -> Stage:
    """Returns the stage from projections to probabilities: [b, g, n, rows, seen] for each block of positions.

    Args:
        causal: A position sees none behind it. Positions are then cut into blocks, of which each is computed with those
            that it sees alone.
    """

    def forward(params: Params, inputs: tuple, context: Context) -> tuple[jax.Array, ...]:
        q, k, _ = inputs[1]

        def block(first: int, end: int) -> jax.Array:
            rows = q[:, :, :, first:end]
            seen = jnp.tile(jnp.tri(end - first, end, first, dtype=bool), (q.shape[2], 1)) if causal else None
            p = attention.probabilities(_rows(rows), _rows(k[:, :, :end]), seen)
            return p.reshape(*rows.shape[:-1], end)

        return tuple(block(*places) for places in _blocks(q.shape[-2], causal))

    def backward(params: Params, inputs: tuple, output: tuple, g: tuple, context: Context) -> tuple[Any, tuple]:
        q, k, v = inputs[1]
        dq, dk = [], jnp.zeros_like(k)
        for (first, end), p, dp in zip(_blocks(q.shape[-2], causal), output, g, strict=True):
            rows, keys = q[:, :, :, first:end], k[:, :, :end]
            of_rows, of_keys = attention.probabilities_gradient(_rows(rows), _rows(keys), *map(_rows, (p, dp)))
            dq.append(of_rows.reshape(rows.shape))
            dk = dk + jnp.pad(of_keys.reshape(keys.shape), ((0, 0), (0, 0), (0, k.shape[2] - end), (0, 0)))
        return None, (None, (jnp.concatenate(dq, axis=3), dk, jnp.zeros_like(v)))

    return Stage(forward, backward)


def mixed(projected: tuple, probabilities: tuple[Float[Array, "b g n _rows _seen"], ...]) -> Float[Array, "b t h k"]:
    """Returns the values that heads mix by their probabilities, which the output projection reads: [b, t, g * n, k]."""
    v = projected[2]
    blocks = []
    for p in probabilities:
        b, groups, queries, rows, seen = p.shape
        y = attention.batched_matmul(_rows(p), _rows(v[:, :, :seen]))
        blocks.append(y.reshape(b, groups * queries, rows, -1))
    return jnp.concatenate(blocks, axis=2).swapaxes(1, 2)


def _blocks(positions: int, causal: bool) -> list[tuple[int, int]]:
    """First and end of each block of positions; one of all where their number is not known when traced."""
    if not causal or not isinstance(positions, int):
        return [(0, positions)]
    length = max(_LENGTH, -(-positions // _BLOCKS))
    return [(first, min(first + length, positions)) for first in range(0, positions, length)]


def _rows(a: jax.Array) -> jax.Array:
    """Returns [b * g, rows, k] of [b, g, t, k] or [b, g, n, t, k].

    The queries of a group are rows of one product with its keys.
    """
    return a.reshape(a.shape[0] * a.shape[1], -1, a.shape[-1])
