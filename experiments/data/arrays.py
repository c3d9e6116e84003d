"""Images and labels that came as arrays: checked, and made into examples."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from experiments.data.examples import ArrayStore, Examples, all_of
from search_spaces.errors import UserError


def class_names_of(where: str, train_labels: np.ndarray, named: Sequence[str]) -> tuple[str, ...]:
    """Returns the names given, or "0", "1", … for labels that are numbered without a gap.

    Args:
        where: The labels in messages.
        train_labels: Integers of any kind, [n].
        named: Class names from the settings; empty where there are none.

    Raises:
        UserError: Labels are not integers, or (unnamed) not 0..c-1 with every class present.
    """
    if named:
        return tuple(named)
    if train_labels.dtype.kind not in "iu":
        raise UserError(f"{where}: labels are {train_labels.dtype}. Store them as integers 0..classes-1.")
    present = np.unique(train_labels)
    if not len(present):
        raise UserError(f"{where}: holds no label. Give at least one training example a class.")
    if int(present[0]) != 0 or int(present[-1]) != len(present) - 1:
        raise UserError(
            f"{where}: {len(present)} classes are labelled from {present[0]} to {present[-1]}; expected 0 to "
            f"{len(present) - 1} without a gap. Number the classes from 0."
        )
    return tuple(str(label) for label in range(len(present)))


def checked_labels(where: str, labels: np.ndarray, classes: int) -> Int32[np.ndarray, " n"]:
    """Returns labels as int32[n].

    Raises:
        UserError: The labels are not integers in a row, or one is outside 0..classes-1.
    """
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise UserError(f"{where}: labels are {labels.dtype}{list(labels.shape)}. Store integers of shape [n].")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise UserError(
            f"{where}: label {labels[wrong[0]]} of example {wrong[0]} is outside 0..{classes - 1} "
            f"({classes} classes). Correct the label, or name every class."
        )
    return labels.astype(np.int32)


def array_examples(where: str, images: np.ndarray, labels: np.ndarray, classes: int) -> Examples:
    """Returns examples over arrays.

    Args:
        where: The arrays in messages.
        images: uint8[n, height, width] or uint8[n, height, width, channels], 1 to 4 channels, last.
        labels: Integers 0..classes-1, [n].
        classes: Number of classes.

    Raises:
        UserError: Wrong type, rank, size or count, or a label outside the classes.
    """
    if images.dtype != np.uint8:
        raise UserError(
            f"{where}: images are {images.dtype}; expected uint8, 0..255. Scale, round and store them as uint8."
        )
    pixels = images[..., None] if images.ndim == 3 else images
    if pixels.ndim != 4 or not all(pixels.shape[1:]) or pixels.shape[-1] > 4:
        raise UserError(
            f"{where}: images have shape {list(images.shape)}; expected [n, height, width] or [n, height, width, "
            f"channels] with 1 to 4 channels. Reshape them, channels last."
        )
    if len(pixels) != len(labels):
        raise UserError(f"{where}: {len(pixels)} images but {len(labels)} labels. Pair each image with one label.")
    return all_of(ArrayStore(pixels), checked_labels(where, labels, classes))
