"""Tests of the order of examples and of the thread that prepares batches."""

import gc
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data.batches import Prefetcher, batch_indices
from search_spaces.errors import UserError

SIZES = st.integers(1, 40)
BATCHES = st.integers(1, 50)
SEEDS = st.integers(0, 2**40)


@given(SIZES, BATCHES, SEEDS, st.integers(1, 5))
def test_every_epoch_visits_each_example_once(size, batch, seed, epochs):
    steps = -(-size * epochs // batch)
    stream = np.concatenate([batch_indices(size, batch, seed, step) for step in range(steps)])
    assert stream.dtype == np.int64
    assert len(stream) == steps * batch
    for epoch in range(epochs):
        assert sorted(stream[epoch * size : (epoch + 1) * size].tolist()) == list(range(size))


@given(SIZES, BATCHES, SEEDS, st.integers(0, 10**6))
def test_the_stream_does_not_depend_on_where_one_starts_or_on_the_batch_size(size, batch, seed, step):
    whole = batch_indices(size, 2 * batch, seed, step)
    halves = [batch_indices(size, batch, seed, 2 * step + half) for half in (1, 0)]
    assert np.array_equal(whole, np.concatenate(halves[::-1]))
    assert np.array_equal(whole, batch_indices(size, 2 * batch, seed, step))


def test_seeds_and_epochs_give_different_orders():
    orders = {batch_indices(100, 100, seed, epoch).tobytes() for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_a_batch_cannot_be_changed_for_the_next_caller():
    before = batch_indices(10, 10, 0, 0).copy()
    batch_indices(10, 10, 0, 0)[:] = 0
    assert np.array_equal(batch_indices(10, 10, 0, 0), before)


@pytest.mark.parametrize(("size", "batch"), [(0, 4), (4, 0), (4, -1)])
def test_impossible_batches_are_refused(size, batch):
    with pytest.raises(UserError, match=f"batches of {batch} from {size}"):
        batch_indices(size, batch, 0, 0)


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def wait_until(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


def test_items_come_in_order_and_the_thread_ends():
    with Prefetcher(lambda step: step * step, range(3, 50), depth=3) as items:
        assert list(items) == [step * step for step in range(3, 50)]
        assert list(items) == []
    assert not prefetching()


def test_items_are_made_ahead_but_no_more_than_depth():
    made = []
    with Prefetcher(lambda step: made.append(step) or step, range(100), depth=2) as items:
        assert wait_until(lambda: made == [0, 1])
        time.sleep(0.05)
        assert made == [0, 1]
        assert next(items) == 0
        assert wait_until(lambda: made == [0, 1, 2])


def test_leaving_early_stops_the_thread():
    def leave():
        with Prefetcher(lambda step: step, range(10**9)) as items:
            next(items)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert not prefetching()


def test_nothing_comes_after_close():
    items = Prefetcher(lambda step: step, range(10))
    items.close()
    items.close()
    assert next(items, "none") == "none"
    assert not prefetching()


def test_an_iterator_that_is_dropped_leaves_no_thread():
    items = Prefetcher(lambda step: step, range(10**9))
    next(items)
    del items
    gc.collect()
    assert wait_until(lambda: not prefetching())


def test_an_error_reaches_the_consumer_after_the_items_before_it():
    def make(step: int) -> int:
        if step == 2:
            raise UserError("picture 2 cannot be decoded")
        return step

    with Prefetcher(make, range(10)) as items:
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(UserError, match="picture 2"):
            next(items)
    assert not prefetching()


def test_depth_must_be_positive():
    with pytest.raises(UserError, match="depth 0"):
        Prefetcher(lambda step: step, range(3), depth=0)
