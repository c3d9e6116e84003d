"""Source `cifar`: CIFAR-10 and CIFAR-100 in their binary layout, plain, .xz or .gz."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.arrays import array_examples, checked_labels
from experiments.data.examples import Examples
from experiments.data.files import directory, find, read_bytes, with_suffix
from experiments.data.source import SOURCES, Source, Splits
from search_spaces.errors import UserError

PIXELS = 3 * 32 * 32
SUFFIXES = (".bin", ".bin.xz", ".bin.gz")
TRAIN_10 = tuple(f"data_batch_{number}" for number in range(1, 6))
PYTHON_LAYOUT = ("batches.meta", *TRAIN_10, "test_batch", "meta", "train", "test")
NAMES_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@SOURCES.register("cifar")
@dataclass(frozen=True)
class Cifar(Source):
    """CIFAR-10 (`test_batch.bin`, and all `data_batch_1.bin` … present) or CIFAR-100 (`train.bin`, `test.bin`).

    CIFAR-100 is read with its 100 fine labels; `fine_label_names.txt` names them where it is there.

    Args:
        path: Directory of the files.

    References:
        A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    path: str

    def read(self) -> Splits:
        """Returns both splits.

        Raises:
            UserError: A file is missing, truncated or corrupt, or is of the python (pickle) layout.
        """
        folder = directory(self.path)
        batches = [found for name in TRAIN_10 if (found := with_suffix(folder, name, SUFFIXES))]
        if batches:
            names, label_bytes, test = NAMES_10, 1, "test_batch"
        elif train := with_suffix(folder, "train", SUFFIXES):
            batches, names, label_bytes, test = [train], fine_names(folder), 2, "test"
        else:
            raise UserError(missing(folder))
        return Splits(
            where=self.path,
            train=records(batches, label_bytes, len(names)),
            test=records([find(folder, test, SUFFIXES)], label_bytes, len(names)),
            class_names=names,
        )

    def read_test(self) -> tuple[Examples, tuple[str, ...]]:
        """See `Source.read_test`; no training file is needed, as the classes are known."""
        folder = directory(self.path)
        if any(with_suffix(folder, name, SUFFIXES) for name in (*TRAIN_10, "train")):
            return super().read_test()
        if found := with_suffix(folder, "test_batch", SUFFIXES):
            names, label_bytes = NAMES_10, 1
        elif found := with_suffix(folder, "test", SUFFIXES):
            names, label_bytes = fine_names(folder), 2
        else:
            raise UserError(missing(folder))
        return records([found], label_bytes, len(names)), names


def records(paths: list[Path], label_bytes: int, classes: int) -> Examples:
    """Returns the examples of files whose records are label bytes (the last one counts), then 3×32×32 pixels."""
    images, labels = [], []
    size = label_bytes + PIXELS
    for path in paths:
        content = read_bytes(path)
        if len(content) % size:
            raise UserError(
                f"{path}: {len(content)} bytes; expected a multiple of {size}, the size of a record. "
                f"Fetch the file again."
            )
        rows = content.reshape(-1, size)
        pixels = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        images.append(pixels)
        labels.append(checked_labels(str(path), rows[:, label_bytes - 1], classes))
    return array_examples(str(paths[0].parent), np.concatenate(images), np.concatenate(labels), classes)


def fine_names(folder: Path) -> tuple[str, ...]:
    """Returns the 100 names in `fine_label_names.txt`, or "0", "1", … without that file."""
    path = with_suffix(folder, "fine_label_names.txt", ("",))
    if path is None:
        return tuple(str(label) for label in range(100))
    names = tuple(bytes(read_bytes(path)).decode("utf-8", errors="replace").split())
    if len(names) != 100:
        raise UserError(f"{path}: {len(names)} names; expected 100. Fetch the file again, or remove it.")
    return names


def missing(folder: Path) -> str:
    """Says what is not in `folder`, with a word on the python layout when that is what is there."""
    pickles = [name for name in PYTHON_LAYOUT if (folder / name).is_file()]
    pickles += sorted(path.name for path in folder.glob("*.pkl"))
    if pickles:
        return (
            f"{folder / pickles[0]}: is of CIFAR's python version, which is pickle and can run code when read. Put "
            f"the files of the binary version there (data_batch_1.bin …, or train.bin and test.bin)."
        )
    return (
        f"{folder / 'data_batch_1.bin'}: no such file; expected data_batch_1.bin … and test_batch.bin (CIFAR-10), or "
        f"train.bin and test.bin (CIFAR-100), plain, .xz or .gz. Put the files there or set another path."
    )
