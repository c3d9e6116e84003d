"""Shaping of fitness: ranks, groups, equals, and pairs that have no finite fitness."""

import numpy as np
import pytest

from search_spaces import UserError
from supernet.evolution_strategy.fitness import finite_pairs, ranks, shaped
from supernet.evolution_strategy.settings import EvolutionStrategySettings


def test_equals_share_their_ranks():
    np.testing.assert_array_equal(ranks(np.array([3.0, 1.0, 3.0, 9.0])), [1.5, 0, 1.5, 3])


@pytest.mark.parametrize("shaping", ["rank", "standardise"])
def test_shaped_fitness_has_mean_zero_and_unit_variance(shaping):
    values = np.random.default_rng(0).exponential(size=32)
    found = shaped(values, shaping, 4)
    np.testing.assert_allclose([*found.reshape(4, 8).mean(axis=1), found.std()], [0, 0, 0, 0, 1], atol=1e-12)
    monotone = shaped(np.exp(values), "rank", 4)
    np.testing.assert_allclose(monotone, shaped(values, "rank", 4))


def test_a_group_is_compared_with_itself_alone():
    values = np.array([1.0, 2, 3, 4, 101, 102, 103, 104])
    found = shaped(values, "standardise", 2)
    np.testing.assert_allclose(found[:4], found[4:])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_pair_without_a_finite_fitness_is_left_out_whole(bad):
    values = np.array([1.0, 2.0, bad, 5.0, 4.0, 3.0])
    found = shaped(values, "rank", 1)
    np.testing.assert_array_equal(found[2:4], 0)
    np.testing.assert_allclose(found[[0, 1, 4, 5]], shaped(values[[0, 1, 4, 5]], "rank", 1))
    assert finite_pairs(values[None]).tolist() == [[True, False, True]]
    assert not shaped(np.full(4, bad), "rank", 1).any()


def test_equal_members_do_not_move_anything():
    assert not shaped(np.full(6, 0.25), "rank", 1).any()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("population", 7), ("population", 0), ("sigma", 0.0), ("sigma", -1.0), ("rank", 0), ("noise_reuse", 0),
     ("groups", 3), ("chunk", 3), ("fitness", "acuracy")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(UserError, match=rf"^train\.evolution_strategy\.{setting}: "):
        EvolutionStrategySettings(**{setting: value})


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [("population", 2**21, "an even number from 2 to 1,048,576"),
     ("noise_reuse", 10**10, "at least 1 and at most 1,000,000,000")],
)  # fmt: skip
def test_settings_beyond_their_bounds_say_them(setting, value, expected):
    with pytest.raises(UserError) as error:
        EvolutionStrategySettings(**{setting: value})
    assert str(error.value) == f"train.evolution_strategy.{setting}: {value} is out of range. Give {expected}."


def test_chunks_divide_the_groups():
    settings = EvolutionStrategySettings(population=48, groups=2, chunk=16)
    assert (settings.pairs_of_chunk, settings.chunks) == (6, 4)
