"""Sources of float arrays: checks, the splits, and statistics of the training split."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Shaped

from experiments.data.array_dataset import ArrayDataset, ArraySplit
from experiments.data.source import AnySource, check_fraction
from experiments.data.splits import draw, proportional_counts
from search_spaces.errors import UserError
from search_spaces.randomness import Purpose
from supernet.tasks.classes import CLASSES
from supernet.tasks.numbers import Numbers

Labels = Literal["classes", "numbers"]
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Part:
    """One split as a source has it.

    Args:
        where: The split in messages.
        x: Numbers of any type, [n, ..., features].
        labels: Whole numbers or texts, [n], of classes; or numbers, [n] or [n, c].
    """

    where: str
    x: Shaped[np.ndarray, "n ..."]
    labels: Shaped[np.ndarray, "n ..."]


@dataclass(frozen=True, eq=False)
class Parts:
    """Content of a source of arrays.

    Args:
        where: The source in messages.
        splits: `train`, and what there is of `validation` and `test`.
        features: Name of each entry along the last axis.
        targets: Name of each number to predict.
        class_names: Names that the source has for its classes; empty for none.
        notes: Remarks for the user.
    """

    where: str
    splits: Mapping[str, Part]
    features: tuple[str, ...]
    targets: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class ArraySource(AnySource):
    """A place that float arrays come from: it implements `read`, and has the settings `labels` and `test_fraction`."""

    inputs: ClassVar[str] = "arrays"

    labels: Labels | None
    test_fraction: float

    @abstractmethod
    def read(self) -> Parts:
        """Returns the splits of the source; the same every time.

        Raises:
            UserError: Something is missing, corrupt or not what it should be.
        """

    def load(
        self, seed: int, validation_fraction: float, train_limit: int | None = None, hold_out: bool = False
    ) -> ArrayDataset:
        """See `AnySource.load`. A test split that the source lacks is the same for every seed."""
        check_fraction("validation_fraction", validation_fraction)
        check_fraction("test_fraction", self.test_fraction)
        parts = self.read()
        of_classes = _of_classes(parts.splits["train"], self.labels)
        names = _names(parts) if of_classes else ()
        splits = {name: _checked(part, parts, of_classes, names) for name, part in parts.splits.items()}
        digest = _fingerprint(splits, parts, names)
        if "test" not in splits:
            splits["train"], splits["test"] = _parted(
                parts.where, splits["train"], self.test_fraction, 0, Purpose.TEST_SPLIT, "test_fraction"
            )
        if hold_out or "validation" not in splits:
            splits["train"], splits["validation"] = _parted(
                parts.where, splits["train"], validation_fraction, seed, Purpose.VALIDATION_SPLIT, "validation_fraction"
            )
        train = splits["train"]
        if train_limit is not None and train_limit < len(train):
            share = train_limit / len(train)
            _, train = _parted(parts.where, train, share, seed, Purpose.TRAINING_LIMIT, "train_limit")
        mean, std = _statistics(train.x.reshape(-1, train.x.shape[-1]))
        outputs = CLASSES if of_classes else Numbers(parts.targets, *_statistics(train.labels))
        return ArrayDataset(train, splits["validation"], splits["test"], outputs, names, mean, std, digest, parts.notes)


def _of_classes(train: Part, labels: Labels | None) -> bool:
    """Whether labels are classes: as it is set, or as their type says."""
    kind = train.labels.dtype.kind
    if kind not in "iubfU":
        raise UserError(f"{train.where}: labels are {train.labels.dtype}. Store whole numbers, texts, or floats.")
    if labels is None:
        return kind != "f"
    if labels == "numbers" and kind == "U":
        raise UserError(f"{train.where}: labels are texts ({train.labels[0]!r}), no numbers. Set data.labels: classes.")
    return labels == "classes"


def _names(parts: Parts) -> tuple[str, ...]:
    """The name of each class: those of the source, or the different labels of the training split in order."""
    labels = parts.splits["train"].labels
    if labels.ndim != 1:
        raise UserError(f"{parts.where}: labels of classes have shape {list(labels.shape)}. Give one for each example.")
    if labels.dtype.kind == "f" and not np.all(labels == np.rint(labels)):
        raise UserError(f"{parts.where}: labels are fractions, no classes. Set data.labels: numbers.")
    present = np.unique(labels if labels.dtype.kind == "U" else labels.astype(np.int64))
    if len(present) < 2:
        raise UserError(f"{parts.where}: holds {len(present)} class. A classifier needs at least two.")
    if not parts.class_names:
        return tuple(map(str, present.tolist()))
    if labels.dtype.kind != "U" and (present[0] < 0 or present[-1] >= len(parts.class_names)):
        raise UserError(
            f"{parts.where}: labels reach from {present[0]} to {present[-1]}, and there are {len(parts.class_names)} "
            "class names. Number the classes from 0, and name every one."
        )
    return parts.class_names


def _checked(part: Part, parts: Parts, of_classes: bool, names: Sequence[str]) -> ArraySplit:
    """One split as float32 and int32, or float64.

    Raises:
        UserError: Shapes that do not fit, values that are missing, or a class that the training split lacks.
    """
    where, x, labels, shape = part.where, part.x, part.labels, parts.splits["train"].x.shape[1:]
    if x.dtype.kind not in "fiub":
        raise UserError(f"{where}: examples are {x.dtype}; expected numbers. Store them as float32.")
    if x.shape[1:] != shape:
        raise UserError(f"{where}: examples of shape {list(x.shape[1:])}, and training examples {list(shape)}.")
    if not len(x) or len(x) != len(labels):
        raise UserError(f"{where}: {len(x)} examples and {len(labels)} labels. Give each example its label.")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is named below
        x = x.astype(np.float32)
    for start in range(0, len(x), _CHUNK):
        wrong = np.argwhere(~np.isfinite(x[start : start + _CHUNK]))
        if len(wrong):
            row, *_, last = wrong[0]
            raise UserError(
                f"{where}: row {start + row}, feature {parts.features[last]!r}: a value is missing, or no float32. "
                "Fill it in, or leave the row out."
            )
    if not of_classes:
        labels = labels.astype(np.float64).reshape(len(labels), -1)
        wrong = np.argwhere(~np.isfinite(labels))
        if len(wrong):
            row, column = wrong[0]
            raise UserError(
                f"{where}: row {row}, target {parts.targets[column]!r}: a value is missing. Leave the row out."
            )
        return ArraySplit(x, labels, parts.features, parts.targets)
    number_of = {name: number for number, name in enumerate(names)}
    if parts.class_names and labels.dtype.kind != "U":
        number_of = {str(number): number for number in range(len(names))}
    texts = (labels if labels.dtype.kind == "U" else labels.astype(np.int64)).tolist()
    unknown = next(((row, text) for row, text in enumerate(texts) if str(text) not in number_of), None)
    if unknown is not None:
        raise UserError(
            f"{where}: row {unknown[0]}: class {str(unknown[1])!r} is none of the training split. Correct the label."
        )
    return ArraySplit(x, np.array([number_of[str(text)] for text in texts], np.int32), parts.features)


def _parted(
    where: str, split: ArraySplit, fraction: float, seed: int, purpose: Purpose, setting: str
) -> tuple[ArraySplit, ArraySplit]:
    """Splits examples in two: the rest, and a drawn share, with each class in proportion in both."""
    sizes = np.bincount(split.strata)
    counts = proportional_counts(sizes, round(fraction * len(split)))
    present = sizes > 0
    if not (counts[present].all() and (sizes - counts)[present].all()):
        raise UserError(
            f"{where}: data.{setting} leaves a part of the {len(split)} examples without any"
            f"{' of some class' if split.of_classes else ''}. Give more examples, or another share."
        )
    drawn = draw(split.strata, counts, seed, purpose)
    return split.take(np.flatnonzero(~drawn)), split.take(np.flatnonzero(drawn))


def _statistics(values: Shaped[np.ndarray, "n c"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of columns; 1 in place of the deviation of a constant one."""
    mean, std = (np.atleast_1d(of(values, axis=0, dtype=np.float64)) for of in (np.mean, np.std))
    return tuple(map(float, mean)), tuple(map(float, np.where(std > 0, std, 1.0)))


def _fingerprint(splits: Mapping[str, ArraySplit], parts: Parts, names: Sequence[str]) -> str:
    digest = hashlib.sha256(repr((parts.features, parts.targets, tuple(names))).encode())
    for name, split in sorted(splits.items()):
        digest.update(f"{name}:{split.x.shape}:{split.labels.dtype}".encode())
        digest.update(np.ascontiguousarray(split.x).tobytes())
        digest.update(np.ascontiguousarray(split.labels).tobytes())
    return digest.hexdigest()
