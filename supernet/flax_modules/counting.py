"""Multiply-adds and bytes of a function, counted in its jaxpr without computing anything."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


class Counts(NamedTuple):
    """Multiply-adds of all products of matrices and convolutions, and bytes of their outputs in fp32."""

    macs: int
    activation_bytes: int


def counted(function: Callable[..., Any], *arguments: Any) -> Counts:
    """Counts of one call.

    Args:
        function: Pure.
        arguments: Arrays, or their shapes and types.
    """
    return _of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of(jaxpr: Jaxpr) -> Counts:
    macs = outputs = 0
    for equation in jaxpr.eqns:
        found = _product(equation)
        if found is None:
            inner = [_of(part) for part in _inside(equation.params)]
            times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            if equation.primitive.name == "cond":  # one of the branches is taken
                inner = [max(inner)]
            found = Counts(*(times * sum(parts) for parts in zip(*inner, strict=True))) if inner else Counts(0, 0)
        macs, outputs = macs + found.macs, outputs + found.activation_bytes
    return Counts(macs, outputs)


def _product(equation: Any) -> Counts | None:
    name, (*inputs,) = equation.primitive.name, equation.invars
    size = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return Counts(size * math.prod(inputs[0].aval.shape[axis] for axis in contracted), 4 * size)
    if name == "conv_general_dilated":
        kernel, numbers = inputs[1].aval.shape, equation.params["dimension_numbers"].rhs_spec
        return Counts(size * math.prod(kernel) // kernel[numbers[0]], 4 * size)
    return None


def _inside(parameters: dict[str, Any]) -> list[Jaxpr]:
    """The jaxprs that an equation holds; of derivatives that are given beside a function, that of the function."""
    names = [name for name in ("call_jaxpr", "jaxpr", "branches", "cond_jaxpr", "body_jaxpr") if name in parameters]
    found = []
    for name in names:
        value = parameters[name]
        for part in value if isinstance(value, tuple | list) else (value,):
            found.append(part.jaxpr if isinstance(part, ClosedJaxpr) else part)
    return found
