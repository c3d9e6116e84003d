"""Prediction of files with an exported network: labels with probabilities, or numbers."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from experiments.prediction.reader import READERS
from experiments.records.use import FilePrediction
from search_spaces import UserError
from supernet.export.subnet import Subnet, filled_batch

TOP, BATCH = 5, 32


def predict_files(
    subnet: Subnet, paths: Iterable[str | os.PathLike[str]], top: int = TOP, batch_size: int = BATCH
) -> list[FilePrediction]:
    """Reads files as those of training were read, and predicts them in batches.

    A batch is filled up to the largest before it, and one that is larger than that is compiled anew: once for pictures,
    and for tables as often as a file has more rows than all before it, up to `batch_size`.

    Args:
        subnet: The network.
        paths: Files, and folders, all below which is read that has a fitting ending.
        top: Largest number of likeliest classes that are named, at least 1.
        batch_size: Number of examples in a batch, at least 1.

    Returns:
        The prediction of each example, in the order of files and rows.

    Raises:
        UserError: A file is missing, cannot be read or holds something else; or the network writes text.
    """
    for name, given in (("top", top), ("batch_size", batch_size)):
        if given < 1:
            raise UserError(f"predict: {name} {given} is less than 1. Give 1 or more.")
    reader = READERS[subnet.config["task"]](subnet)
    files = _files([Path(path) for path in paths], reader.suffixes)
    found: list[FilePrediction] = []
    size = 0
    for names, examples in reader.read(files, batch_size):
        size = max(size, min(batch_size, len(examples)))
        outputs = subnet.predict(filled_batch(examples, max(size, len(examples))), size)[: len(examples)]
        broken = np.flatnonzero(~np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1))
        if broken.size:
            where = " ".join(names[broken[0]].values())
            raise UserError(
                f"{where}: the network's outputs are not finite. It has failed, or the values are too large."
            )
        answers = subnet.outputs.answers(outputs, tuple(subnet.config["labels"]), top)
        found += [
            FilePrediction(name["file"], name.get("row"), answer) for name, answer in zip(names, answers, strict=True)
        ]
    return found


def _files(paths: Sequence[Path], suffixes: Sequence[str]) -> list[Path]:
    """Returns the files that are named, and those below folders whose ending fits, in alphabetical order."""
    found = []
    for path in paths:
        if path.is_dir():
            below = [one for one in sorted(path.rglob("*")) if _fits(one, suffixes)]
            if not below:
                raise UserError(f"{path}: holds no file that the network takes ({', '.join(suffixes)}). Name others.")
            found += below
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder. Name what is there.")
    return found


def _fits(path: Path, suffixes: Sequence[str]) -> bool:
    return path.name.lower().endswith(tuple(suffixes)) and not path.name.startswith(".") and path.is_file()
