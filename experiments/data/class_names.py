"""Class names of data and of a network, matched: a class is its name, and its number only where it has none."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32

from search_spaces.errors import UserError

if TYPE_CHECKING:
    from experiments.data.examples import Examples


def renumbered(
    where: str, examples: "Examples", names: Sequence[str], known: Sequence[str], whose: str = "network"
) -> "Examples":
    """Numbers the classes of examples as a network does; see `class_numbers` for arguments and errors."""
    numbers = class_numbers(where, names, known, whose)
    if (numbers == np.arange(len(names))).all():
        return examples
    return dataclasses.replace(examples, labels=numbers[examples.labels])


def class_numbers(
    where: str, names: Sequence[str], known: Sequence[str], whose: str = "network"
) -> Int32[np.ndarray, " n"]:
    """Returns the number of each class among the classes that are known, which may be more.

    Classes are matched by name. Where the one side has only numbers ("0", "1", …) and the other has names, numbers are
    what counts.

    Args:
        where: The classes in messages.
        names: Their names, by number.
        known: Names of the known classes, by number.
        whose: Owner of the known classes, in messages.

    Raises:
        UserError: A class is not known.
    """
    number_of = {name: number for number, name in enumerate(known)}
    unknown = [name for name in names if name not in number_of]
    if not unknown:
        return np.array([number_of[name] for name in names], np.int32)
    if not known:
        raise UserError(f"{where}: has classes, and the {whose} has none. Give data of its task.")
    if are_numbers(names) or (are_numbers(known) and len(unknown) == len(names)):
        if len(names) > len(known):
            raise UserError(
                f"{where}: {len(names)} classes, but the {whose} has {len(known)}. Give data of its classes."
            )
        return np.arange(len(names), dtype=np.int32)
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    raise UserError(
        f"{where}: the {whose} has no class {unknown[0]!r}{more}; it knows {', '.join(known[:10])}"
        f"{', …' if len(known) > 10 else ''}. Rename the classes, or leave them out."
    )


def are_numbers(names: Sequence[str]) -> bool:
    """Returns whether class names are "0", "1", … in this order, the default names."""
    return list(names) == [str(number) for number in range(len(names))]
