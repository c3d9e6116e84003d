"""Class names of data and of a network, matched: a class is its name, and its number only where it has none."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.data.examples import Examples
from search_spaces.errors import UserError


def renumbered(where: str, examples: Examples, names: Sequence[str], known: Sequence[str]) -> Examples:
    """Numbers the classes of examples as a network does.

    Where one side has numbers for names, numbers are what counts. A network may know more classes than the data.

    Args:
        where: The data in messages.
        examples: The examples.
        names: Names of their classes, by number.
        known: Names of the network's classes, by number.

    Raises:
        UserError: The data have a class that the network does not know.
    """
    if list(names) == list(known):
        return examples
    if _numbers(names) or _numbers(known):
        if len(names) > len(known):
            raise UserError(
                f"{where}: {len(names)} classes, but the network has {len(known)}. Give data of its classes."
            )
        return examples
    unknown = [name for name in names if name not in known]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserError(
            f"{where}: the network has no class {unknown[0]!r}{more}; it knows {', '.join(known[:10])}"
            f"{', …' if len(known) > 10 else ''}. Rename the classes, or leave them out."
        )
    numbers = np.array([list(known).index(name) for name in names], np.int32)
    return dataclasses.replace(examples, labels=numbers[examples.labels])


def _numbers(names: Sequence[str]) -> bool:
    return list(names) == [str(number) for number in range(len(names))]
