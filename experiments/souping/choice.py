"""Choice of the ingredients of a soup: all, or greedily those that do not worsen it on held-out examples.

References:
    Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
    inference time", 2022, arXiv:2203.05482, algorithm 1 (`greedy`).
Differs: `greedy_of_shapes` is ours. A soup of several shapes gives each of them weights, so that an ingredient is taken
where no shape loses more than a tolerance, not where one figure gets better.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from search_spaces import UserError
from search_spaces.typed_settings import show

Method = Literal["greedy", "uniform"]
Members = tuple[int, ...]
"""Numbers of ingredients, in the order in which they were taken."""
Shape = TypeVar("Shape", bound=Hashable)
_LARGEST_TOLERANCE = 1000


def check_method(method: Any) -> None:
    """Refuses a method that is not known.

    Raises:
        UserError: The method is none of `Method`.
    """
    if method not in get_args(Method):
        raise UserError(f"--method: {show(method)} is not known. Give {' or '.join(get_args(Method))}.")


def check_tolerance(tolerance: Any) -> None:
    """Refuses a tolerance that is no number of a size that makes sense.

    Raises:
        UserError: The tolerance is neither None nor a number of 0 to 1000.
    """
    if tolerance is None:
        return
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not number or not 0 <= tolerance <= _LARGEST_TOLERANCE:
        raise UserError(f"--tolerance: {show(tolerance)} is not a number of 0 to {_LARGEST_TOLERANCE}.")


def by_error(errors: Sequence[float]) -> list[int]:
    """Returns the numbers of ingredients, the best one first; those that have failed (NaN) are left out."""
    order = np.argsort(np.asarray(errors, np.float64), kind="stable")
    return [int(number) for number in order if np.isfinite(errors[number])]


def greedy(errors: Sequence[float], error_of: Callable[[Members], float]) -> Members:
    """Chooses ingredients of one shape greedily: the best, then each that strictly lowers the error of the soup.

    Args:
        errors: Error of each ingredient alone, on held-out examples; NaN where it has failed.
        error_of: Measures the soup of some ingredients on the same examples.

    Returns:
        The ingredients, in the order in which they were taken; at least one.

    Raises:
        ValueError: All have failed.
    """
    first, *others = by_error(errors)
    taken, lowest = (first,), errors[first]
    for number in others:
        error = error_of((*taken, number))
        if error < lowest:
            taken, lowest = (*taken, number), error
    return taken


def greedy_of_shapes(
    errors: Sequence[float],
    shapes: Sequence[Shape],
    errors_of: Callable[[Members], Mapping[Shape, float]],
    tolerance: float,
) -> Members:
    """Chooses ingredients of several shapes greedily: the best, then each with which no shape loses too much.

    Args:
        errors: Error of each ingredient alone, on held-out examples; NaN where it has failed.
        shapes: Shape of each ingredient.
        errors_of: Measures the soup of some ingredients, cut to each of their shapes, on the same examples.
        tolerance: By how much the error of a shape may exceed that of its best ingredient.

    Returns:
        The ingredients, in the order in which they were taken; at least one.

    Raises:
        ValueError: All have failed.
    """
    best = best_of_shapes(errors, shapes)
    first, *others = by_error(errors)
    taken: Members = (first,)
    for number in others:
        trial = (*taken, number)
        if not losers(errors_of(trial), best, tolerance):
            taken = trial
    return taken


def best_of_shapes(errors: Sequence[float], shapes: Sequence[Shape]) -> dict[Shape, float]:
    """Returns the error of the best ingredient of each shape; a shape all of whose ingredients failed is not there."""
    best: dict[Shape, float] = {}
    for number in by_error(errors):
        best.setdefault(shapes[number], errors[number])
    return best


def losers(found: Mapping[Shape, float], best: Mapping[Shape, float], tolerance: float) -> list[Shape]:
    """Returns the shapes that lose more than the tolerance, or have failed."""
    return [shape for shape, error in found.items() if not error <= best.get(shape, np.inf) + tolerance]
