"""Stratified splits that follow from a seed: every class keeps its share, to within one example."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Int32

from search_spaces.errors import UserError
from search_spaces.randomness import Purpose, stream


def proportional_counts(sizes: Int[np.ndarray, " c"], total: int) -> Int[np.ndarray, " c"]:
    """Shares `total` among the classes in proportion to `sizes`, by largest remainder (first class on a tie)."""
    counts, remainders = np.divmod(sizes.astype(np.int64) * total, int(sizes.sum()))
    counts[np.argsort(-remainders, kind="stable")[: total - int(counts.sum())]] += 1
    return counts


def draw(
    labels: Int32[np.ndarray, " n"], counts: Int[np.ndarray, " c"], seed: int, purpose: Purpose
) -> Bool[np.ndarray, " n"]:
    """Marks `counts[c]` examples of each class c, drawn without replacement from (seed, purpose, class)."""
    drawn = np.zeros(len(labels), bool)
    ends = np.cumsum(np.bincount(labels, minlength=len(counts)))[:-1]
    for label, members in enumerate(np.split(np.argsort(labels, kind="stable"), ends)):
        order = stream(seed, purpose, label).permutation(len(members))
        drawn[members[order[: counts[label]]]] = True
    return drawn


def held_out(
    where: str, labels: Int32[np.ndarray, " n"], class_names: Sequence[str], fraction: float, seed: int,
    split: str = "validation",
) -> Bool[np.ndarray, " n"]:  # fmt: skip
    """Marks the examples of the validation split, or of the test split, `round(fraction * n)` of them.

    Raises:
        UserError: A class would be left without a training or without a validation example.
    """
    sizes = np.bincount(labels, minlength=len(class_names))
    counts = proportional_counts(sizes, round(fraction * len(labels)))
    for part, left in ((split, counts), ("training", sizes - counts)):
        if not left.all():
            empty = int(np.argmin(left))
            raise UserError(
                f"{where}: {split}_fraction {fraction} leaves class {class_names[empty]!r} ({sizes[empty]} "
                f"examples) without a {part} example. Set a fraction that keeps at least one of each class."
            )
    return draw(labels, counts, seed, Purpose(f"{split} split"))


def limited(
    where: str, labels: Int32[np.ndarray, " n"], class_names: Sequence[str], limit: int, seed: int
) -> Bool[np.ndarray, " n"]:
    """Marks at most `limit` training examples; every class keeps its share.

    Raises:
        UserError: A class would be left without an example.
    """
    sizes = np.bincount(labels, minlength=len(class_names))
    counts = proportional_counts(sizes, min(limit, len(labels)))
    if limit < 1 or not counts.all():
        raise UserError(
            f"{where}: train_limit {limit} leaves class {class_names[int(np.argmin(counts))]!r} without a training "
            f"example. Set at least a few examples for each of the {len(sizes)} classes."
        )
    return draw(labels, counts, seed, Purpose.TRAINING_LIMIT)
