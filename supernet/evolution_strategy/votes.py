"""Accumulated votes: int8 weights move by whole steps, once enough pairs of members have voted for it.

References:
    Sarkar et al. Evolution Strategies at the Hyperscale. 2025, arXiv:2511.16652 (the sign of a pair's difference as its
    vote, a threshold for steps of 1). Differs: votes below the threshold are kept for later steps instead of dropped,
    so that the rate of learning is that of the votes, and the threshold follows the learning rate.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from supernet.layers.integers import LARGEST

_MOST = 2**30


class Votes(NamedTuple):
    """State of the optimizer.

    Attributes:
        done: Training steps so far.
        sums: Votes that have not moved a weight yet, int32.
    """

    done: Int[Array, ""]
    sums: optax.Updates


def accumulated_votes(rate: optax.Schedule, deviation: float) -> optax.GradientTransformation:
    """Adds up votes, and moves a weight by 1 for each time that they reach the threshold, rounded to the nearest.

    Args:
        rate: Steps of a weight for votes of one standard deviation, by training step. The threshold is the deviation
            over it.
        deviation: Standard deviation of the votes of a training step on a weight that makes no difference.
    """

    def init(params: optax.Params) -> Votes:
        return Votes(jnp.zeros((), jnp.int32), jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.int32), params))

    def update(updates: optax.Updates, state: Votes, params: optax.Params | None = None) -> tuple:
        wanted = deviation / jnp.maximum(rate(state.done), deviation / _MOST)
        threshold = jnp.maximum(jnp.round(wanted), 1).astype(jnp.int32)
        sums = jax.tree.map(lambda total, down: total - jnp.round(down).astype(jnp.int32), state.sums, updates)
        steps = jax.tree.map(lambda total: jnp.sign(total) * ((jnp.abs(total) + threshold // 2) // threshold), sums)
        moved = jax.tree.map(_moved, params, steps)
        left = jax.tree.map(lambda total, step: total - step * threshold, sums, steps)
        return moved, Votes(state.done + 1, left)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def _moved(weight: jax.Array, steps: jax.Array) -> jax.Array:
    """Returns how far a weight moves: no further than the largest magnitude, and at most `LARGEST` at once."""
    at = weight.astype(jnp.int32)
    steps = jnp.clip(steps, -LARGEST, LARGEST)
    return (jnp.clip(at + steps, -LARGEST, LARGEST) - at).clip(-LARGEST, LARGEST).astype(weight.dtype)
