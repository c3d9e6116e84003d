"""Multiply-adds of a traced function, counted from its jaxpr: no cost model has a part in the count."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.extend import core


class Count(NamedTuple):
    """Multiply-adds of products and convolutions, and how many numbers they give."""

    macs: int
    outputs: int

    def __add__(self, other: "Count") -> "Count":  # type: ignore[override]
        return Count(self.macs + other.macs, self.outputs + other.outputs)

    def __mul__(self, times: int) -> "Count":  # type: ignore[override]
        return Count(self.macs * times, self.outputs * times)


def count(function: Callable[..., Any], *arguments: Any) -> Count:
    """Counts in one call of `function`; `arguments` may be shapes."""
    return _jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _jaxpr(jaxpr: core.Jaxpr) -> Count:
    return sum((_equation(equation) for equation in jaxpr.eqns), Count(0, 0))


def _equation(equation: core.JaxprEqn) -> Count:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left, out = _shape(equation.invars[0]), math.prod(_shape(equation.outvars[0]))
        return Count(out * math.prod(left[i] for i in contracted), out)
    if name == "conv_general_dilated":
        features = params["dimension_numbers"].rhs_spec[0]
        kernel, out = _shape(equation.invars[1]), math.prod(_shape(equation.outvars[0]))
        return Count(out * math.prod(kernel) // kernel[features], out)
    inner = list(_inner(params))
    if name in ("while", "cond") and any(_jaxpr(jaxpr).macs for jaxpr in inner):
        raise NotImplementedError(f"{name} has no definite number of multiply-adds")
    return sum((_jaxpr(jaxpr) for jaxpr in inner), Count(0, 0)) * params.get("length", 1)


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _inner(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item
