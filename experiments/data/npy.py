"""Source `arrays`: float arrays in a NumPy .npz file, or in .npy files of a directory, read without pickle."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.array_source import ArraySource, Labels, Part, Parts
from experiments.data.npz import read_arrays
from experiments.data.source import SOURCES, own_validation
from search_spaces.errors import UserError, did_you_mean

_NAMES = "class_names"


@SOURCES.register("arrays")
@dataclass(frozen=True)
class FloatArrays(ArraySource):
    """Arrays `x` and `y`, or `train_x`, `train_y` and the same of `validation_` and `test_` as far as there are any.

    `x` holds numbers of any shape, [n, ...]; features are the entries along the last axis. `y` holds whole numbers of
    classes or texts, [n], or floats to predict, [n] or [n, c]. An array `class_names` of texts may name the classes.

    Args:
        path: A .npz file, or a directory of .npy files named like the arrays.
        labels: Meaning of `y`: `classes` or `numbers`; null takes it from the type of `y`: floats are numbers.
        test_fraction: Share of the examples for the test split, if there is no `test_x`; in (0, 1).
    """

    path: str
    labels: Labels | None = None
    test_fraction: float = 0.2

    def read(self) -> Parts:
        """See `ArraySource.read`."""
        path = Path(self.path)
        arrays = _directory(path) if path.is_dir() else read_arrays(path)
        prefix = "train_" if "train_x" in arrays or "train_y" in arrays else ""
        own = own_validation(self.path, {key.removesuffix("_x") for key in arrays})
        wanted = {"train": prefix, **({"validation": f"{own}_"} if own else {})}
        if "test_x" in arrays:
            wanted["test"] = "test_"

        def get(key: str) -> np.ndarray:
            if key not in arrays:
                expected = f"expected x and y, or train_x and train_y.{did_you_mean(key, arrays)}"
                raise UserError(f"{self.path}: no array {key!r}; {expected}")
            return arrays[key]

        splits = {}
        for split, start in wanted.items():
            x, y = get(f"{start}x"), get(f"{start}y")
            if not x.ndim or not y.ndim:
                raise UserError(f"{self.path}: {start}x or {start}y is a single number. Store an array of examples.")
            splits[split] = Part(f"{self.path}: {start}x", x[:, None] if x.ndim == 1 else x, y)
        train = splits["train"]
        known = {f"{start}{one}" for start in wanted.values() for one in "xy"} | {_NAMES}
        unused = sorted(set(arrays) - known)
        notes = (f"{self.path}: {', '.join(map(repr, unused[:5]))} not used.",) if unused else ()
        names = arrays.get(_NAMES)
        if names is not None and (names.dtype.kind != "U" or names.ndim != 1):
            raise UserError(f"{self.path}: {_NAMES} is {names.dtype}{list(names.shape)}. Store a list of texts.")
        count = 1 if train.labels.ndim == 1 else train.labels.shape[-1]
        return Parts(
            where=self.path,
            splits=splits,
            features=tuple(map(str, range(train.x.shape[-1]))),
            targets=("y",) if count == 1 else tuple(f"y{number}" for number in range(count)),
            class_names=() if names is None else tuple(names.tolist()),
            notes=notes,
        )


def read_npy(path: Path) -> np.ndarray:
    """Returns the array of a .npy file; it is mapped, not read.

    Raises:
        UserError: The file cannot be read, is no .npy file, or holds objects.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: truncated, corrupt, or holds objects. Save it again with numpy.save.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Make the file readable.") from error
    if not isinstance(found, np.ndarray):
        raise UserError(f"{path}: is a .npz file. Give it that ending.")
    return found


def _directory(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of a directory of .npy files."""
    found = {file.stem: read_npy(file) for file in sorted(path.glob("*.npy"))}
    if not found:
        raise UserError(f"{path}: no .npy file; expected x.npy and y.npy. Put them there, or name a .npz file.")
    return found
