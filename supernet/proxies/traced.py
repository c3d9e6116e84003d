"""Values inside of a traced pass: what its ReLUs read, what its products give, what its pooling reads."""

from collections.abc import Callable, Sequence
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
    for inner in [whole, *(one.jaxpr for one in map(called, equations(whole)) if one is not None)]:
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
