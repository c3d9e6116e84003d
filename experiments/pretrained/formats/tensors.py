"""Tables of tensors: what each tensor of a checkpoint is in ours, readable in both directions.

A row names one tensor of theirs and what it holds of ours: one array, or several that theirs has fused. Ours are the
dotted names of the plain module's state. `{i}` stands for the number of a layer.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]

ROTARY_BUFFERS = r"(.*\.)?rotary_emb\.((original_)?inv_freq|(cos|sin)_cached)"
"""Expression for the names of tables that follow from `config.json`; older checkpoints have them."""


class Transform(NamedTuple):
    """Order in which the same numbers lie in the checkpoint's tensor and in ours.

    Attributes:
        to_ours: Their tensor and the number of our arrays to these arrays.
        to_theirs: Our arrays to their tensor.
        shape: Shapes of our arrays to the shape of their tensor.
    """

    to_ours: Callable[[np.ndarray, int], Sequence[np.ndarray]]
    to_theirs: Callable[[Sequence[np.ndarray]], np.ndarray]
    shape: Callable[[Sequence[Shape]], Shape]


SAME = Transform(lambda theirs, n: [theirs], lambda ours: ours[0], lambda shapes: shapes[0])
"""Embeddings, norms, biases."""

TRANSPOSED = Transform(lambda theirs, n: [theirs.T], lambda ours: ours[0].T, lambda shapes: shapes[0][::-1])
"""A linear layer, stored [out, in]."""

SIDE_BY_SIDE = Transform(
    lambda theirs, n: np.split(theirs, n, axis=-1),
    lambda ours: np.concatenate(ours, axis=-1),
    lambda shapes: (*shapes[0][:-1], sum(shape[-1] for shape in shapes)),
)
"""Equally large projections as columns of one matrix [in, out], or parts of one bias."""


def head_by_head(head_size: int) -> Transform:
    """Projections of one matrix [out, in] (or one bias) whose outputs lie head by head: a head of each in turn."""

    def to_ours(theirs: np.ndarray, n: int) -> list[np.ndarray]:
        heads = theirs.reshape(-1, n, head_size, *theirs.shape[1:])
        return [heads[:, part].reshape(-1, *theirs.shape[1:]).T for part in range(n)]

    def to_theirs(ours: Sequence[np.ndarray]) -> np.ndarray:
        heads = [part.T.reshape(-1, head_size, *part.T.shape[1:]) for part in ours]
        return np.stack(heads, axis=1).reshape(-1, *heads[0].shape[2:])

    return Transform(to_ours, to_theirs, lambda shapes: (sum(shape[-1] for shape in shapes), *shapes[0][:-1]))


class Row(NamedTuple):
    """One tensor of theirs.

    Attributes:
        theirs: Its name.
        ours: The arrays that it holds.
        transform: Transform of the values to their layout there.
        also: Another name that it is written under too, and read from where the first is missing.
    """

    theirs: str
    ours: tuple[str, ...]
    transform: Transform = SAME
    also: str = ""

    def of_layer(self, layer: int) -> "Row":
        """Returns the row of one layer; a row without `{i}` is the same for all."""
        name = str(layer)
        ours = tuple(one.replace("{i}", name) for one in self.ours)
        return self._replace(theirs=self.theirs.replace("{i}", name), ours=ours)


def linear(theirs: str, ours: str, bias: bool, transform: Transform = TRANSPOSED) -> list[Row]:
    """Returns the table rows of a linear layer."""
    rows = [Row(f"{theirs}.weight", (f"{ours}.kernel",), transform)]
    return [*rows, Row(f"{theirs}.bias", (f"{ours}.bias",))] if bias else rows


def norm(theirs: str, ours: str, bias: bool = False) -> list[Row]:
    """Returns the table rows of a norm."""
    rows = [Row(f"{theirs}.weight", (f"{ours}.scale",))]
    return [*rows, Row(f"{theirs}.bias", (f"{ours}.bias",))] if bias else rows


def fused(theirs: str, ours: str, bias: bool, transform: Transform) -> list[Row]:
    """Queries, keys and values in one linear layer."""
    kinds = {"weight": "kernel", "bias": "bias"} if bias else {"weight": "kernel"}
    return [Row(f"{theirs}.{t}", tuple(f"{ours}.{p}.{o}" for p in "qkv"), transform) for t, o in kinds.items()]


def expanded(rows: Sequence[Row], layers: int) -> list[Row]:
    """Expands the rows for layers of the table."""
    return [row.of_layer(layer) for row in rows for layer in (range(layers) if "{i}" in row.theirs else range(1))]
