"""Conversion: a traced program (a jaxpr) into a graph; what depends on constants only is computed here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from search_spaces.registry import Registry
from supernet.onnx.graph import Graph
from supernet.onnx.values import Value, entries, fixed

Parameters = Mapping[str, Any]
"""Parameters of an operation, by the names that JAX gives them."""

Rule = Callable[[Graph, list[Value], Parameters, tuple[Any, ...]], Value]
"""Adds the nodes of one operation: graph, operands, parameters of the operation, shape of the result."""

RULES: Registry[Rule] = Registry("operation", "supernet.onnx.rules")
# Of a constant as cheap as of anything else; and a size that only the input tells.
_LAZY = {"broadcast_in_dim", "copy", "copy_p", "stop_gradient", "dim_as_value"}
_LARGEST = 2**24  # entries of a constant that is computed here


def convert(graph: Graph, program: core.Jaxpr, constants: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
    """Adds the nodes of a program.

    Args:
        graph: Graph to which nodes are added.
        program: Traced program.
        constants: Arrays or values that it closes over.
        arguments: Arguments of the program.

    Returns:
        Its outputs.

    Raises:
        NotImplementedError: An operation has no counterpart; the message names it.
    """
    known: dict[core.Var, Value] = {}
    known |= dict(zip(program.constvars, map(_value, constants), strict=True))
    known |= dict(zip(program.invars, arguments, strict=True))

    def read(operand: Any) -> Value:
        return _value(operand.val) if isinstance(operand, core.Literal) else known[operand]

    for equation in program.eqns:
        results = _results(graph, equation, [read(operand) for operand in equation.invars])
        known |= dict(zip(equation.outvars, results, strict=True))
        for value in results:
            if value.constant is None and value.source is None:
                graph.shapes[value.name] = value.stored(value.axes)
    return [read(output) for output in program.outvars]


def _value(array: Any) -> Value:
    return array if isinstance(array, Value) else fixed(np.asarray(array))


def _results(graph: Graph, equation: Any, operands: list[Value]) -> Sequence[Value]:
    name, params = equation.primitive.name, equation.params
    if name == "platform_index":
        # The last branch is the one for any other platform; its operations are the library's.
        return [fixed(np.array(len(params["platforms"]) - 1, np.int32))]
    if name == "cond":
        index = operands[0].constant
        if index is None:
            raise NotImplementedError("a choice between branches that depends on the input (lax.cond, lax.switch)")
        branch = params["branches"][int(np.clip(index, 0, len(params["branches"]) - 1))]
        return convert(graph, branch.jaxpr, branch.consts, operands[1:])
    inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
    if inner is not None and name not in ("scan", "while"):
        program, constants = (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, ())
        return convert(graph, program, constants, operands)
    shapes = [variable.aval.shape for variable in equation.outvars]
    whole = all(isinstance(size, int) for shape in shapes for size in shape)
    if name not in _LAZY and whole and all(operand.constant is not None for operand in operands):
        small = all(np.prod(shape, dtype=float) <= _LARGEST for shape in shapes)
        if small and all(isinstance(size, int) for operand in operands for size in operand.shape):
            return _computed(equation, operands)
    if name == "split":
        return _split(graph, operands[0], params)
    if name not in RULES:
        raise NotImplementedError(f"operation {name}")
    if len(shapes) != 1:
        raise NotImplementedError(f"operation {name} of several results")
    return [RULES[name](graph, operands, {**params, "out_dtype": equation.outvars[0].aval.dtype}, shapes[0])]


def _computed(equation: Any, operands: list[Value]) -> list[Value]:
    found = equation.primitive.bind(*map(entries, operands), **equation.params)
    # Weights keep their name where nothing but their order changes.
    moves = equation.primitive.name in ("transpose", "reshape", "squeeze", "convert_element_type")
    hint = operands[0].hint if moves and operands else "constant"
    return [fixed(np.asarray(one), hint) for one in (found if equation.primitive.multiple_results else [found])]


def _split(graph: Graph, value: Value, params: Parameters) -> list[Value]:
    axis, parts, start = params["axis"], [], 0
    for size in params["sizes"]:
        limits = [
            (start, start + size) if i == axis else (0, whole) for i, whole in enumerate(value.shape)
        ]  # fmt: skip
        shape = tuple(size if i == axis else whole for i, whole in enumerate(value.shape))
        cut = {
            "start_indices": tuple(first for first, _ in limits),
            "limit_indices": tuple(last for _, last in limits),
            "strides": None,
            "out_dtype": value.dtype,
        }
        parts.append(RULES["slice"](graph, [value], cut, shape))
        start += size
    return parts


def trace(function: Callable[..., Any], *shapes: jax.ShapeDtypeStruct) -> core.ClosedJaxpr:
    """Traces a function of arrays; its outputs are arrays or nested in lists."""
    return jax.make_jaxpr(function)(*shapes)
