"""Values inside of a traced pass: what its ReLUs read, what its products give, what its pooling reads."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

Values = Sequence[Any]
WEIGHTS, INPUTS = 1, 2
"""Sources of a value, which are added up."""

_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint")


class Seen(NamedTuple):
    """An equation that is computed: its inputs, what each follows from, and its outputs."""

    equation: Any
    inputs: Values
    origins: Sequence[int]
    outputs: Values


Visit = Callable[[Seen], Values]
"""Returns what the rest of the pass takes for the outputs."""
Wanted = Callable[[Any], bool]


class Traced:
    """A pass as equations.

    Args:
        function: Function of weights and a batch of inputs.
        weights: The weights, or their shapes.
        x: The batch, or its shape.
    """

    def __init__(self, function: Callable[[Any, Any], Any], weights: Any, x: Any) -> None:
        self.jaxpr = jax.make_jaxpr(lambda *given: function(*given))(weights, x)

    def has(self, wanted: Wanted) -> bool:
        """Returns whether an equation is wanted, be it in a function that the pass calls or in a loop."""
        return any(map(wanted, equations(self.jaxpr.jaxpr)))

    def run(self, weights: Any, x: Any, wanted: Wanted, visit: Visit) -> list:
        """Computes the pass, one operation after the other, and shows the equations that are wanted.

        Outside of `jit`, JAX keeps what an operation compiles to for its shapes, so networks that share shapes share
        all programs. Functions are entered, and loops unrolled, only where a wanted equation lies in them: the others
        keep derivatives of their own.
        """
        leaves = [*jax.tree.leaves(weights), *jax.tree.leaves(x)]
        origins = [WEIGHTS] * (len(leaves) - len(jax.tree.leaves(x))) + [INPUTS] * len(jax.tree.leaves(x))
        return _run(self.jaxpr, leaves, origins, wanted, visit)[0]

    def total(self, weights: Any, x: Any, wanted: Wanted, summand: Callable[[Any, Values], Any], start: Any) -> Any:
        """Computes the pass, and adds to `start` what `summand` returns for each wanted equation and its inputs.

        Unlike in `run`, wanted equations may lie in branches, of which only those taken count, and loops stay loops, so
        one compiled program serves all networks that differ only in data.
        """
        return _total(self.jaxpr, [*jax.tree.leaves(weights), *jax.tree.leaves(x)], wanted, summand, start)[1]


def _run(
    closed: ClosedJaxpr, arguments: Values, origins: Sequence[int], wanted: Wanted, visit: Visit
) -> tuple[list, list[int]]:
    jaxpr = closed.jaxpr
    known: dict[Var, tuple[Any, int]] = {
        var: (value, 0) for var, value in zip(jaxpr.constvars, closed.consts, strict=True)
    }
    known |= zip(jaxpr.invars, zip(arguments, origins, strict=True), strict=True)

    def read(atom: Any) -> tuple[Any, int]:
        return (atom.val, 0) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        inputs, froms = zip(*map(read, equation.invars), strict=True) if equation.invars else ((), ())
        origin = int(np.bitwise_or.reduce(froms)) if froms else 0
        inner, name = called(equation), equation.primitive.name
        if inner is not None and any(map(wanted, equations(inner.jaxpr))):
            outputs, found = (_unrolled if name == "scan" else _called)(equation, inner, inputs, froms, wanted, visit)
        else:
            outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
            outputs = outputs if equation.primitive.multiple_results else [outputs]
            found = [origin] * len(outputs)
            if wanted(equation):
                outputs = visit(Seen(equation, inputs, froms, outputs))
        known |= zip(equation.outvars, zip(outputs, found, strict=True), strict=True)
    outputs, found = zip(*map(read, jaxpr.outvars), strict=True)
    return list(outputs), list(found)


def _called(
    equation: Any, inner: ClosedJaxpr, inputs: Values, origins: Sequence[int], wanted: Wanted, visit: Visit
) -> tuple[list, list[int]]:
    return _run(inner, inputs, origins, wanted, visit)


def _unrolled(
    equation: Any, inner: ClosedJaxpr, inputs: Values, origins: Sequence[int], wanted: Wanted, visit: Visit
) -> tuple[list, list[int]]:
    p = equation.params
    first, last = p["num_consts"], p["num_consts"] + p["num_carry"]
    carry, stacked, steps = list(inputs[first:last]), [], range(p["length"])
    # What a loop carries follows from all that it is given.
    whole = [int(np.bitwise_or.reduce([*origins[:last], 0]))] * p["num_carry"]
    froms = [*origins[:first], *whole, *origins[last:]]
    found: list[int] = []
    for step in reversed(steps) if p["reverse"] else steps:
        given = [*inputs[:first], *carry, *(leaf[step] for leaf in inputs[last:])]
        outputs, found = _run(inner, given, froms, wanted, visit)
        carry = outputs[: p["num_carry"]]
        stacked.append(outputs[p["num_carry"] :])
    order = stacked[::-1] if p["reverse"] else stacked
    return [*carry, *(jnp.stack(leaves) for leaves in zip(*order, strict=True))], found


def _total(
    closed: ClosedJaxpr, arguments: Values, wanted: Wanted, summand: Callable[[Any, Values], Any], total: Any
) -> tuple[list, Any]:
    jaxpr = closed.jaxpr
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *arguments), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    def inside(inner: ClosedJaxpr, total: Any, *inputs: Any) -> tuple[list, Any]:
        return _total(inner, inputs, wanted, summand, total)

    for equation in jaxpr.eqns:
        inputs = list(map(read, equation.invars))
        inner = _inner(equation)
        if not any(wanted(one) for each in inner for one in all_equations(each.jaxpr)):
            outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
            outputs = outputs if equation.primitive.multiple_results else [outputs]
            if wanted(equation):
                total = total + summand(equation, inputs)
        elif equation.primitive.name == "cond":
            outputs, total = jax.lax.switch(inputs[0], [partial(inside, one) for one in inner], total, *inputs[1:])
        elif equation.primitive.name == "scan":
            outputs, total = _total_of_loop(equation, inputs, partial(inside, inner[0]), total)
        else:
            outputs, total = inside(inner[0], total, *inputs)
        known |= zip(equation.outvars, outputs, strict=True)
    return list(map(read, jaxpr.outvars)), total


def _total_of_loop(equation: Any, inputs: Values, body: Callable[..., tuple[list, Any]], total: Any) -> tuple:
    p = equation.params
    first, last = p["num_consts"], p["num_consts"] + p["num_carry"]

    def step(carry: tuple, row: Values) -> tuple[tuple, list]:
        outputs, total = body(carry[1], *inputs[:first], *carry[0], *row)
        return (outputs[: p["num_carry"]], total), outputs[p["num_carry"] :]

    start = list(inputs[first:last]), total
    (carry, total), stacked = jax.lax.scan(step, start, list(inputs[last:]), p["length"], reverse=p["reverse"])
    return [*carry, *stacked], total


def _inner(equation: Any) -> list[ClosedJaxpr]:
    """Returns what an equation calls: once, in a loop of known length, or as branches of which it takes one."""
    if equation.primitive.name == "cond":
        return list(equation.params["branches"])
    inner = called(equation)
    return [] if inner is None else [inner]


def all_equations(jaxpr: Jaxpr) -> list[Any]:
    """Returns what `equations` returns, and the equations in branches."""
    inner = [one for equation in jaxpr.eqns for one in _inner(equation)]
    return [*jaxpr.eqns, *(found for one in inner for found in all_equations(one.jaxpr))]


def equations(jaxpr: Jaxpr) -> list[Any]:
    """Returns all equations of a jaxpr, of the functions that it calls and of loops of known length."""
    inner = [called(equation) for equation in jaxpr.eqns]
    return [*jaxpr.eqns, *(found for one in inner if one is not None for found in equations(one.jaxpr))]


def called(equation: Any) -> ClosedJaxpr | None:
    """Returns the function that an equation calls, once or in a loop of known length; None for others."""
    if equation.primitive.name not in (*_CALLS, "scan"):
        return None
    found = next(equation.params[name] for name in ("jaxpr", "call_jaxpr") if name in equation.params)
    return found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())


def relus(traced: Traced) -> Wanted:
    """Tells the ReLUs of a pass: maxima with 0 that no minimum bounds (as those of a hard swish are)."""
    found: set[int] = set()
    whole = traced.jaxpr.jaxpr
    for inner in [whole, *(one.jaxpr for equation in all_equations(whole) for one in _inner(equation))]:
        bounded = {atom for e in inner.eqns if e.primitive.name == "min" for atom in e.invars if isinstance(atom, Var)}
        for e in inner.eqns:
            zero = any(isinstance(atom, Literal) and np.all(np.asarray(atom.val) == 0) for atom in e.invars)
            if e.primitive.name == "max" and zero and e.outvars[0] not in bounded:
                found.add(id(e))
    return lambda equation: id(equation) in found


def is_product(equation: Any) -> bool:
    """Returns whether an equation is a convolution or a product of matrices."""
    return equation.primitive.name in ("conv_general_dilated", "dot_general")


def is_norm(equation: Any) -> bool:
    """Returns whether an equation divides by a root, as norms do."""
    return equation.primitive.name in ("rsqrt", "sqrt")


def is_pooling(equation: Any) -> bool:
    """Returns whether an equation adds up maps [b, h, w, c] over their positions."""
    shape = equation.invars[0].aval.shape if equation.invars else ()
    return equation.primitive.name == "reduce_sum" and tuple(equation.params["axes"]) == (1, 2) and len(shape) == 4
