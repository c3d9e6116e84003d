"""Products, convolutions and sums: convolutions lie with their channels before rows and columns."""

from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from supernet.onnx.convert import RULES, Parameters
from supernet.onnx.graph import Graph
from supernet.onnx.values import Value, arrange, entries, fixed, plain_axes, reshaped, settled, whole
from supernet.onnx.windows import window_convolution


@RULES.register("dot_general")
def _dot(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    (contract, batch) = params["dimension_numbers"]
    left, right = operands
    sides = [(left, tuple(contract[0]), tuple(batch[0])), (right, tuple(contract[1]), tuple(batch[1]))]
    if left.constant is not None and right.constant is None:
        sides.reverse()
    (x, over, same), (y, y_over, y_same) = sides
    free = [axis for axis in range(len(x.shape)) if axis not in (*over, *same)]
    y_free = [axis for axis in range(len(y.shape)) if axis not in (*y_over, *y_same)]
    # Numbers of the result's axes: batch, then free axes of the left operand, then those of the right one.
    first, second = (free, y_free) if sides[0][0] is left else (y_free, free)
    place = len(same)
    numbers = {(id(first), axis): place + i for i, axis in enumerate(first)}
    numbers |= {(id(second), axis): place + len(first) + i for i, axis in enumerate(second)}
    free_at = [numbers[(id(free), axis)] for axis in free]
    y_free_at = [numbers[(id(y_free), axis)] for axis in y_free]
    if y.constant is not None and not same:
        return _by_matrix(graph, x, over, free, free_at, _matrix(y, y_over, y_free), y_free, y_free_at, shape, y)
    if (len(free) > 1 and len(y_free) > 1) or len(over) != 1:
        raise NotImplementedError(
            "a product over several axes, or with several free axes on both sides (lax.dot_general)"
        )
    if len(y_free) > 1:
        x, y, same, y_same, over, y_over = y, x, y_same, same, y_over, over
        free, y_free, free_at, y_free_at = y_free, free, y_free_at, free_at
    x, y = settled(graph, x), settled(graph, y)
    extra, last = free[:-1], free[-1:]
    a = arrange_full(graph, x, [*same, *extra, *last, *over], len(last))
    b_axes: list[int | None] = [*y_same, *([None] * len(extra)), *y_over, *y_free]
    b = arrange_full(graph, y, b_axes, len(y_free))
    if not last or not y_free:  # a vector on one side
        a = a if last else graph.op("Unsqueeze", a, graph.integers([-2]))
        b = b if y_free else graph.op("Unsqueeze", b, graph.integers([-1]))
    name = graph.op("MatMul", a, b)
    axes = (*range(len(same)), *free_at[:-1], free_at[-1] if last else None, y_free_at[0] if y_free else None)
    return Value(tuple(shape), np.dtype(params["out_dtype"]), name, axes)


def arrange_full(graph: Graph, value: Value, axes: list[Any], _free: int) -> str:
    """Arranges a tensor to the given axes, of which only batch axes may be repeated."""
    name = arrange(graph, value, axes)
    inner = set(axes[-2:]) & value.repeated
    if inner:
        sizes = [
            1 if axis is None or (axis in value.repeated and axis not in inner) else value.shape[axis] for axis in axes
        ]
        name = graph.op("Expand", name, graph.sizes(sizes))
    return name


def _matrix(weights: Value, over: tuple[int, ...], free: list[int]) -> np.ndarray:
    array = entries(weights).transpose(*over, *free)
    return array.reshape(int(np.prod(array.shape[: len(over)])), -1)


def _by_matrix(
    graph: Graph, x: Value, over: tuple[int, ...], free: list[int], free_at: list[int], matrix: np.ndarray,
    y_free: list[int], y_free_at: list[int], shape: tuple[Any, ...], weights: Value,
) -> Value:  # fmt: skip
    """A product with a constant matrix [k, n]: of whole maps a 1x1 convolution."""
    dtype = x.dtype
    if len(over) == 1 and len(y_free) == 1 and len(x.axes) == 4 and over[0] == 3 and y_free_at[0] == 3:
        found = window_convolution(graph, x.name, x.axes, matrix, weights.hint)
        if found is not None:
            return Value(tuple(shape), dtype, found, (0, 3, 1, 2))
    if len(over) == 1 and len(y_free) <= 1:
        viewed = _pointwise(graph, x, over[0], matrix, shape, weights)
        if viewed is not None and y_free and y_free_at[0] == len(shape) - 1:
            return viewed
    x = settled(graph, x)
    if len(over) == 1 and len(y_free) == 1:
        a = over[0]
        if x.repeated:
            x = replace(x, name=whole(graph, x), axes=plain_axes(x.shape), repeated=frozenset())
        axes = [axis for axis in x.axes if axis is not None and axis != a]
        name = graph.op("MatMul", arrange(graph, x, [*axes, a]), graph.constant(matrix, weights.hint))
        at = dict(zip(free, free_at, strict=True))
        return Value(tuple(shape), dtype, name, (*(at[axis] for axis in axes), y_free_at[0]))
    sizes = [x.shape[axis] for axis in free]
    moved = replace(x, name=_whole_in(graph, x, [*free, *over]), axes=(*free, *over), repeated=frozenset())
    flat = reshaped(graph, moved.name, [*sizes, *(x.shape[a] for a in over)], [*sizes, len(matrix)])
    name = graph.op("MatMul", flat, graph.constant(matrix, weights.hint))
    split = [weights.shape[axis] for axis in y_free]
    name = reshaped(graph, name, [*sizes, matrix.shape[1]], [*sizes, *split])
    return Value(tuple(shape), dtype, name, (*free_at, *y_free_at))


def _whole_in(graph: Graph, x: Value, axes: list[int]) -> str:
    name = arrange(graph, x, axes)
    return graph.op("Expand", name, graph.sizes([x.shape[a] for a in axes])) if x.repeated else name


def _pointwise(
    graph: Graph, x: Value, axis: int, matrix: np.ndarray, shape: tuple[Any, ...], weights: Value
) -> Value | None:
    """The 1x1 convolution of maps that lie with their channels second; None of anything else."""
    maps, merged = x, False
    if x.source is not None and axis == len(x.shape) - 1 and str(x.source.shape[-1]) == str(x.shape[-1]):
        maps, merged, axis = x.source, True, len(x.source.shape) - 1
    if maps.source is not None or len(maps.axes) != 4 or maps.axes[1] != axis or maps.repeated:
        return None
    if axis != len(maps.shape) - 1 or maps.axes[0] is None:
        return None
    kernel = graph.constant(np.ascontiguousarray(matrix.T)[:, :, None, None], weights.hint)
    name = graph.op("Conv", maps.name, kernel)
    result = Value((*maps.shape[:-1], matrix.shape[1]), maps.dtype, name, maps.axes)
    return Value(tuple(shape), maps.dtype, source=result) if merged else result


@RULES.register("conv_general_dilated")
def _convolution(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    if any(step != 1 for step in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise NotImplementedError("a transposed convolution, or one that groups the batch (lax.conv_general_dilated)")
    numbers = params["dimension_numbers"]
    x, kernel = operands
    x = settled(graph, x)
    lows, highs = zip(*params["padding"], strict=True)
    if min(*lows, *highs, 0) < 0:
        raise NotImplementedError("a convolution that is padded by less than nothing (lax.conv_general_dilated)")
    name = graph.op(
        "Conv",
        arrange(
            graph, replace(x, name=whole(graph, x), axes=plain_axes(x.shape), repeated=frozenset()), numbers.lhs_spec
        )
        if x.repeated
        else arrange(graph, x, numbers.lhs_spec),
        arrange(
            graph, fixed(entries(kernel), kernel.hint) if kernel.constant is not None else kernel, numbers.rhs_spec
        ),
        strides=list(params["window_strides"]),
        pads=[*lows, *highs],
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )
    return Value(tuple(shape), np.dtype(params["out_dtype"]), name, tuple(numbers.out_spec))


def _reduction(op: str, logical: bool = False) -> Any:
    def rule(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
        value, over = settled(graph, operands[0]), set(params["axes"])
        if value.repeated & over:
            value = replace(value, name=whole(graph, value), axes=plain_axes(value.shape), repeated=frozenset())
        elif value.constant is not None:
            value = replace(value, name=arrange(graph, value, value.axes), constant=None)
        places = sorted(value.axes.index(axis) for axis in over)
        name = value.name
        if logical:
            name = graph.op("Cast", name, to=TensorProto.INT32)
        name = graph.op(op, name, graph.integers(places), keepdims=1)
        if all(isinstance(value.shape[axis], int) for axis in over):
            graph.counts[name] = int(np.prod([value.shape[axis] for axis in over])), len(value.axes)
        if logical:
            name = graph.op("Cast", name, to=TensorProto.BOOL)
        kept = [axis for axis in range(len(value.shape)) if axis not in over]
        axes = tuple(None if axis is None or axis in over else kept.index(axis) for axis in value.axes)
        repeated = frozenset(kept.index(axis) for axis in value.repeated)
        return Value(tuple(shape), np.dtype(params["out_dtype"]), name, axes, repeated)

    return rule


for _primitive, _op in {"sum": "ReduceSum", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd"}.items():
    RULES.register(f"reduce_{_primitive}")(_reduction(_op))
RULES.register("reduce_and")(_reduction("ReduceMin", logical=True))
RULES.register("reduce_or")(_reduction("ReduceMax", logical=True))


def _position(op: str) -> Any:
    def rule(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
        (axis,) = params["axes"]
        name = graph.op(op, whole(graph, operands[0]), axis=axis, keepdims=0)
        name = graph.op("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(params["index_dtype"])))
        return Value(tuple(shape), np.dtype(params["index_dtype"]), name, plain_axes(shape))

    return rule


RULES.register("argmax")(_position("ArgMax"))
RULES.register("argmin")(_position("ArgMin"))


@RULES.register("cumsum")
def _cumulative(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    axis = graph.constant(np.array(params["axis"], np.int64))
    name = graph.op("CumSum", whole(graph, operands[0]), axis, reverse=int(params["reverse"]))
    return Value(tuple(shape), operands[0].dtype, name, plain_axes(shape))


def _window(maximum: bool) -> Any:
    def rule(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
        value = operands[0]
        window, strides, padding = params["window_dimensions"], params["window_strides"], params["padding"]
        plain = all(step == 1 for step in (*params["base_dilation"], *params["window_dilation"]))
        if not plain or len(shape) != 4 or window[0] != 1 or window[3] != 1 or any(padding[0] + padding[3]):
            raise NotImplementedError("a window over other axes than rows and columns (lax.reduce_window)")
        axes = (0, 3, 1, 2)
        sizes = {"kernel_shape": list(window[1:3]), "strides": list(strides[1:3])}
        pads = [low for low, _ in padding[1:3]] + [high for _, high in padding[1:3]]
        x = arrange(graph, settled(graph, value), axes)
        if maximum:
            name = graph.op("MaxPool", x, **sizes, pads=pads)
        else:
            name = graph.op("AveragePool", x, **sizes, pads=pads, count_include_pad=1)
            name = graph.op("Mul", name, graph.constant(np.array(window[1] * window[2], value.dtype)))
        return Value(tuple(shape), value.dtype, name, axes)

    return rule


RULES.register("reduce_window_max")(_window(True))
RULES.register("reduce_window_sum")(_window(False))
