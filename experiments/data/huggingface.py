"""Source `huggingface`: an image data set of the `datasets` library, from disk or from the hub."""

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.arrays import checked_labels, class_names_of
from experiments.data.class_names import renumbered
from experiments.data.examples import STATISTICS_LIMIT, Examples, all_of
from experiments.data.pictures import PictureStore, check_background, check_size
from experiments.data.source import SOURCES, Source, Splits, own_validation
from search_spaces.errors import UserError, did_you_mean

OLDEST = 4
"""First version of `datasets` that has no way left to run code that comes with a data set."""


@SOURCES.register("huggingface")
@dataclass(frozen=True)
class HuggingFace(Source):
    """Splits, an image column and a label column of a `datasets` data set. Code that comes with it is never run.

    Where splits have class names, these are matched by name: they may have another order, or fewer of them.

    Args:
        path: Directory (written by `DatasetDict.save_to_disk`, or one that `load_dataset` reads), or a name on the hub.
        image_size: Side of the network's input in pixels. The shorter side of each picture is resized to it, then the
            centre is cropped.
        grey: Read pictures as one channel instead of three.
        background: Colour behind transparent pixels, `white` or `black`; null refuses pictures with transparent pixels.
        name: Name of the data set's configuration, if it has several.
        revision: Commit, tag or branch on the hub; null for the newest.
        image: Name of the column of pictures.
        label: Name of the column of classes.
        train: Name of the split to learn from.
        test: Name of the split that is read once, at export.
        validation: Name of the split that search reads; null for the split called validation, valid, val or dev, or,
            without one, for a share of `train`.
    """

    names = ("path",)

    path: str
    image_size: int
    grey: bool = False
    background: str | None = None
    name: str | None = None
    revision: str | None = None
    image: str = "image"
    label: str = "label"
    train: str = "train"
    test: str = "test"
    validation: str | None = None

    def __post_init__(self) -> None:
        check_size(self.image_size)
        check_background(self.background)

    def read(self) -> Splits:
        """Returns the splits; no picture is decoded yet.

        Raises:
            UserError: The library or the data set is missing, or a split or column is not as it should be.
        """
        library = import_datasets()
        splits = self._open(library)
        names = self._class_names(library, splits, self.train)
        validation = self.validation
        if validation is None:
            validation = own_validation(self.path, set(splits) - {self.train, self.test})
        train, test, own = (
            None if split is None else self._examples(library, splits, split, names)
            for split in (self.train, self.test, validation)
        )
        assert train is not None
        assert test is not None
        unused = tuple(name for name in splits if name not in (self.train, self.test, validation))
        return Splits(self.path, train, test, names, own, unused)

    def read_test(self) -> tuple[Examples, tuple[str, ...]]:
        """See `Source.read_test`: without a training split, the classes are those of the test split."""
        library = import_datasets()
        splits = self._open(library)
        names = self._class_names(library, splits, self.train if self.train in splits else self.test)
        return self._examples(library, splits, self.test, names), names

    def _class_names(self, library: Any, splits: Any, split: str) -> tuple[str, ...]:
        labels = self._labels(splits, split)
        return class_names_of(self._where(split), labels, self._named(library, splits, split))

    def _named(self, library: Any, splits: Any, split: str) -> tuple[str, ...]:
        """The class names of a split; none where its classes are plain numbers."""
        feature = splits[split].features[self.label]
        return tuple(feature.names) if isinstance(feature, library.ClassLabel) else ()

    def _examples(self, library: Any, splits: Any, split: str, names: tuple[str, ...]) -> Examples:
        labels, own = self._labels(splits, split), self._named(library, splits, split) or names
        labels = checked_labels(self._where(split), labels, len(own))
        if not isinstance(splits[split].features.get(self.image), library.Image):
            columns = [key for key, kind in splits[split].features.items() if isinstance(kind, library.Image)]
            raise UserError(
                f"{self._where(split)}: {self.image!r} is not an image column.{did_you_mean(self.image, columns)}"
            )
        encoded = splits[split].select_columns([self.image])
        encoded = encoded.cast_column(self.image, library.Image(decode=False))
        store = ColumnStore(self._where(split), encoded, self.image, self.image_size, self.grey, self.background)
        return renumbered(self._where(split), all_of(store, labels), own, names, f"split {self.train!r}")

    def _where(self, split: str) -> str:
        return f"{self.path}: {split}"

    def _open(self, library: Any) -> Any:
        saved = Path(self.path) / "dataset_dict.json"
        try:
            if saved.is_file():
                return library.load_from_disk(self.path)
            return library.load_dataset(self.path, self.name, revision=self.revision)
        except (OSError, ValueError, RuntimeError, library.exceptions.DatasetsError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{self.path}: cannot be loaded ({reason}). Set the path to a directory or to a name on the hub that "
                f"can be reached."
            ) from error

    def _labels(self, splits: Any, split: str) -> np.ndarray:
        if split not in splits:
            raise UserError(f"{self.path}: no split {split!r}.{did_you_mean(split, splits)}")
        if self.label not in splits[split].column_names:
            columns = splits[split].column_names
            raise UserError(f"{self._where(split)}: no column {self.label!r}.{did_you_mean(self.label, columns)}")
        return np.asarray(splits[split][self.label][:])


@dataclass(frozen=True, eq=False)
class ColumnStore(PictureStore):
    """The encoded pictures of an image column.

    Args:
        where: The split in messages.
        table: The `datasets.Dataset`, its image column not decoded.
        column: The image column.
        image_size: Side of the square that each is brought to.
        grey: One channel in place of three.
        background: Colour behind what is transparent.
    """

    where: str
    table: Any
    column: str
    image_size: int
    grey: bool
    background: str | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(rows, height, width, channels)."""
        return len(self.table), self.image_size, self.image_size, 1 if self.grey else 3

    def picture(self, row: int) -> tuple[str, Path | bytes]:
        """Returns the encoded bytes of a row, or the file that the data set refers to."""
        value = self.table[row][self.column]
        if value is None:
            raise UserError(f"{self.where}: row {row} has no picture. Remove the row.")
        return f"{self.where}: row {row}", value["bytes"] or Path(value["path"])

    def identify(self, digest: "hashlib._Hash") -> None:
        """Feeds the encoded bytes (of a file: the name) of at most `STATISTICS_LIMIT` evenly spaced rows."""
        count = min(len(self.table), STATISTICS_LIMIT)
        for row in np.arange(count) * len(self.table) // max(count, 1):
            picture = self.picture(int(row))[1]
            digest.update(picture if isinstance(picture, bytes) else picture.name.encode())


def import_datasets() -> Any:
    """Returns the `datasets` library.

    Raises:
        UserError: The library is not installed, or too old.
    """
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(
            "data source 'huggingface': the library `datasets` is not installed. Run: pip install "
            "'supernest[huggingface]'"
        ) from error
    if int(library.__version__.split(".")[0]) < OLDEST:
        raise UserError(
            f"data source 'huggingface': `datasets` {library.__version__} is older than {OLDEST}, the first that runs "
            f"no code of a data set. Run: pip install 'supernest[huggingface]'"
        )
    return library
