"""Attention between the projections before and behind it, as stages of the engine.

Projections are queries [b, g, n, t, k], and keys and values [b, g, t, k]: n queries share the keys of each of g groups.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import Params
from supernet.layers import attention

_BLOCKS, _LENGTH = 4, 64
"""Into how many blocks of positions causal attention is cut at most, and how long they are at least."""


def attend(causal: bool = False, visible: Callable[[Context], Bool[Array, "b s"]] | None = None) -> Stage:
    """Returns the stage from projections to probabilities: [b, g, n, rows, seen] for each block of positions.

    Args:
        causal: A position sees none behind it. Positions are then cut into blocks, of which each is computed with those
            that it sees alone.
        visible: Positions of each example that can be seen; all when None. Not together with `causal`.
    """

    def seen_until(end: int, of: jax.Array) -> jax.Array:
        return of[:, :, :end] if causal else of  # what is attended to need not be as long as what attends

    def forward(params: Params, inputs: tuple, context: Context) -> tuple[jax.Array, ...]:
        q, k, _ = inputs[1]
        b, groups = k.shape[:2]

        def block(first: int, end: int) -> jax.Array:
            rows, keys, seen = q[:, :, :, first:end], seen_until(end, k), None
            if causal:
                seen = jnp.concatenate([jnp.tri(end - first, end, first, dtype=bool)] * q.shape[2])
            elif visible is not None:
                seen = jnp.broadcast_to(visible(context)[:, None, None], (b, groups, 1, keys.shape[2]))
                seen = seen.reshape(b * groups, 1, keys.shape[2])
            p = attention.probabilities(_rows(rows), _rows(keys), seen)
            return p.reshape(*rows.shape[:-1], keys.shape[2])

        return tuple(block(*places) for places in _blocks(q.shape[-2], causal))

    def backward(params: Params, inputs: tuple, output: tuple, g: tuple, context: Context) -> tuple[Any, tuple]:
        q, k, v = inputs[1]
        dq, dk = [], jnp.zeros_like(k)
        for (first, end), p, dp in zip(_blocks(q.shape[-2], causal), output, g, strict=True):
            rows, keys = q[:, :, :, first:end], seen_until(end, k)
            of_rows, of_keys = attention.probabilities_gradient(_rows(rows), _rows(keys), *map(_rows, (p, dp)))
            dq.append(of_rows.reshape(rows.shape))
            dk = dk + jnp.pad(of_keys.reshape(keys.shape), ((0, 0), (0, 0), (0, k.shape[2] - keys.shape[2]), (0, 0)))
        return None, (None, (jnp.concatenate(dq, axis=3), dk, jnp.zeros_like(v)))

    return Stage(forward, backward)


def attend_in_heads(stage: Stage, heads: Callable[[Context], int]) -> Stage:
    """Returns the stage of `attend` for queries, keys and values [b, t, d] that so many heads share out.

    The kept projections have one size, however many heads there are.

    Args:
        stage: Stage that `attend` returns.
        heads: Number of heads.
    """

    def split(inputs: tuple, context: Context) -> tuple:
        return inputs[0], in_heads(inputs[1], heads(context))

    def forward(params: Params, inputs: tuple, context: Context) -> tuple[jax.Array, ...]:
        return stage.forward(params, split(inputs, context), context)

    def backward(params: Params, inputs: tuple, output: tuple, g: tuple, context: Context) -> tuple[Any, tuple]:
        assert stage.backward is not None
        _, (_, (dq, dk, dv)) = stage.backward(params, split(inputs, context), output, g, context)
        joined = (
            a.swapaxes(1, 2).reshape(like.shape) for a, like in zip((dq[:, :, 0], dk, dv), inputs[1], strict=True)
        )
        return None, (None, tuple(joined))

    return Stage(forward, backward)


def in_heads(projected: tuple, heads: int) -> tuple:
    """Returns queries, keys and values [b, t, d] as `attend` takes them: each head has a part of their entries."""
    q, k, v = (a.reshape(*a.shape[:2], heads, a.shape[2] // heads).swapaxes(1, 2) for a in projected)
    return q[:, :, None], k, v


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
