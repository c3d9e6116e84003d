"""Operations that move, cut and join entries."""

from dataclasses import replace
from typing import Any

import numpy as np

from supernet.onnx.convert import RULES, Parameters
from supernet.onnx.graph import Graph
from supernet.onnx.values import Value, arrange, arranged_constant, entries, plain_axes, settled, whole


@RULES.register("transpose")
def _transpose(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    value, order = settled(graph, operands[0]), tuple(params["permutation"])
    axes = tuple(None if axis is None else order.index(axis) for axis in value.axes)
    return replace(value, shape=tuple(shape), axes=axes, repeated=frozenset(order.index(a) for a in value.repeated))


@RULES.register("squeeze")
def _squeeze(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    return _without(settled(graph, operands[0]), set(params["dimensions"]), shape)


@RULES.register("expand_dims")
def _expand_dims(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    places = [axis for axis in range(len(shape)) if axis not in params["dimensions"]]
    return RULES["broadcast_in_dim"](graph, operands, {"broadcast_dimensions": places}, shape)


@RULES.register("reshape")
def _reshape(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    value = operands[0]
    if value.source is not None and value.source.shape == tuple(shape):
        return value.source
    value = settled(graph, value)
    if value.constant is not None:
        return _fixed(value, shape)
    old = [axis for axis in range(len(value.shape)) if not _one(value.shape[axis])]
    new = [axis for axis in range(len(shape)) if not _one(shape[axis])]
    if [str(value.shape[axis]) for axis in old] == [str(shape[axis]) for axis in new]:  # only axes of size 1 differ
        dropped = {axis for axis in range(len(value.shape)) if axis not in old}
        bare = _without(value, dropped, tuple(value.shape[axis] for axis in old))
        return RULES["broadcast_in_dim"](graph, [bare], {"broadcast_dimensions": new}, shape)
    return Value(tuple(shape), value.dtype, source=value)


def _fixed(value: Value, shape: tuple[Any, ...]) -> Value:
    array = entries(value).reshape(shape)
    return Value(tuple(shape), value.dtype, axes=plain_axes(shape), constant=array, hint=value.hint)


def _one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _without(value: Value, dropped: set[int], shape: tuple[Any, ...]) -> Value:
    kept = [axis for axis in range(len(value.shape)) if axis not in dropped]
    axes = tuple(None if axis is None or axis in dropped else kept.index(axis) for axis in value.axes)
    repeated = frozenset(kept.index(axis) for axis in value.repeated if axis not in dropped)
    return replace(value, shape=tuple(shape), axes=axes, repeated=repeated)


@RULES.register("slice")
def _slice(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    starts, limits = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    value = operands[0]
    cut = {
        axis: (starts[axis], limits[axis], strides[axis])
        for axis in range(len(shape))
        if not (starts[axis] == 0 and str(limits[axis]) == str(value.shape[axis]) and strides[axis] == 1)
    }
    return sliced(graph, value, cut, shape)


def sliced(graph: Graph, value: Value, cut: dict[int, tuple[Any, Any, int]], shape: tuple[Any, ...]) -> Value:
    """Returns the value with start, limit and stride along some axes."""
    value = settled(graph, value)
    real = {axis: limits for axis, limits in cut.items() if axis not in value.repeated}
    if value.constant is not None:
        value = replace(value, name=arrange(graph, value, value.axes), constant=None)
    if not real:
        return replace(value, shape=tuple(shape))
    order = sorted(real, key=value.axes.index)
    bounds = [graph.sizes([real[axis][i] for axis in order]) for i in (0, 1)]
    places = graph.integers(value.axes.index(axis) for axis in order)
    steps = graph.integers(real[axis][2] for axis in order)
    name = graph.op("Slice", value.name, *bounds, places, steps)
    return replace(value, name=name, shape=tuple(shape))


@RULES.register("dynamic_slice")
def _dynamic_slice(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    value, starts = operands[0], operands[1:]
    cut = {}
    for axis, (start, size) in enumerate(zip(starts, shape, strict=True)):
        if str(size) == str(value.shape[axis]):
            continue
        if start.constant is None:
            raise NotImplementedError("a slice that starts where the input says (lax.dynamic_slice)")
        cut[axis] = (int(start.constant), int(start.constant) + size, 1)
    return sliced(graph, value, cut, shape)


@RULES.register("pad")
def _pad(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    value, filling = settled(graph, operands[0]), operands[1]
    config = params["padding_config"]
    if any(inner for _, _, inner in config) or any(low < 0 or high < 0 for low, high, _ in config):
        raise NotImplementedError("padding between entries, or by less than nothing (lax.pad)")
    axes = tuple(axis for axis in value.axes if axis is not None)
    name = _full(graph, value, axes)
    widths = [config[axis][0] for axis in axes] + [config[axis][1] for axis in axes]
    padded = graph.op("Pad", name, graph.integers(widths), arrange(graph, filling, ()), mode="constant")
    graph.shapes[padded] = [shape[axis] for axis in axes]
    return Value(tuple(shape), value.dtype, padded, axes)


@RULES.register("rev")
def _reverse(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    far = np.iinfo(np.int64).min + 1
    return sliced(graph, operands[0], dict.fromkeys(params["dimensions"], (-1, far, -1)), shape)


@RULES.register("concatenate")
def _concatenate(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    axis = params["dimension"]
    parts = [settled(graph, value) for value in operands if not _none(value.shape[axis])]
    stored = [value.axes for value in parts if value.constant is None and None not in value.axes]
    axes = stored[0] if stored else plain_axes(shape)
    if len(parts) == 1:
        return replace(parts[0], shape=tuple(shape))
    # Axes that all repeat stay as they are.
    repeated = frozenset.intersection(*(value.repeated for value in parts)) - {axis}
    names = [_full(graph, value, axes, repeated) for value in parts]
    joined = graph.op("Concat", *names, axis=axes.index(axis))
    return Value(tuple(shape), operands[0].dtype, joined, axes, repeated)


def _none(size: Any) -> bool:
    return isinstance(size, int) and size == 0


def _full(graph: Graph, value: Value, axes: tuple[Any, ...], but: frozenset[int] = frozenset()) -> str:
    """A tensor with the axes given, in which only those of `but` are repeated."""
    if value.constant is not None:
        array = arranged_constant(value, axes)
        full = [1 if axis in but else value.shape[axis] for axis in axes]
        if all(isinstance(size, int) for size in full):
            return graph.constant(np.broadcast_to(array, full), value.hint)
    name = arrange(graph, value, axes)
    if value.repeated - but:
        name = graph.op("Expand", name, graph.sizes([1 if axis in but else value.shape[axis] for axis in axes]))
    return name


@RULES.register("gather")
def _gather(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    value, indices = operands
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    if numbers.operand_batching_dims or numbers.start_indices_batching_dims:
        raise NotImplementedError("a gather with batched indices (lax.gather)")
    if indices.constant is not None and len(indices.shape) == 1:
        starts = dict(zip(numbers.start_index_map, entries(indices).tolist(), strict=True))
        cut = {
            axis: (start, start + sizes[axis], 1)
            for axis, start in starts.items()
            if str(sizes[axis]) != str(value.shape[axis])
        }
        part = sliced(graph, value, cut, tuple(sizes))
        return _without(part, set(numbers.collapsed_slice_dims), shape)
    if indices.constant is not None and len(numbers.start_index_map) > 1:
        return _grid(graph, value, entries(indices), numbers, sizes, shape)
    (axis,) = numbers.start_index_map if len(numbers.start_index_map) == 1 else (None,)
    rest_is_whole = all(str(sizes[i]) == str(value.shape[i]) for i in range(len(sizes)) if i != axis)
    if axis is None or numbers.collapsed_slice_dims != (axis,) or sizes[axis] != 1 or not rest_is_whole:
        raise NotImplementedError("a gather along several axes (lax.gather)")
    rows = _without(settled(graph, indices), {len(indices.shape) - 1}, indices.shape[:-1])
    index = _unwrapped(graph, whole(graph, rows), value.shape[axis])
    name = graph.op("Gather", whole(graph, value), index, axis=axis)
    batch = [i for i in range(len(shape)) if i not in numbers.offset_dims]
    offset = list(numbers.offset_dims)
    before = sum(i < axis for i in range(len(value.shape)))
    return Value(tuple(shape), value.dtype, name, (*offset[:before], *batch, *offset[before:]))


def _grid(graph: Graph, value: Value, indices: np.ndarray, numbers: Any, sizes: Any, shape: tuple[Any, ...]) -> Value:
    """Rows and columns at equal distances: known indices of several axes, each of which follows one axis of theirs."""
    axes = numbers.start_index_map
    batch = [i for i in range(len(shape)) if i not in numbers.offset_dims]
    whole = all(str(sizes[i]) == str(value.shape[i]) for i in range(len(sizes)) if i not in axes)
    fits = whole and numbers.collapsed_slice_dims == tuple(sorted(axes)) and len(axes) == len(batch)
    cut, at = {}, dict(zip([i for i in range(len(sizes)) if i not in axes], numbers.offset_dims, strict=True))
    for place, axis in enumerate(axes):
        line = np.moveaxis(indices[..., place], place, -1) if fits else indices[..., place]
        row = line.reshape(-1, line.shape[-1])
        step = int(row[0, 1] - row[0, 0]) if row.shape[1] > 1 else 1
        fits = fits and step > 0 and bool((row == row[0, 0] + step * np.arange(row.shape[1])).all())
        cut[axis], at[axis] = (int(row[0, 0]), int(row[0, -1]) + 1, step), batch[place] if fits else 0
    if not fits:
        raise NotImplementedError("a gather along several axes (lax.gather)")
    part = sliced(graph, value, cut, tuple(value.shape))
    stored = tuple(None if axis is None else at[axis] for axis in part.axes)
    return replace(part, shape=tuple(shape), axes=stored, repeated=frozenset(at[axis] for axis in part.repeated))


def _unwrapped(graph: Graph, name: str, size: Any) -> str:
    """The index itself in place of `index < 0 ? index + size : index`: ONNX counts from the end too."""
    node = graph.nodes.get(name)
    if node is None or node.op != "Where":
        return name
    test, shifted = graph.nodes.get(node.inputs[0]), graph.nodes.get(node.inputs[1])
    plain = node.inputs[2]
    if test is not None and shifted is not None and (test.op, shifted.op) == ("Less", "Add"):
        zero, added = (graph.constants.get(inputs[1]) for inputs in (test.inputs, shifted.inputs))
        if test.inputs[0] == shifted.inputs[0] == plain and zero is not None and added is not None:
            return plain if int(zero) == 0 and int(added) == size else name
    return name
