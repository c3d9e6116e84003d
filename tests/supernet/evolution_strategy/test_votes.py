"""Votes: int8 weights move by whole steps at the threshold, what is below is kept, and nothing leaves -127 to 127."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from supernet.evolution_strategy.votes import accumulated_votes


def moved(votes, weight, steps, rate=1.0, deviation=10.0):
    """The weights after so many steps with the same votes, and the votes that are left."""
    optimizer = accumulated_votes(lambda count: jnp.float32(rate), deviation)
    params: Any = {"w": jnp.asarray(weight, jnp.int8)}
    state: Any = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update({"w": -jnp.asarray(votes, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
    return params["w"], state.sums["w"]


def test_a_weight_moves_by_one_for_each_threshold_and_keeps_the_rest():
    weight, left = moved([0, 4, 5, -5, 16, -24], [0] * 6, 1)
    assert weight.dtype == jnp.int8
    np.testing.assert_array_equal(weight, [0, 0, 1, -1, 2, -2])
    np.testing.assert_array_equal(left, [0, 4, -5, 5, -4, -4])


def test_small_votes_add_up_to_the_same_movement_as_large_ones():
    weight, left = moved([3], [0], 100)
    assert int(weight[0]) * 10 + int(left[0]) == 300


def test_a_smaller_rate_asks_for_more_votes():
    assert [int(moved([8], [0], 10, rate)[0][0]) for rate in (1.0, 0.5, 0.1, 0.0)] == [8, 4, 1, 0]


def test_weights_stay_within_their_magnitude():
    weight, _ = moved([10**6, -(10**6), 30], [100, -100, 126], 3)
    np.testing.assert_array_equal(weight, [127, -127, 127])
