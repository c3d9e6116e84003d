"""The mean of each entry over the trees that own it."""

import jax
import numpy as np

from supernet.weights.averages import owned_mean

TREE = {"a": np.array([[1, 2], [3, 4]], np.float32), "b": np.array([5], np.float32)}
ALL = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), TREE)


def times(factor: float) -> dict[str, np.ndarray]:
    return jax.tree.map(lambda leaf: np.float32(factor) * leaf, TREE)


def test_trees_that_own_everything_have_their_plain_mean() -> None:
    found = owned_mean([(times(1), ALL), (times(2), ALL), (times(6), ALL)], times(100))
    jax.tree.map(np.testing.assert_array_equal, found, times(3))


def test_an_entry_is_divided_by_those_that_own_it_and_stays_where_nobody_does() -> None:
    first = {"a": np.array([[True, True], [False, False]]), "b": np.array([False])}
    second = {"a": np.array([[True, False], [False, False]]), "b": np.array([False])}
    found = owned_mean([(times(1), first), (times(3), second)], times(10))
    np.testing.assert_array_equal(found["a"], [[2, 2], [30, 40]])
    np.testing.assert_array_equal(found["b"], [50])


def test_what_is_not_owned_may_be_anything() -> None:
    own = {"a": np.array([[True, True], [False, False]]), "b": np.array([True])}
    broken = {"a": np.array([[1, 2], [np.nan, np.inf]], np.float32), "b": np.array([5], np.float32)}
    found = owned_mean([(broken, own)], times(0))
    np.testing.assert_array_equal(found["a"], [[1, 2], [0, 0]])


def test_equal_weights_stay_what_they_are_to_the_bit() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    for count in (1, 3, 7, 13):
        found = owned_mean([({"w": values}, {"w": np.ones(1000, bool)})] * count, {"w": values})
        np.testing.assert_array_equal(np.asarray(found["w"]), values)


def test_means_of_whole_numbers_are_rounded_to_the_nearest() -> None:
    first, second = np.array([-3, -2, 5, 127], np.int8), np.array([-4, -5, 6, 127], np.int8)
    every = {"w": np.ones(4, bool)}
    found = owned_mean([({"w": first}, every), ({"w": second}, every), ({"w": second}, every)], {"w": first})["w"]
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, [-4, -4, 6, 127])
