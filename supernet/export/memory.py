"""Memory of a list of operations: the most bytes that lie between them at a time."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def peak_bytes(
    steps: Sequence[tuple[Sequence[Name], Sequence[Name]]], sizes: Mapping[Name, int], outside: Collection[Name]
) -> int:
    """Returns the most bytes of tensors that are needed at a time, where one is given up after its last use.

    Args:
        steps: Inputs and outputs of each operation, in the order in which they run.
        sizes: Bytes of each output.
        outside: Tensors that do not count, as they lie there before or after.
    """
    last = {name: i for i, (given, _) in enumerate(steps) for name in given}
    held: dict[Name, int] = {}
    now = most = 0
    for i, (given, made) in enumerate(steps):
        for name in made:
            if name not in outside:
                held[name] = sizes[name]
                now += sizes[name]
        most = max(most, now)
        for name in {*given, *made} & held.keys():
            if last.get(name, i) <= i:
                now -= held.pop(name)
    return most
