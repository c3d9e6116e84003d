"""Bounds of a space: how large sizes may be, how many genes there may be, and what costs may add up to.

Beyond them a description is a slip of the pen: counts would overflow, or tables and lists of layers fill the memory.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.errors import UserError

LARGEST_SIZE = 1 << 24
"""Most that a whole-number setting of a space may be."""
LARGEST_NUMBER = 1e12
"""Most that any other number may be."""
LARGEST_COST = 1 << 53
"""Most that a cost may be: whole numbers up to here are exact in float64, which tables are also read as."""
MOST_GENES, MOST_ENTRIES = 1 << 12, 1 << 18


def check_sizes(settings: Mapping[str, Any]) -> None:
    """Refuses numbers of a space's settings that are beyond any network.

    Args:
        settings: Setting to value: numbers, and tuples of them at any depth.

    Raises:
        UserError: One is too large.
    """
    for name, value in settings.items():
        for number in _numbers(value):
            most = LARGEST_SIZE if isinstance(number, int) else LARGEST_NUMBER
            if abs(number) > most:
                raise UserError(f"space.{name}: {number} is out of range. Give at most {most:,.0f}.")


def check_genes(name: str, count: int) -> None:
    """Refuses a choice of so many genes.

    Raises:
        UserError: There are too many.
    """
    if count > MOST_GENES:
        raise UserError(f"space.{name}: {count:,} layers or blocks to choose for. Give a depth below {MOST_GENES:,}.")


def check_entries(sizes: Sequence[int]) -> None:
    """Refuses a cost table with a row for each combination of so many values.

    Raises:
        UserError: There are too many.
    """
    if math.prod(sizes) > MOST_ENTRIES:
        raise UserError(
            f"space: choices of {' x '.join(map(str, sizes))} values have {math.prod(sizes):,} combinations in one "
            f"layer. Give shorter lists, of at most {MOST_ENTRIES:,} combinations."
        )


def check_rows(count: int) -> None:
    """Refuses cost tables with so many rows in all, of which float32 cannot name each.

    Raises:
        UserError: There are too many.
    """
    if count >= 1 << 24:
        raise UserError(f"space: {count:,} rows of cost tables. Give shorter lists of choices, or less depth.")


def check_costs(metrics: Sequence[str], most: Sequence[int]) -> None:
    """Refuses costs that cannot be counted exactly.

    Args:
        metrics: Names of the costs.
        most: The most that each may add up to.

    Raises:
        UserError: One is too large.
    """
    for metric, value in zip(metrics, most, strict=True):
        if value > LARGEST_COST:
            raise UserError(
                f"space: {metric} of its largest networks is {value:.3g}, more than can be counted exactly "
                f"({LARGEST_COST:.3g}). Give smaller sizes."
            )


def _numbers(value: Any) -> list[int | float]:
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []
