"""Sources of data: the interface, the registry, and the loading of a checked `ImageDataset` from those of images."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from experiments.data.dataset import Dataset
from experiments.data.examples import Examples
from experiments.data.images import ImageDataset
from experiments.data.pictures import check_pictures
from experiments.data.splits import held_out, limited
from search_spaces.errors import UserError
from search_spaces.registry import Registry

VALIDATION_NAMES = ("validation", "valid", "val", "dev")
"""Names that a validation split of a source may have."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Splits that a source holds, before anything is held out.

    Args:
        where: The source in messages: its path, or its name.
        train: All that may be learned from.
        test: The source's own test split.
        class_names: Name of each class.
        validation: The source's own validation split, where it has one.
        unused: Further splits of the source, which nothing reads.
    """

    where: str
    train: Examples
    test: Examples
    class_names: tuple[str, ...]
    validation: Examples | None = None
    unused: tuple[str, ...] = ()


def own_validation(where: str, present: Collection[str]) -> str | None:
    """Returns the name of a source's own validation split, if it has one.

    Args:
        where: The source in messages.
        present: Names of its splits.

    Raises:
        UserError: The source has several.
    """
    found = [name for name in VALIDATION_NAMES if name in present]
    if len(found) > 1:
        raise UserError(
            f"{where}: holds {' and '.join(map(repr, found))}, which both name a validation split. Keep one."
        )
    return found[0] if found else None


class AnySource(ABC):
    """A place that examples come from. A source is a frozen dataclass of its settings.

    Attributes:
        paths: Settings that are paths.
        names: Those of them that may be names instead, which the source knows; what is no path here is one.
        inputs: Name of the task of its data, one of `TASKS`.
        template: Section `data` of an experiment file to start from, with comments; of one source of each task.
    """

    paths: ClassVar[tuple[str, ...]] = ("path",)
    names: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[str] = "images"
    template: ClassVar[str] = ""

    @abstractmethod
    def load(
        self, seed: int, validation_fraction: float, train_limit: int | None = None, hold_out: bool = False
    ) -> Dataset:
        """Reads the source, checks it, and splits it.

        Args:
            seed: Decides what is drawn. Not negative.
            validation_fraction: Share of the training examples, in (0, 1), that becomes the validation split, unless
                the source has one of its own.
            train_limit: At most so many training examples; validation and test are not affected.
            hold_out: Leave a validation split of the source unused, and hold a share of the training examples out.

        Raises:
            UserError: Something in the source, or in these arguments, cannot work.
        """


class Source(AnySource):
    """A place that images come from: it implements `read`."""

    @abstractmethod
    def read(self) -> Splits:
        """Returns the splits of the source; the same every time.

        Raises:
            UserError: Something is missing, corrupt or not what it should be.
        """

    def read_test(self) -> tuple[Examples, tuple[str, ...]]:
        """Returns the test split and its class names; a source that can do so reads no other split for it.

        Raises:
            UserError: Something is missing, corrupt or not what it should be.
        """
        splits = self.read()
        return splits.test, splits.class_names

    def load(
        self, seed: int, validation_fraction: float, train_limit: int | None = None, hold_out: bool = False
    ) -> ImageDataset:
        """Returns the data set; see the function `load`."""
        return load(self, seed, validation_fraction, train_limit, hold_out)


SOURCES: Registry[type[AnySource]] = Registry("data source", "experiments.data")


def load(
    source: Source, seed: int, validation_fraction: float, train_limit: int | None = None, hold_out: bool = False
) -> ImageDataset:
    """Reads a source, checks it, and splits it.

    Args:
        source: Source to read.
        seed: Decides which training examples are held out, and which stay under `train_limit`. Not negative.
        validation_fraction: Share of the training examples, in (0, 1), that becomes the validation split, stratified by
            class. A source that has a validation split of its own keeps it, and this is not used.
        train_limit: At most so many training examples, stratified; validation and test are not affected.
        hold_out: Hold out training examples even where the source has a validation split.

    Raises:
        UserError: Something in the source, or in these arguments, cannot work.
    """
    check_fraction("validation_fraction", validation_fraction)
    splits = source.read()
    where, names = splits.where, splits.class_names
    check(splits)
    train, validation = splits.train, splits.validation
    if hold_out or validation is None:
        kept_back = held_out(where, train.labels, names, validation_fraction, seed)
        train, validation = train.take(np.flatnonzero(~kept_back)), train.take(np.flatnonzero(kept_back))
    if train_limit is not None:
        train = train.take(np.flatnonzero(limited(where, train.labels, names, train_limit, seed)))
    try:
        mean, std = train.statistics
    except UserError:  # of the first picture that cannot be decoded
        check_pictures((splits.train, *([splits.validation] if splits.validation else []), splits.test))
        raise
    return ImageDataset(
        train=train,
        validation=validation,
        test=splits.test,
        image_shape=train.image_shape,
        classes=len(names),
        class_names=names,
        mean=mean,
        std=std,
        fingerprint=fingerprint(splits),
        notes=_notes(splits, hold_out),
    )


def _notes(splits: Splits, hold_out: bool) -> tuple[str, ...]:
    """Returns remarks about a source that can be used all the same."""
    notes = []
    if splits.unused:
        names = ", ".join(map(repr, splits.unused[:5])) + (", …" if len(splits.unused) > 5 else "")
        notes.append(
            f"{splits.where}: {names} not used. The splits are train, test and validation "
            f"({', '.join(VALIDATION_NAMES)})."
        )
    for split, examples in (("validation", None if hold_out else splits.validation), ("test", splits.test)):
        counts = np.bincount([] if examples is None else examples.labels, minlength=len(splits.class_names))
        missing = np.flatnonzero(counts == 0)
        if examples is not None and len(missing):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            notes.append(
                f"{splits.where}: the {split} split has no example of class {splits.class_names[missing[0]]!r}{more}, "
                "so its figures say nothing of it."
            )
    return tuple(notes)


def check_fraction(name: str, given: float) -> None:
    """Raises a `UserError` for a share of the data that leaves a part without any."""
    if not 0 < given < 1:
        raise UserError(f"data.{name}: {given} is not between 0 and 1. Set for example 0.1.")


def check(splits: Splits) -> None:
    """Checks what must hold whatever the source: two classes, each with training examples, and one image shape.

    Raises:
        UserError: The splits lack two classes, training examples of a class, or a common image shape.
    """
    where, names = splits.where, splits.class_names
    if len(names) < 2:
        raise UserError(f"{where}: holds {len(names)} class. A classifier needs at least two.")
    if len(set(names)) != len(names):
        raise UserError(f"{where}: two classes have the same name. Give each of the {len(names)} its own.")
    sizes = np.bincount(splits.train.labels, minlength=len(names))
    if not sizes.all():
        raise UserError(
            f"{where}: class {names[int(np.argmin(sizes))]!r} has no training example. "
            f"Give each of the {len(names)} classes at least one."
        )
    for split, examples in (("test", splits.test), ("validation", splits.validation)):
        if examples is None:
            continue
        if not len(examples):
            raise UserError(f"{where}: the {split} split is empty. Give it at least one example.")
        if examples.image_shape != splits.train.image_shape:
            raise UserError(
                f"{where}: {split} images are {examples.image_shape}, training images {splits.train.image_shape} "
                f"(height, width, channels). Bring all to one size."
            )


def fingerprint(splits: Splits) -> str:
    """Returns the SHA-256 of every split of a source, in hexadecimal."""
    digest = hashlib.sha256()
    for split, examples in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if examples is not None:
            digest.update(f"{split}:{examples.store.shape}:".encode())
            digest.update(examples.labels.astype("<i4").tobytes())
            examples.store.identify(digest)
    return digest.hexdigest()
