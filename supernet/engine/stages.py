"""Stages: a sublayer as a chain of steps, which receive weights already cut to size.

Whatever lies inside a stage is computed again in the backward pass; the outputs between stages are what is kept for it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from search_spaces.network import Sublayer
from supernet.weights.cuts import Tree

COUNTED: ContextVar[list[int] | None] = ContextVar("counted", default=None)
"""Bytes that sublayers keep for the backward pass, while `residual_bytes` traces a network."""


@dataclass(frozen=True)
class Context:
    """Context of a stage: all that it sees besides weights and activations.

    Attributes:
        shape: Shape of the network's input.
        values: Values of choices that are known when traced and size more than weights (a resolution), or no weight of
            any sublayer (heads that share out projections of one size).
        genes: By choice, traced integers that select inside a stage (a kernel size); without its choice there, weights
            are cut to its value already.
        statistics: Batch statistics to normalise with (inference); None normalises with the batch's own.
        collected: When a dict, normalisations leave the batch's statistics here by name (calibration).
        shares: By axis, how much each entry counts, summing to 1, where sizes are mixed or masked; all alike without.
        input: The network's input itself, for a head that reads it too.
    """

    shape: tuple[int, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    genes: Mapping[str, Int[Array, "..."]] = field(default_factory=dict)
    statistics: Tree = None
    collected: dict[str, Tree] | None = None
    shares: Mapping[str, Float[Array, " _n"]] = field(default_factory=dict)
    input: Shaped[Array, "b ..."] | None = None


@dataclass(frozen=True)
class Stage:
    """One step of a sublayer, for weights that are cut to one size.

    Attributes:
        forward: `(params, inputs, context) -> output`; `inputs` are the sublayer's input and the outputs of all stages
            before this one.
        backward: `(params, inputs, output, cotangent, context) -> (params cotangent, inputs cotangents)` where a
            gradient written by hand beats recomputing the stage; a cotangent that is zero may be None. The output of
            the last stage is not kept, and is None. None takes the automatic gradient.
    """

    forward: Callable[[Tree, tuple, Context], Tree]
    backward: Callable[[Tree, tuple, Tree, Tree, Context], tuple[Tree, tuple]] | None = None


def stages_of(stages: Mapping[str, Sequence[Stage]], sublayer: Sublayer) -> Sequence[Stage]:
    """Returns the stages of a sublayer, from those of all by name; none for an option that only skips."""
    skips = sublayer.option is not None and not sublayer.parts
    return stages.get(sublayer.name, ()) if skips else stages[sublayer.name]


def run(stages: Sequence[Stage], params: Tree, x: Tree, context: Context) -> Tree:
    """Computes the sublayer with weights of one size, with JAX's own differentiation."""
    *kept, y = values_of(stages, params, x, context)
    if (counted := COUNTED.get()) is not None:
        counted += [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)]
    return y


def residual_bytes(network: Callable[..., Any], *arguments: Tree) -> int:
    """Bytes that the sublayers of a network keep for the backward pass, where they do not compute them again.

    Args:
        network: Calls `run` for each of its sublayers; it is traced, not computed.
        arguments: Arguments of the network, or their shapes.
    """
    token = COUNTED.set(counted := [])
    try:
        jax.eval_shape(lambda *given: network(*given), *arguments)  # a function of its own, or JAX knows the answer
    finally:
        COUNTED.reset(token)
    return sum(counted)


def values_of(stages: Sequence[Stage], params: Tree, x: Tree, context: Context) -> tuple:
    """Returns the input and the outputs of all stages."""
    values = (x,)
    for stage in stages:
        values += (stage.forward(params, values, context),)
    return values


def merged(stages: Sequence[Stage]) -> tuple[Stage]:
    """Returns the chain as one stage, which stores only its input for the backward pass and recomputes the rest."""

    def forward(params: Tree, inputs: tuple, context: Context) -> Tree:
        return values_of(stages, params, inputs[0], context)[-1]

    def backward(params: Tree, inputs: tuple, output: Tree, cotangent: Tree, context: Context) -> tuple[Tree, tuple]:
        *values, _ = values_of(stages, params, inputs[0], context)
        grads, d_x = pull_back(stages, params, tuple(values), cotangent, context)
        return grads, (d_x,)

    return (Stage(forward, backward),)


def pull_back(
    stages: Sequence[Stage], params: Tree, values: tuple, cotangent: Tree, context: Context
) -> tuple[Tree, Tree]:
    """Cotangents of the weights and of `values[0]`; `values` are the input and the outputs of all stages but one."""
    cotangents: list[Tree] = [None] * len(values) + [cotangent]
    grads: Tree = None
    for i in reversed(range(len(stages))):
        stage, inputs, output = stages[i], values[: i + 1], (*values, None)[i + 1]
        if stage.backward is not None:
            d_params, d_inputs = stage.backward(params, inputs, output, cotangents[i + 1], context)
        else:
            _, vjp = jax.vjp(lambda p, v, stage=stage: stage.forward(p, v, context), params, inputs)
            d_params, d_inputs = vjp(cotangents[i + 1])
        grads = _add(grads, d_params)
        for j, d in enumerate(d_inputs):
            cotangents[j] = _add(cotangents[j], d)
    return (jax.tree.map(jnp.zeros_like, params) if grads is None else grads), cotangents[0]


def _add(a: Tree, b: Tree) -> Tree:
    if a is None or b is None:
        return b if a is None else a
    return jax.tree.map(jnp.add, a, b)
