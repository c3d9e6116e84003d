"""Operations on entries: they take their operands in whatever order these lie."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import helper

from supernet.onnx.convert import RULES, Parameters
from supernet.onnx.graph import Graph
from supernet.onnx.values import Value, arrange, fixed, plain_axes, settled

_DIRECT = {
    "abs": "Abs", "add": "Add", "add_any": "Add", "and": "And", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh",
    "div": "Div", "eq": "Equal", "erf": "Erf", "exp": "Exp", "floor": "Floor", "ge": "GreaterOrEqual", "gt": "Greater",
    "is_nan": "IsNaN", "le": "LessOrEqual", "log": "Log", "logistic": "Sigmoid", "lt": "Less", "max": "Max",
    "min": "Min", "mul": "Mul", "neg": "Neg", "not": "Not", "or": "Or", "pow": "Pow", "sign": "Sign", "sin": "Sin",
    "sinh": "Sinh", "sqrt": "Sqrt", "sub": "Sub", "tan": "Tan", "tanh": "Tanh", "xor": "Xor",
}  # fmt: skip

_CHANNELS_SECOND = (0, 3, 1, 2)


def elementwise(graph: Graph, operands: Sequence[Value], shape: tuple[Any, ...], dtype: Any, node: Callable) -> Value:
    """Adds nodes on entries.

    Args:
        graph: Graph to which nodes are added.
        operands: Operands of the result's shape, or scalars.
        shape: Shape of the result.
        dtype: Type of the result.
        node: Makes the nodes from the names of the operands' tensors, and returns the name of their output.
    """
    arrays = [value for value in operands if value.constant is None and value.shape]
    first = _ordered(arrays, shape)
    names = [_operand(graph, value, first) for value in operands]
    repeated = [
        frozenset(axis for axis in range(len(shape)) if not value.shape or axis in value.repeated)
        for value in operands
        if value.constant is None or value.constant.size > 1 or len(operands) == 1
    ]
    narrow = frozenset.intersection(*repeated) if repeated else frozenset()
    kept = frozenset(axis for axis in narrow if shape[axis] != 1)
    return Value(tuple(shape), np.dtype(dtype), node(*names), first, kept)


def _ordered(arrays: Sequence[Value], shape: Sequence[Any]) -> tuple[int | None, ...]:
    """The order that most is stored in: that of the operand with the fewest axes of size 1."""
    settled = [value for value in arrays if value.source is None]
    if not settled:
        return plain_axes(shape)
    units = [sum(value.unit(axis) for axis in range(len(shape))) for value in settled]
    fullest = [value for value, count in zip(settled, units, strict=True) if count == min(units)]
    best = next((value for value in fullest if value.axes == _CHANNELS_SECOND), fullest[0])
    if None in best.axes and any(value.axes != best.axes and value.constant is None for value in settled):
        complete = [value for value in settled if None not in value.axes]
        return complete[0].axes if complete else plain_axes(shape)
    return best.axes


def _operand(graph: Graph, value: Value, axes: tuple[int | None, ...]) -> str:
    if value.constant is not None and value.constant.size == 1:
        return graph.constant(value.constant.reshape(()), value.hint)
    if not value.shape:
        return arrange(graph, value, ())
    if value.constant is not None:
        array = value.constant
        name = arrange(graph, value, axes)
        array = graph.constants[name]
        kept = next((i for i, size in enumerate(array.shape) if size != 1), array.ndim)
        return graph.constant(array.reshape(array.shape[kept:]), value.hint)
    return arrange(graph, value, axes)


def _register(primitive: str, make: Callable[[Graph, list[str], Parameters, Any], str]) -> None:
    def rule(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
        like = operands[0].dtype
        return elementwise(graph, operands, shape, params["out_dtype"], lambda *x: make(graph, list(x), params, like))

    RULES.register(primitive)(rule)


def number(graph: Graph, value: float, dtype: Any) -> str:
    """Adds a scalar."""
    return graph.constant(np.array(value, dtype))


def _power(graph: Graph, x: list[str], params: Parameters, like: Any) -> str:
    exponent = params["y"]
    if exponent == 2:
        return graph.op("Mul", x[0], x[0])
    return graph.op("Pow", x[0], number(graph, exponent, like))


def _not_equal(graph: Graph, x: list[str], params: Parameters, like: Any) -> str:
    return graph.op("Not", graph.op("Equal", *x))


def _cast(graph: Graph, x: list[str], params: Parameters, like: Any) -> str:
    wanted = np.dtype(params["new_dtype"])
    if wanted == like:
        return x[0]
    return graph.op("Cast", x[0], to=helper.np_dtype_to_tensor_dtype(wanted))


def _remainder(graph: Graph, x: list[str], params: Parameters, like: Any) -> str:
    return graph.op("Mod", *x, fmod=1)


for _primitive, _op in _DIRECT.items():
    _register(_primitive, lambda graph, x, params, like, op=_op: graph.op(op, *x))
for _primitive in ("copy", "copy_p", "stop_gradient", "reduce_precision", "optimization_barrier"):
    _register(_primitive, lambda graph, x, params, like: x[0])
_register("square", lambda graph, x, params, like: graph.op("Mul", x[0], x[0]))
_register("integer_pow", _power)
_register("rsqrt", lambda graph, x, params, like: graph.op("Reciprocal", graph.op("Sqrt", x[0])))
_register("cbrt", lambda graph, x, params, like: graph.op("Pow", x[0], number(graph, 1 / 3, like)))
_register("log1p", lambda graph, x, params, like: graph.op("Log", graph.op("Add", x[0], number(graph, 1, like))))
_register("expm1", lambda graph, x, params, like: graph.op("Sub", graph.op("Exp", x[0]), number(graph, 1, like)))
_register("erfc", lambda graph, x, params, like: graph.op("Sub", number(graph, 1, like), graph.op("Erf", x[0])))
_register("clamp", lambda graph, x, params, like: graph.op("Min", graph.op("Max", x[1], x[0]), x[2]))
_register("ne", _not_equal)
_register("convert_element_type", _cast)
_register("rem", _remainder)
_register("exp2", lambda graph, x, params, like: graph.op("Pow", number(graph, 2, like), x[0]))
_register("is_finite", lambda g, x, params, like: g.op("Not", g.op("Or", g.op("IsNaN", x[0]), g.op("IsInf", x[0]))))


@RULES.register("round")
def _round(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    even = params["rounding_method"].name == "TO_NEAREST_EVEN"

    def node(x: str) -> str:
        if even:
            return graph.op("Round", x)
        away = graph.op("Floor", graph.op("Add", graph.op("Abs", x), number(graph, 0.5, operands[0].dtype)))
        return graph.op("Mul", graph.op("Sign", x), away)

    return elementwise(graph, operands, shape, params["out_dtype"], node)


@RULES.register("select_n")
def _select(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    which, *cases = operands
    if which.dtype != np.bool_ or len(cases) != 2:
        raise NotImplementedError("a choice among more than two arrays (lax.select_n)")
    return elementwise(
        graph, [which, *cases], shape, params["out_dtype"], lambda c, no, yes: graph.op("Where", c, yes, no)
    )


@RULES.register("broadcast_in_dim")
def _broadcast(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    value, places = settled(graph, operands[0]), tuple(params["broadcast_dimensions"])
    repeated = {places[axis] for axis in value.repeated}
    repeated |= {
        place
        for axis, place in enumerate(places)
        if isinstance(value.shape[axis], int) and value.shape[axis] == 1 and shape[place] != 1
    }
    new = [axis for axis in range(len(shape)) if axis not in places]
    repeated |= {axis for axis in new if not (isinstance(shape[axis], int) and shape[axis] == 1)}
    axes: list[int | None] = [None if axis is None else places[axis] for axis in value.axes]
    constant = value.constant
    for axis in new:  # one of size 1, in a place that the tensor has, or before all others
        if constant is None and None in axes:
            axes[_place(axes, axis)] = axis
        elif constant is None:
            return _inserted(graph, value, places, shape, frozenset(repeated))
        else:
            axes.insert(0, axis)
            constant = constant[None]
    return replace(value, shape=tuple(shape), axes=tuple(axes), repeated=frozenset(repeated), constant=constant)


def _place(axes: list[int | None], axis: int) -> int:
    """Where among a tensor's spare axes of size 1 a new axis goes: between its neighbours, if one lies there."""
    spare = [i for i, old in enumerate(axes) if old is None]
    ordered = [
        i
        for i in spare
        if all(old is None or (old < axis if j < i else old > axis) for j, old in enumerate(axes) if j != i)
    ]
    return (ordered or spare)[0]


