"""Source `idx`: MNIST, Fashion-MNIST, KMNIST, … in their idx files, plain or .gz."""

import math
from dataclasses import dataclass

import numpy as np

from experiments.data.arrays import array_examples, class_names_of
from experiments.data.files import directory, find, read_bytes
from experiments.data.source import SOURCES, Source, Splits
from search_spaces.errors import UserError

UNSIGNED_BYTE = 8


@SOURCES.register("idx")
@dataclass(frozen=True)
class Idx(Source):
    """The four idx files of the MNIST family: `train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, …

    Args:
        path: Directory of the files.
        class_names: Name of each class; "0", "1", … where empty.

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
        folder = directory(self.path)
        arrays = {}
        for split in ("train", "t10k"):
            for kind, rank in (("images", 3), ("labels", 1)):
                path = find(folder, f"{split}-{kind}-idx{rank}-ubyte")
                arrays[split, kind] = path, parse(str(path), read_bytes(path), rank)
        path, labels = arrays["train", "labels"]
        names = class_names_of(str(path), labels, self.class_names)

        def examples(split: str):
            images, (labels_path, labels) = arrays[split, "images"][1], arrays[split, "labels"]
            return array_examples(str(labels_path), images, labels, len(names))

        return Splits(where=self.path, train=examples("train"), test=examples("t10k"), class_names=names)


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
