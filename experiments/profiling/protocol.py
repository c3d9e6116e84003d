"""Protocols: how a device is measured, and which networks of a space are."""

from dataclasses import dataclass

import numpy as np

from search_spaces import Genes, SearchSpace, UserError
from search_spaces.randomness import Purpose, stream

_DRAWS = 100
_MOST, _LARGEST_BATCH = 10**6, 2**20

Wanted = tuple[tuple[int, ...], int]
"""Genes and a batch size."""


@dataclass(frozen=True)
class Protocol:
    """Settings of a device's measurement.

    Attributes:
        batch_sizes: Examples a call; the first is what `latency_ms` means unless an experiment says otherwise.
        networks: Networks that the tables are fitted to; the smallest and the largest are among them.
        held_out: Networks that the predictions are compared with.
        warmup: Calls before measuring.
        repeats: Samples of each network, of which the median counts.
        seed: Seed of the draws.

    Raises:
        UserError: A number that is too small.
    """

    batch_sizes: tuple[int, ...] = (1, 64)
    networks: int = 100
    held_out: int = 50
    warmup: int = 3
    repeats: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("networks", 10), ("held_out", 3), ("warmup", 1), ("repeats", 1), ("seed", 0)):
            value = getattr(self, name)
            if value > _MOST:
                raise UserError(f"--{name.replace('_', '-')}: {value} is out of range. Give at most {_MOST:,}.")
            if value < least:
                option = name.replace("_", "-")
                raise UserError(f"--{option}: {value} is less than {least}. Give {least} or more.")
        if not self.batch_sizes or min(self.batch_sizes) < 1 or len(set(self.batch_sizes)) < len(self.batch_sizes):
            sizes = ",".join(str(size) for size in self.batch_sizes)
            raise UserError(f"--batch-sizes: {sizes!r} are not different positive numbers. Give such as 1,64.")
        if max(self.batch_sizes) > _LARGEST_BATCH:
            raise UserError(f"--batch-sizes: {max(self.batch_sizes)} is out of range. Give at most {_LARGEST_BATCH:,}.")

    def has_more_than(self, other: "Protocol") -> bool:
        """Returns whether it contains all measurements of another protocol, and more."""
        if (self.warmup, self.repeats, self.seed) != (other.warmup, other.repeats, other.seed):
            return False
        if self.batch_sizes[0] != other.batch_sizes[0] or not set(self.batch_sizes).issuperset(other.batch_sizes):
            return False
        counts = [(len(one.batch_sizes), one.networks, one.held_out) for one in (self, other)]
        return counts[0] != counts[1] and all(here >= there for here, there in zip(*counts, strict=True))


QUICK = Protocol(batch_sizes=(1,), networks=40, held_out=20)
"""A fifth of the measurements of the default, which count when the rest is measured later."""


def batch_sizes(text: str) -> tuple[int, ...]:
    """Reads numbers between commas.

    Raises:
        UserError: Something else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--batch-sizes: {text!r} are no numbers. Give such as 1,64.") from None


def draw(space: SearchSpace, protocol: Protocol) -> tuple[Genes, Genes]:
    """Networks to fit to (the smallest and the largest first) and held-out ones, all different.

    More of one kind extend the fewer of another call, so that their measurements still count.

    Raises:
        UserError: The space has not enough of them.
    """
    wanted = protocol.networks + protocol.held_out
    if space.size < wanted:
        raise UserError(
            f"--networks: {protocol.networks} and {protocol.held_out} held out are more than the {space.size} networks "
            f"of the space. Give {max(space.size - protocol.held_out, 0)} or fewer networks, or hold out fewer."
        )
    ends = space.extremes
    taken = {row.tobytes() for row in ends}
    held_out = _distinct(space, stream(protocol.seed, Purpose.HELD_OUT_NETWORKS), protocol.held_out, taken)
    more = _distinct(space, stream(protocol.seed, Purpose.PROFILED_NETWORKS), protocol.networks - len(ends), taken)
    return np.concatenate([ends, more]), held_out


def _distinct(space: SearchSpace, rng: np.random.Generator, count: int, taken: set[bytes]) -> Genes:
    rows = []
    for _ in range(_DRAWS * count):
        row = space.sample(rng, 1)[0]
        if row.tobytes() not in taken:
            taken.add(row.tobytes())
            rows.append(row)
        if len(rows) == count:
            break
    else:
        raise UserError(f"--networks: only {len(rows)} of {count} different networks were found. Give fewer.")
    return np.stack(rows)


def all_wanted(networks: tuple[Genes, Genes], protocol: Protocol) -> list[Wanted]:
    """Returns what is to be measured: all networks of `draw` at every batch size."""
    rows = [tuple(row) for row in np.concatenate(networks).tolist()]
    return [(row, size) for row in rows for size in protocol.batch_sizes]
