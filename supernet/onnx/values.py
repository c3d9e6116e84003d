"""Value: an array of the traced program, and how it lies in the tensor that holds it.

A transposition, a new axis of size 1 or a repetition changes how a value is read, not what is stored, so that it costs
no node until an operation needs another order. Convolutions want channels before rows, and elementwise operations take
any order: a network of convolutions is transposed once where it begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Shaped

from supernet.onnx.graph import Dim, Graph


@dataclass(frozen=True, eq=False)
class Value:
    """An array of the traced program.

    Attributes:
        shape: Its sizes, as the program sees it.
        dtype: Type of its entries.
        name: Tensor that holds it; empty of a constant.
        axes: For each axis of the tensor (or of `constant`) the value's axis; None for one of size 1 that it lacks.
        repeated: Axes along which the tensor has size 1, and its only entry counts for all.
        constant: Its entries, where they are known.
        hint: Name of a constant.
        source: The value that this one is a reshaped view of, with nothing computed yet.
    """

    shape: tuple[Dim, ...]
    dtype: np.dtype
    name: str = ""
    axes: tuple[int | None, ...] = ()
    repeated: frozenset[int] = frozenset()
    constant: Shaped[np.ndarray, "..."] | None = None
    hint: str = "constant"
    source: "Value | None" = None

    def unit(self, axis: int | None) -> bool:
        """Returns whether the tensor has size 1 along an axis."""
        return axis is None or axis in self.repeated or (isinstance(self.shape[axis], int) and self.shape[axis] == 1)

    def stored(self, axes: Sequence[int | None]) -> list[Dim]:
        """Sizes of the tensor, if its axes were these."""
        return [1 if axis is None or self.unit(axis) else self.shape[axis] for axis in axes]


def plain_axes(shape: Sequence[Dim]) -> tuple[int, ...]:
    """Axes of a tensor that lies as the program sees it."""
    return tuple(range(len(shape)))


def fixed(array: Shaped[np.ndarray, "..."], hint: str = "constant") -> Value:
    """Makes a value of known entries."""
    array = np.asarray(array)
    return Value(array.shape, array.dtype, "", plain_axes(array.shape), constant=array, hint=hint)


def entries(value: Value) -> Shaped[np.ndarray, "..."]:
    """Entries of a constant in the program's order and full size, as far as its sizes are known."""
    assert value.constant is not None
    return np.broadcast_to(arranged_constant(value, plain_axes(value.shape)), value.shape)


def arranged_constant(value: Value, axes: Sequence[int | None]) -> Shaped[np.ndarray, "..."]:
    """Entries of a constant with the axes given, of size 1 where they are repeated."""
    assert value.constant is not None
    moved = [axis for axis in axes if axis is not None and not value.unit(axis)]
    order = [value.axes.index(axis) for axis in moved]
    rest = [i for i in range(len(value.axes)) if i not in order]
    array = value.constant.transpose(order + rest)
    return array.reshape([size if isinstance(size, int) else 1 for size in value.stored(axes)])


def arrange(graph: Graph, value: Value, axes: Sequence[int | None]) -> str:
    """Returns a tensor that holds the value with the axes given; repeated axes keep size 1."""
    axes = tuple(axes)
    if value.constant is not None:
        return graph.constant(arranged_constant(value, axes), value.hint)
    value = settled(graph, value)
    if value.axes == axes:
        return value.name
    name, now = value.name, list(value.axes)
    wanted = [axis for axis in axes if not value.unit(axis)]
    if [axis for axis in now if not value.unit(axis)] != wanted:
        if len(now) > len(axes):  # what has size 1 goes before the transposition, so that a runtime can fuse that
            now = [axis for axis in now if not value.unit(axis)]
            name = reshaped(graph, name, value.stored(value.axes), value.stored(now))
        spare = [i for i, axis in enumerate(now) if value.unit(axis)]
        if len(now) == len(axes):
            order = [spare.pop(0) if value.unit(axis) else now.index(axis) for axis in axes]
            moved = list(axes)
        else:
            order = [now.index(axis) for axis in wanted] + spare
            moved = [now[i] for i in order]
        name, now = graph.op("Transpose", name, perm=order), moved
    return reshaped(graph, name, value.stored(now), value.stored(axes))


def settled(graph: Graph, value: Value) -> Value:
    """Returns the value with its pending reshape applied."""
    if value.source is None:
        return value
    source = whole(graph, value.source)
    name = reshaped(graph, source, list(value.source.shape), list(value.shape))
    return replace(value, name=name, axes=plain_axes(value.shape), source=None)


def whole(graph: Graph, value: Value) -> str:
    """Returns a tensor that holds the value as the program sees it."""
    name = arrange(graph, value, plain_axes(value.shape))
    if not value.repeated:
        return name
    return graph.op("Expand", name, graph.sizes(value.shape))


def reshaped(graph: Graph, name: str, now: Sequence[Dim], wanted: Sequence[Dim]) -> str:
    """Returns a tensor with the same entries and other sizes."""
    now, wanted = list(now), list(wanted)
    if now == wanted:
        return name
    name = graph.op("Reshape", name, _target(graph, now, wanted))
    graph.shapes[name] = wanted
    return name


def _target(graph: Graph, now: list[Dim], wanted: list[Dim]) -> str:
    open_sizes = [i for i, size in enumerate(wanted) if not isinstance(size, int)]
    if len(open_sizes) <= 1 and 0 not in wanted:
        return graph.integers(-1 if i in open_sizes else s for i, s in enumerate(wanted))
    kept = [i for i in open_sizes if i < len(now) and now[i] is not None and str(now[i]) == str(wanted[i])]
    if len(open_sizes) - len(kept) <= 1 and 0 not in wanted:
        return graph.integers([0 if i in kept else -1 if i in open_sizes else size for i, size in enumerate(wanted)])
    return graph.sizes(wanted)
