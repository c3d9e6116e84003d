"""The order of training examples, a pure function of (seed, step), and a thread that prepares the next batches."""

import functools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Int64

from search_spaces.errors import UserError
from search_spaces.randomness import Purpose, stream

T = TypeVar("T")


def batch_indices(
    size: int, batch_size: int, seed: int, step: int, purpose: Purpose = Purpose.EXAMPLE_ORDER
) -> Int64[np.ndarray, " b"]:
    """Returns the examples of one batch.

    The permutations of epoch 0, 1, … follow each other and are cut in batches, so every epoch visits each example once
    and none is dropped; an epoch may end within a batch. The batch of a step does not depend on the steps before it.

    Args:
        size: Number of examples, at least 1.
        batch_size: Examples a batch, at least 1; it may exceed `size`.
        seed: Decides the order, with the epoch. Not negative.
        step: Number of the batch, from 0.
        purpose: Whose order; orders of different purposes have nothing to do with each other.

    Raises:
        UserError: No examples, or a batch size of less than 1.
    """
    if size < 1 or batch_size < 1:
        raise UserError(
            f"data: batches of {batch_size} from {size} examples. Set a batch size of at least 1 and a source that "
            f"has training examples."
        )
    first, end = step * batch_size, (step + 1) * batch_size
    pieces = [
        _order(size, seed, purpose, epoch)[max(first - epoch * size, 0) : end - epoch * size]
        for epoch in range(first // size, (end - 1) // size + 1)
    ]
    return np.concatenate(pieces)


@functools.lru_cache(maxsize=4)
def _order(size: int, seed: int, purpose: Purpose, epoch: int) -> Int64[np.ndarray, " n"]:
    order = stream(seed, purpose, epoch).permutation(size).astype(np.int64)
    order.flags.writeable = False  # the cache hands the same array to every caller
    return order


@dataclass
class _Shared:
    """What the thread and the consumer share; apart from `Prefetcher`, so that the thread does not keep that alive."""

    depth: int
    ready: deque[Any] = field(default_factory=deque)
    error: BaseException | None = None
    finished: bool = False
    closed: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.ready.clear()
            self.changed.notify_all()


class Prefetcher(Generic[T]):
    """Iterator over `make(step)` for each step, made ahead of time by a background thread, in order.

    Use it as a context manager: leaving the block stops the thread and waits for it.

    Args:
        make: Makes one item, for example the batch of a step. Called from the thread, one step at a time.
        steps: The steps to make, in order.
        depth: Number of items that may be ready and not yet taken, at least 1.

    Raises:
        Exception: Whatever `make` raises is raised by `next`, after the items made before it.
    """

    def __init__(self, make: Callable[[int], T], steps: Iterable[int], depth: int = 2) -> None:
        if depth < 1:
            raise UserError(f"data: prefetch depth {depth} is less than 1. Set 1 or more.")
        self._shared = _Shared(depth)
        self._thread = threading.Thread(target=_fill, args=(self._shared, make, steps), name="prefetch", daemon=True)
        weakref.finalize(self, self._shared.close)  # an iterator that was dropped must not leave its thread waiting
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        shared = self._shared
        with shared.changed:
            while not (shared.ready or shared.finished or shared.closed):
                shared.changed.wait()
            if shared.ready:
                item = shared.ready.popleft()
                shared.changed.notify_all()
                return item
            if shared.error is not None and not shared.closed:
                raise shared.error
            raise StopIteration

    def close(self) -> None:
        """Stops the thread, waits for the item that it is making, and drops what is ready."""
        self._shared.close()
        self._thread.join()

    def __enter__(self) -> "Prefetcher[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fill(shared: _Shared, make: Callable[[int], Any], steps: Iterable[int]) -> None:
    try:
        for step in steps:
            with shared.changed:
                while len(shared.ready) >= shared.depth and not shared.closed:
                    shared.changed.wait()
                if shared.closed:
                    return
            item = make(step)
            with shared.changed:
                if shared.closed:
                    return
                shared.ready.append(item)
                shared.changed.notify_all()
    except BaseException as error:  # handed to the consumer, whatever it is
        shared.error = error
    finally:
        with shared.changed:
            shared.finished = True
            shared.changed.notify_all()
