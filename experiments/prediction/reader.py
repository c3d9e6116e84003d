"""Reader: how files and requests become the examples of a network; one for each task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from search_spaces import Registry, UserError
from supernet.export.subnet import Subnet


class Part(NamedTuple):
    """Some examples of files.

    Attributes:
        names: For each example `file`, and `row` where a file holds several.
        examples: Input of `Subnet.predict`.
    """

    names: list[dict[str, str]]
    examples: np.ndarray


class UnreadableRequest(UserError):
    """A request holds nothing that the network takes."""


@dataclass(frozen=True)
class Reader(ABC):
    """Reads examples for a network, as they were read for its training.

    Args:
        subnet: The network.

    Attributes:
        suffixes: Endings of the files that are read in folders, in small letters.
        media: Media types of requests that `from_bytes` reads, or their beginnings, such as `image/`.
    """

    subnet: Subnet

    suffixes: ClassVar[tuple[str, ...]]
    media: ClassVar[tuple[str, ...]] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.subnet.config["input"]["shape"])

    @abstractmethod
    def read(self, files: Sequence[Path], batch_size: int) -> Iterator[Part]:
        """Yields the examples of files in their order, about a batch at a time.

        Raises:
            UserError: A file cannot be read, or holds something else.
        """

    def from_bytes(self, where: str, content: bytes, most_pixels: int) -> np.ndarray:
        """Returns one example of a file that was sent.

        Raises:
            UserError: The file cannot be read.
        """
        raise UnreadableRequest(f"{where}: this network takes JSON.")

    @abstractmethod
    def from_json(self, given: list[Any]) -> np.ndarray:
        """Returns the examples of a list from JSON.

        Raises:
            UserError: The list contains something else.
        """


READERS: Registry[Callable[[Subnet], Reader]] = Registry("reader of files", "experiments.prediction.readers")
"""Functions that make the reader for a network, by the name of its task."""


def as_array(given: list[Any], dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Returns nested lists of numbers from JSON as an array, [n, *shape].

    Raises:
        UnreadableRequest: The lists are ragged, of another shape, or not numbers of this type.
    """
    wanted = f"a list of {'x'.join(map(str, shape))} arrays of numbers" if shape else "a list of numbers"
    try:
        found = np.asarray(given)
    except (ValueError, OverflowError):
        raise UnreadableRequest(f"examples: ragged lists; expected {wanted}.") from None
    if found.dtype.kind not in "iufb" or found.shape[1:] != shape:
        what = f"{found.dtype} of shape {list(found.shape)}" if found.dtype.kind in "iufb" else "not all are numbers"
        raise UnreadableRequest(f"examples: {what}; expected {wanted}.")
    if np.issubdtype(dtype, np.integer):
        bounds = np.iinfo(dtype)
        if not (np.all(found == np.rint(found)) and bounds.min <= found.min() and found.max() <= bounds.max):
            raise UnreadableRequest(f"examples: expected whole numbers in {bounds.min}..{bounds.max}.")
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        return found.astype(dtype)
