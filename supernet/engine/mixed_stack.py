"""The superposed pass of one stack: its layers at full size, as mixtures of all that their genes may select."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from search_spaces.network import Stack, Sublayer
from supernet.engine.mixtures import added_to, mean_of, shares
from supernet.engine.stages import Context, Stage, run, stages_of
from supernet.engine.superposed import Relaxed
from supernet.engine.views import view_of
from supernet.weights.cuts import Tree
from supernet.weights.described import Weights


def mixed_stack(
    weights: Weights, stages: Mapping[str, Sequence[Stage]], stack: Stack, params: Tree, relaxed: Relaxed, x: Tree,
    context: Context,
) -> Tree:  # fmt: skip
    """Runs the layers of a stack at full size, and hands on a mixture of where they may stop.

    Args:
        weights: Layout of the weights.
        stages: By name of the sublayer.
        stack: The layers.
        params: Their weights, which are mixed already.
        relaxed: Weight of each value of each gene.
        x: The stream before them.
        context: Context of all layers; statistics are those of the stack, with layers on a leading axis.
    """
    by_choice = weights.relaxed(relaxed, stack, stack.choices)
    layered_choices = {name: leaf for name, leaf in by_choice.items() if leaf.ndim == 2}

    view = view_of(stack)

    def layer(x: Tree, i: Any, params: Tree, statistics: Tree, own: Mapping[str, jax.Array]) -> Tree:
        relaxed, y = {**by_choice, **own}, view.enter(x, i)

        def output(sublayer: Sublayer, y: Tree) -> Tree:
            counts = shares(sublayer, relaxed, weights.values)
            moments = None if statistics is None else weights.own(statistics, sublayer, "statistics")
            inner = replace(context, statistics=moments, shares=counts)
            own, of_sublayer = weights.own(params, sublayer), stages_of(stages, sublayer)
            # What sizes no weight has no mask: it is a pass each, whose outputs are mixed.
            free = [c for c in sublayer.choices if c not in context.values and weights.sizes_none(c)]
            outputs, shared = [], []
            for numbers in itertools.product(*(range(len(weights.values[name])) for name in free)):
                values = {name: weights.values[name][i] for name, i in zip(free, numbers, strict=True)}
                outputs.append(run(of_sublayer, own, y, replace(inner, values={**context.values, **values})))
                shared.append(math.prod(relaxed[name][i] for name, i in zip(free, numbers, strict=True)))
            return mean_of(outputs, jnp.stack(shared)) if free else outputs[0]

        for group in stack.groups:
            outputs = [output(sublayer, y) for sublayer in group]
            if (option := group[0].option) is None:
                (y,) = outputs
            else:
                order = [weights.values[option.of.choice].index(value) for value in option.of.sublayers]
                counted = relaxed[option.of.choice][np.array(order)]
                y = added_to(y, outputs, counted) if stack.edges else mean_of(outputs, counted)
        return view.leave(x, y, i)

    if stack.layers is None:
        return layer(x, 0, params, context.statistics, {})
    numbers = np.arange(stack.layers)
    if stack.edges:  # what they weigh says whether they are there
        inputs = numbers, params, context.statistics, layered_choices
        return jax.lax.scan(lambda x, inputs: (layer(x, *inputs), None), x, inputs)[0]
    on, stops = weights.depths(relaxed, stack)

    def body(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        (x, stopped), (own, on, stop) = carry, inputs
        y = layer(x, *own)
        if stops is None:
            return (jax.tree.map(lambda x, y: x + on * (y - x), x, y), stopped), None
        return (y, jax.tree.map(lambda total, y: total + stop * y, stopped, y)), None

    start = jax.tree.map(lambda x: jnp.zeros_like(x) if stops is None else stops[0] * x, x)
    inputs = (numbers, params, context.statistics, layered_choices), on, None if stops is None else stops[1:]
    (y, stopped), _ = jax.lax.scan(body, (x, start), inputs)
    return y if stops is None else stopped