def _inserted(graph: Graph, value: Value, places: tuple[int, ...], shape: Any, repeated: frozenset[int]) -> Value:
    """The value with new axes of size 1, where it has no place for them."""
    axes = [None if axis is None else places[axis] for axis in value.axes]
    kept = [axis for axis in axes if axis is not None]
    # Among axes that lie in order, new ones go to their place.
    new = [axis for axis in range(len(shape)) if axis not in kept]
    wanted = list(range(len(shape))) if kept == sorted(kept) else [*new, *kept]
    relabelled = replace(value, shape=tuple(shape), axes=tuple(axes), repeated=repeated)
    return replace(relabelled, name=arrange(graph, relabelled, wanted), axes=tuple(wanted))


@RULES.register("iota")
def _iota(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    axis, size = params["dimension"], shape[params["dimension"]]
    if isinstance(size, int):
        line = fixed(np.arange(size, dtype=params["dtype"]))
    else:
        zero, one = (graph.constant(np.array(value, np.int64)) for value in (0, 1))
        count = graph.op("Range", zero, graph.op("Squeeze", graph.size(size)), one)
        name = graph.op("Cast", count, to=helper.np_dtype_to_tensor_dtype(np.dtype(params["dtype"])))
        line = Value((size,), np.dtype(params["dtype"]), name, (0,))
    return RULES["broadcast_in_dim"](graph, [line], {"broadcast_dimensions": (axis,)}, shape)


@RULES.register("dim_as_value")
def _size(graph: Graph, operands: list[Value], params: Parameters, shape: tuple[Any, ...]) -> Value:
    dtype = np.dtype(params["out_dtype"])
    name = graph.op("Squeeze", graph.size(params["dim"]))
    return Value((), dtype, graph.op("Cast", name, to=helper.np_dtype_to_tensor_dtype(dtype)), ())
