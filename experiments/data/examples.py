"""Examples: labelled images of one split, over a store that holds them in an array or reads them when asked."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Int, Int32, UInt8

from experiments.data.class_names import renumbered
from experiments.data.dataset import Split
from supernet.export.subnet import Subnet

Images = UInt8[np.ndarray, "n height width channels"]

CHUNK = 4096
STATISTICS_LIMIT = 2048


class ImageStore(ABC):
    """Store of the images of one split: row numbers in, pixels out."""

    lazy: ClassVar[bool]
    """Whether a read decodes files, so that reading every image is costly."""
    background: str | None = None
    """Colour behind what is transparent; None where such images are refused, or nothing is decoded."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """(rows, height, width, channels)."""

    @abstractmethod
    def read(self, rows: Int[np.ndarray, " n"]) -> Images:
        """Returns the images of `rows`, in that order."""

    @abstractmethod
    def identify(self, digest: "hashlib._Hash") -> None:
        """Feeds `digest` whatever tells this store from another one of the same shape."""


@dataclass(frozen=True, eq=False)
class ArrayStore(ImageStore):
    """Images in an array, which may be a memory map.

    Args:
        pixels: uint8[rows, height, width, channels].
    """

    lazy: ClassVar[bool] = False
    pixels: Images

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(rows, height, width, channels)."""
        rows, height, width, channels = self.pixels.shape
        return rows, height, width, channels

    def read(self, rows: Int[np.ndarray, " n"]) -> Images:
        """Returns a copy of the images of `rows`."""
        return np.ascontiguousarray(self.pixels[rows])

    def identify(self, digest: "hashlib._Hash") -> None:
        """Feeds every pixel, in order."""
        for start in range(0, len(self.pixels), CHUNK):
            digest.update(self.pixels[start : start + CHUNK].tobytes())


@dataclass(frozen=True, eq=False)
class Examples(Split):
    """Labelled images of one split.

    Args:
        store: Holds the images.
        labels: Class of each example, int32[n].
        rows: Row of the store that each example is, int64[n].
    """

    store: ImageStore
    labels: Int32[np.ndarray, " n"]
    rows: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.store.shape[1:]

    def images(self, indices: Int[np.ndarray, " n"]) -> Images:
        """Returns the images of examples `indices` (0..len-1), in that order.

        Raises:
            UserError: A lazily read image cannot be decoded.
        """
        return self.store.read(self.rows[indices])

    def read(self, rows: Int[np.ndarray, " n"]) -> tuple[Images, Int32[np.ndarray, " n"]]:
        """Returns the images and the labels of examples, in that order."""
        return self.images(rows), self.labels[rows]

    def take(self, indices: Int[np.ndarray, " n"]) -> "Examples":
        """Returns these examples alone; no pixel is copied."""
        return Examples(self.store, self.labels[indices], self.rows[indices])

    @property
    def strata(self) -> Int32[np.ndarray, " n"]:
        """See `Split.strata`: the classes."""
        return self.labels

    def for_network(self, where: str, class_names: Sequence[str], subnet: Subnet) -> "Examples":
        """See `Split.for_network`."""
        return renumbered(where, self, class_names, subnet.config["labels"]) if class_names else self

    def chunks(self, indices: Int[np.ndarray, " n"]) -> Iterator[Images]:
        """Yields the images of `indices` in order, a few thousand at a time."""
        for start in range(0, len(indices), CHUNK):
            yield self.images(indices[start : start + CHUNK])

    @cached_property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel of the pixels scaled to 0..1.

        Sums are of integers, so the figures are exact and do not depend on an order. Of a lazy store at most
        `STATISTICS_LIMIT` evenly spaced examples are read. The deviation of a constant channel is given as 1, so
        that normalising it yields zeros.
        """
        count = min(len(self), STATISTICS_LIMIT) if self.store.lazy else len(self)
        levels = np.zeros((self.image_shape[-1], 256), np.int64)
        for images in self.chunks(np.arange(count) * len(self) // count):
            for channel, histogram in enumerate(levels):
                histogram += np.bincount(images[..., channel].ravel(), minlength=256)
        value = np.arange(256)
        mean, deviation = [], []
        for histogram in levels:
            pixels, total, squares = (int(x) for x in (histogram.sum(), histogram @ value, histogram @ value**2))
            variance = pixels * squares - total**2
            mean.append(total / (255 * pixels))
            deviation.append(math.sqrt(variance) / (255 * pixels) if variance else 1.0)
        return tuple(mean), tuple(deviation)


def all_of(store: ImageStore, labels: Int32[np.ndarray, " n"]) -> Examples:
    """Returns every row of `store` as an example."""
    return Examples(store, labels, np.arange(len(labels), dtype=np.int64))
