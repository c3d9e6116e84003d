"""Integer arithmetic: what float32 carries gives the same numbers, and the loss by integers is that of the logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supernet.layers.integers import (
    LARGEST,
    MOST_CLASSES,
    MOST_LOSSES,
    NATS,
    halved,
    integer_logits,
    integer_losses,
    normalised,
    product,
    saturated,
)

RNG = np.random.default_rng(0)
STREAM = jnp.asarray(RNG.integers(-511, 512, (50, 32)), jnp.int32)
ROWS = jnp.asarray(RNG.integers(-127, 128, (50, 32)), jnp.int32)
KERNEL = jnp.asarray(RNG.integers(-127, 128, (32, 9)), jnp.int8)


@pytest.mark.parametrize(
    ("function", "arrays"),
    [
        (product, (ROWS, KERNEL)),
        (lambda x: halved(x, 3), (STREAM,)),
        (lambda x: saturated(x, 100), (STREAM,)),
        (normalised, (STREAM,)),
        (normalised, (jnp.zeros((2, 8), jnp.int32),)),
        (normalised, (STREAM // 200,)),
    ],
)
def test_carried_numbers_give_what_integers_give(function, arrays):
    found, carried = function(*arrays), function(*(array.astype(jnp.float32) for array in arrays))
    assert (found.dtype, carried.dtype) == (jnp.int32, jnp.float32)
    np.testing.assert_array_equal(found, carried)
    assert np.abs(found).max() > 0 or not np.any(arrays[0])


def test_a_product_is_that_of_wide_integers():
    np.testing.assert_array_equal(product(ROWS, KERNEL), np.asarray(ROWS, np.int64) @ np.asarray(KERNEL, np.int64))


def test_halves_are_rounded_down():
    np.testing.assert_array_equal(halved(jnp.array([-9, -8, -1, 7, 8], jnp.int32), 3), [-2, -1, -1, 0, 1])


def test_normalised_rows_have_a_mean_magnitude_of_one():
    x = normalised(STREAM // 7)
    assert np.abs(x).max() <= LARGEST
    np.testing.assert_allclose(np.abs(x).mean(axis=1), 16, atol=1.5)


@pytest.mark.parametrize("spread", [1, 20, 100, 255])
def test_the_loss_by_integers_is_that_of_the_logits(spread):
    integers = jnp.asarray(RNG.integers(-spread, spread + 1, (200, 258)), jnp.int32)
    targets = jnp.asarray(RNG.integers(-1, 258, 200), jnp.int32)
    logits = integers.astype(jnp.float32) * NATS
    np.testing.assert_array_equal(integer_logits(logits), integers)
    expected = jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(200), targets]
    found = np.asarray(integer_losses(integers, targets))
    np.testing.assert_allclose(found / 256 * np.log(2), np.where(targets < 0, 0, expected), atol=0.02 * np.log(2))
    assert found.dtype == np.int32


def test_the_largest_losses_stay_within_their_type():
    even = integer_losses(jnp.zeros((1, MOST_CLASSES), jnp.int32), jnp.zeros(1, jnp.int32))
    assert abs(int(even[0]) / 256 - np.log2(MOST_CLASSES)) < 0.02
    far = integer_losses(jnp.array([[0, 2**24]], jnp.int32), jnp.zeros(1, jnp.int32))
    assert 0 < int(far[0]) + int(even[0]) <= 2**31 // MOST_LOSSES
