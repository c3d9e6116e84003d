"""Source `npz`: arrays in one NumPy .npz file, read without pickle."""

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.arrays import array_examples, class_names_of
from experiments.data.examples import Examples
from experiments.data.source import SOURCES, Source, Splits, own_validation
from search_spaces.errors import UserError, did_you_mean

_NAMES = "class_names"


@SOURCES.register("npz")
@dataclass(frozen=True)
class Npz(Source):
    """Arrays `train_images`, `train_labels`, `test_images`, `test_labels`, and optionally `validation_*`.

    The latter may be called `valid_*`, `val_*` or `dev_*` too.

    Images are uint8[n, height, width] or uint8[n, height, width, channels]; labels are integers 0..classes-1, [n] or
    [n, 1]. An array `class_names` of strings may name the classes.

    Args:
        path: The .npz file.
        class_names: Names of the classes, in the order of their labels; if empty, those in the file, or "0", "1", ….
    """

    path: str
    class_names: tuple[str, ...] = ()

    def read(self) -> Splits:
        """Returns the splits of the file.

        Raises:
            UserError: The file is missing or corrupt, lacks a key, holds objects, or an array is not as it should be.
        """
        return self._splits(read_arrays(Path(self.path)))

    def read_test(self) -> tuple[Examples, tuple[str, ...]]:
        """See `Source.read_test`: without training arrays, classes are numbered as the test labels say."""
        arrays = read_arrays(Path(self.path))
        if any(key.startswith("train_") for key in arrays) or "test_labels" not in arrays:
            splits = self._splits(arrays)
            return splits.test, splits.class_names
        labels = arrays["test_labels"]
        numbered = {key.replace("test_", "train_"): arrays[key] for key in arrays if key.startswith("test_")}
        names = self._named(arrays) or tuple(str(label) for label in range(int(labels.max(initial=0)) + 1))
        splits = dataclasses.replace(self, class_names=names)._splits({**arrays, **numbered})
        return splits.test, names

    def _splits(self, arrays: Mapping[str, np.ndarray]) -> Splits:
        def get(key: str) -> np.ndarray:
            if key not in arrays:
                raise UserError(
                    f"{self.path}: no array {key!r}; expected train_images, train_labels, test_images and "
                    f"test_labels.{did_you_mean(key, arrays)}"
                )
            array = arrays[key]
            return array[:, 0] if key.endswith("labels") and array.shape[1:] == (1,) else array

        names = class_names_of(f"{self.path}: train_labels", get("train_labels"), self._named(arrays))

        def examples(split: str) -> Examples:
            return array_examples(f"{self.path}: {split}", get(f"{split}_images"), get(f"{split}_labels"), len(names))

        own = own_validation(self.path, {key.split("_")[0] for key in arrays})
        used = {f"{split}_{kind}" for split in ("train", "test", own) for kind in ("images", "labels")}
        used.add(_NAMES)
        return Splits(
            where=self.path,
            train=examples("train"),
            test=examples("test"),
            class_names=names,
            validation=examples(own) if own else None,
            unused=tuple(sorted(set(arrays) - used)),
        )

    def _named(self, arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """The class names that are set or in the file; none where there are none.

        Raises:
            UserError: The file has no names for them, or others than are set.
        """
        if _NAMES not in arrays:
            return self.class_names
        array = arrays[_NAMES]
        if array.dtype.kind != "U" or array.ndim != 1:
            raise UserError(f"{self.path}: {_NAMES} is {array.dtype}{list(array.shape)}. Store a list of strings.")
        found = tuple(array.tolist())
        if self.class_names and self.class_names != found:
            raise UserError(
                f"data.class_names: {', '.join(self.class_names[:10])} are not the {_NAMES} in {self.path}: "
                f"{', '.join(found[:10])}. Leave the setting out, or correct the file."
            )
        return found


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns every array of a .npz file.

    Raises:
        UserError: The file is missing, not a .npz, corrupt, or holds an object array.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. Set the data path to a .npz file.")
    try:
        with path.open("rb") as stream:
            opened = np.load(stream, allow_pickle=False)
            if isinstance(opened, np.ndarray):
                raise UserError(f"{path}: holds one unnamed array (.npy). Save it with numpy.savez, arrays by name.")
            with opened:
                return {name: read_array(path, opened, name) for name in opened.files}
    except UserError:
        raise
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise UserError(f"{path}: truncated, corrupt or no .npz file. Save it again with numpy.savez.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Make the file readable.") from error


def read_array(path: Path, opened: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Returns one array of an open .npz file.

    Raises:
        UserError: The array contains objects, or its header is damaged.
    """
    try:
        return opened[name]
    except ValueError as error:
        raise UserError(
            f"{path}: array {name!r} cannot be read ({error}). Save plain numbers: uint8 images, integer labels."
        ) from error
