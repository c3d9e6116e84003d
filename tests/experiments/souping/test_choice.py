"""Which ingredients a soup takes."""

import math

import pytest

from experiments.souping.choice import best_of_shapes, by_error, greedy, greedy_of_shapes, losers


def test_greedy_begins_with_the_best_and_takes_what_is_strictly_better() -> None:
    asked = []
    soups = {(2, 0): 0.2, (2, 1): 0.1, (2, 1, 3): 0.05}

    def error_of(members: tuple[int, ...]) -> float:
        asked.append(members)
        return soups[members]

    assert greedy([0.3, 0.4, 0.2, 0.5], error_of) == (2, 1, 3)  # 0 would only be as good
    assert asked == [(2, 0), (2, 1), (2, 1, 3)]


def test_greedy_is_never_worse_than_the_best() -> None:
    assert greedy([0.3, 0.4, 0.2], lambda members: 0.2 + 0.1 * len(members)) == (2,)
    assert greedy([0.3, 0.4, 0.2], lambda members: math.nan) == (2,)


def test_failed_ingredients_are_left_out_and_equal_ones_keep_their_order() -> None:
    assert by_error([0.2, math.nan, 0.1, 0.2]) == [2, 0, 3]
    with pytest.raises(ValueError, match="not enough values"):
        greedy([math.nan], lambda members: 0.0)


def test_shapes_are_taken_where_none_loses_more_than_the_tolerance() -> None:
    errors, shapes = [0.1, 0.2, 0.3], ["large", "small", "large"]
    assert best_of_shapes(errors, shapes) == {"large": 0.1, "small": 0.2}
    soups = {(0, 1): {"large": 0.11, "small": 0.1}, (0, 2): {"large": 0.1}, (0, 1, 2): {"large": 0.11, "small": 0.21}}
    assert greedy_of_shapes(errors, shapes, soups.__getitem__, 0.0) == (0, 2)
    assert greedy_of_shapes(errors, shapes, soups.__getitem__, 0.02) == (0, 1, 2)


def test_a_shape_that_has_failed_has_lost() -> None:
    assert losers({"a": 0.1, "b": math.nan, "c": 0.12}, {"a": 0.1, "b": 0.1, "c": 0.1}, 0.05) == ["b"]
