"""Source `idx`: MNIST, Fashion-MNIST, KMNIST, … in their idx files, plain or .gz."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments.data.arrays import array_examples, class_names_of
from experiments.data.examples import Examples
from experiments.data.files import directory, find, read_bytes
from experiments.data.source import SOURCES, Source, Splits
from search_spaces.errors import UserError

UNSIGNED_BYTE = 8


@SOURCES.register("idx")
@dataclass(frozen=True)
class Idx(Source):
    """The four idx files of the MNIST family: `train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte` and two more.

    Args:
        path: Directory of the files.
        class_names: Names of the classes, in the order of their labels; if empty, "0", "1", ….

    References:
        Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits", 1998.
    """

    path: str
    class_names: tuple[str, ...] = ()

    def read(self) -> Splits:
        """Returns both splits; plain files are mapped.

        Raises:
            UserError: A file is missing, truncated or corrupt, or images and labels do not match.
        """
        train, test = self._arrays("train"), self._arrays("t10k")
        names = class_names_of(train.path, train.labels, self.class_names)
        return Splits(where=self.path, train=train.examples(names), test=test.examples(names), class_names=names)

    def read_test(self) -> tuple[Examples, tuple[str, ...]]:
        """See `Source.read_test`: without training files, classes are numbered as the test labels say."""
        if any(directory(self.path).glob("train-*")):
            return super().read_test()
        test = self._arrays("t10k")
        names = self.class_names or tuple(str(label) for label in range(int(test.labels.max(initial=0)) + 1))
        return test.examples(names), names

    def _arrays(self, split: str) -> "_Arrays":
        folder = directory(self.path)
        paths = [find(folder, f"{split}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
        images, labels = (parse(str(path), read_bytes(path), rank) for path, rank in zip(paths, (3, 1), strict=True))
        return _Arrays(str(paths[1]), images, labels)


class _Arrays(NamedTuple):
    """Images and labels of one split, and the file of the labels."""

    path: str
    images: np.ndarray
    labels: np.ndarray

    def examples(self, names: tuple[str, ...]) -> Examples:
        return array_examples(self.path, self.images, self.labels, len(names))


def parse(where: str, content: np.ndarray, rank: int) -> np.ndarray:
    """Returns the array of an idx file of unsigned bytes.

    Args:
        where: The file, for messages.
        content: All its bytes, uint8[bytes]: two zeros, the type, the rank, each size (big-endian), the data.
        rank: Expected number of dimensions.

    Raises:
        UserError: Wrong magic number, or another length than the header says.
    """
    header = 4 + 4 * rank
    magic = bytes([0, 0, UNSIGNED_BYTE, rank])
    if bytes(content[:4]) != magic:
        raise UserError(
            f"{where}: starts with {bytes(content[:4]).hex()}; expected {magic.hex()}, an idx file of bytes with "
            f"{rank} dimension(s). Fetch the file again, or see whether it is the right one."
        )
    if len(content) < header:
        raise UserError(f"{where}: ends within its header of {header} bytes. Fetch the file again.")
    shape = tuple(int(size) for size in np.frombuffer(content[4:header].tobytes(), ">u4"))
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise UserError(
            f"{where}: {len(content)} bytes; its header promises {list(shape)}, which is {expected}. "
            f"Fetch the file again."
        )
    return content[header:].reshape(shape)
