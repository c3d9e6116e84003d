"""Interpreter of a traced pass that carries tracked weights to the products that they take part in.

References:
    Sarkar et al. Evolution Strategies at the Hyperscale. 2025, arXiv:2511.16652. Differs: layers need not be written
    for it; the perturbed pass follows from the equations of the plain one, switches and loops included.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

from supernet.evolution_strategy.products import Parameters, multiplied, use_of
from supernet.evolution_strategy.tracked import MOVES, PARAMETERS, NoLowRankForm, Tracked, concatenated, rows, scaled
from supernet.proxies.traced import called

Unknown = Callable[[str, Sequence[Any]], None]
"""Told of an operation on tracked weights that has no factors; what it gives then has no perturbation."""
Record = Callable[[Any], None]
"""Told of each product with a tracked weight."""


def run(closed: ClosedJaxpr, arguments: Sequence[Any], record: Record, unknown: Unknown) -> list[Any]:
    """Computes a jaxpr of arrays and tracked weights; may be traced.

    Args:
        closed: The pass.
        arguments: One for each of its inputs.
        record: Told of each product with a tracked weight.
        unknown: Told of each operation that a tracked weight does not go through; it may raise an error.
    """
    return _Run(record, unknown).jaxpr(closed, arguments)


class _Run:
    def __init__(self, record: Record, unknown: Unknown) -> None:
        self._record, self._unknown = record, unknown

    def jaxpr(self, closed: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
        jaxpr = closed.jaxpr
        known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        known |= zip(jaxpr.invars, arguments, strict=True)

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            outputs = self._equation(equation, [read(atom) for atom in equation.invars])
            known |= zip(equation.outvars, outputs, strict=True)
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, inputs: list[Any]) -> Sequence[Any]:
        name, primitive = equation.primitive.name, equation.primitive

        def bind(*arrays: Any) -> Any:
            return primitive.bind(*arrays, **primitive.get_bind_params(equation.params))

        if not any(isinstance(value, Tracked) for value in inputs):
            outputs = bind(*inputs)
        elif name in ("scan", "while", "cond"):
            return {"scan": self._scan, "while": self._while, "cond": self._cond}[name](equation.params, inputs)
        elif (inner := called(equation)) is not None:
            return self.jaxpr(inner, inputs)
        else:
            outputs = self._moved_or_multiplied(name, equation.params, inputs, bind)
        return outputs if primitive.multiple_results else [outputs]

    def _moved_or_multiplied(self, name: str, params: Parameters, inputs: list[Any], bind: Callable) -> Any:
        try:
            if name in MOVES and not any(isinstance(value, Tracked) for value in inputs[1:]):
                given = {key: params[key] for key in PARAMETERS[name] if key in params}
                return MOVES[name](*inputs, **given)
            if name == "concatenate":
                return concatenated(inputs, params["dimension"])
            if name in ("copy", "copy_p", "stop_gradient"):
                return inputs[0]
            if name == "mul" and (single := _scaling(inputs)) is not None:
                return scaled(*single)
            use = use_of(name, inputs, params)
            if use is not None:
                self._record(use)
                return multiplied(name, inputs, params, bind)
        except NoLowRankForm as error:
            self._unknown(f"{name}, which {error}", inputs)
        self._unknown(name, inputs)
        return bind(*_bare(inputs))

    def _cond(self, params: Parameters, inputs: list[Any]) -> list[Any]:
        index, *operands = inputs
        branches = [lambda branch=branch: self._plain(branch, operands, "cond") for branch in params["branches"]]
        return jax.lax.switch(index, branches)

    def _while(self, params: Parameters, inputs: list[Any]) -> list[Any]:
        first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        tests, consts, carry = inputs[:first], inputs[first:second], inputs[second:]
        tests, carry = self._checked("while", tests), self._checked("while", carry)
        return jax.lax.while_loop(
            lambda carry: self._plain(params["cond_jaxpr"], [*tests, *carry], "while")[0],
            lambda carry: self._plain(params["body_jaxpr"], [*consts, *carry], "while"),
            carry,
        )

    def _scan(self, params: Parameters, inputs: list[Any]) -> list[Any]:
        first, second = params["num_consts"], params["num_consts"] + params["num_carry"]
        consts, carry, stacks = inputs[:first], self._checked("scan", inputs[first:second]), inputs[second:]
        stacks = [rows(value) if isinstance(value, Tracked) else value for value in stacks]
        axes = [value.axes[1:] if isinstance(value, Tracked) else None for value in stacks]
        arrays = [(v.base, v.left, v.right) if isinstance(v, Tracked) else (v,) for v in stacks]

        def body(carry: list[Any], layer: list[tuple]) -> tuple[list[Any], list[Any]]:
            each = zip(layer, axes, strict=True)
            own = [Tracked(leaf[0], leaf[1], leaf[2], at) if at is not None else leaf[0] for leaf, at in each]
            outputs = self._plain(params["jaxpr"], [*consts, *carry, *own], "scan")
            return outputs[: params["num_carry"]], outputs[params["num_carry"] :]

        carry, stacked = jax.lax.scan(
            body, carry, arrays, params["length"], reverse=params["reverse"], unroll=params["unroll"]
        )
        return [*carry, *stacked]

    def _plain(self, closed: ClosedJaxpr, inputs: Sequence[Any], name: str) -> list[Any]:
        """The outputs of a jaxpr, none of which may be tracked."""
        return self._checked(name, self.jaxpr(closed, inputs))

    def _checked(self, name: str, values: Sequence[Any]) -> list[Any]:
        tracked = [value for value in values if isinstance(value, Tracked)]
        if tracked:
            self._unknown(name, tracked)
        return _bare(values)


def _bare(values: Sequence[Any]) -> list[Any]:
    return [value.base if isinstance(value, Tracked) else value for value in values]


def _scaling(inputs: Sequence[Any]) -> tuple[Tracked, Any] | None:
    """A tracked weight and the single number that it is multiplied with."""
    for value, other in (inputs, inputs[::-1]):
        if isinstance(value, Tracked) and not isinstance(other, Tracked) and getattr(other, "size", 1) == 1:
            return (value, jax.numpy.asarray(other)) if value.base.ndim >= jax.numpy.ndim(other) else None
    return None
