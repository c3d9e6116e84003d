"""The engine's core: a sublayer as a switch over its statically cut variants, paying only for the one taken.

Differentiating a `lax.switch` automatically would write the residuals of every branch, zeros for those not taken. Here
the outputs between stages are the only residuals: one buffer each, as large as the largest variant's, shared by all
branches; whatever lies inside a stage is recomputed in the backward branch.

`switched` is one sublayer, `layered` a network of equal layers, whose branches write residuals and gradients, both at
their own size, where they belong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from supernet.engine.stages import Context, Stage, pull_back, run, values_of
from supernet.engine.views import WHOLE, View
from supernet.weights.cuts import Cut, Tree, at, chosen, put, put_layer, spread, take, take_layer


@dataclass(frozen=True)
class Branches:
    """A sublayer and the sizes that its genes select from.

    Attributes:
        stages: Chain of stages whose last output has one shape, whatever the size.
        cuts: Cuts of the weights, one a size, smallest first; each becomes a branch.
        statistics: Cuts of the batch statistics, one a size; none for a sublayer without.
        path: Path of the sublayer within a layer, where its statistics lie.
        values: Values of the choices that each size stands for; none where stages read all from the weights.
    """

    stages: Sequence[Stage]
    cuts: Sequence[Cut]
    statistics: Sequence[Cut] = ()
    path: str = ""
    values: Sequence[Mapping[str, Any]] = ()

    def context(self, context: Context, number: int) -> Context:
        """Returns the context of stages in a branch."""
        return replace(context, values={**context.values, **self.values[number]}) if self.values else context


def switched(
    branches: Branches, index: Int[Array, ""], params: Tree, x: Tree, context: Context, skippable: bool = True
) -> Tree:
    """Computes the sublayer at the size of `index`, or returns its input if `index` is -1.

    Args:
        branches: Stages and sizes.
        index: int32 scalar.
        params: Full-size weights.
        x: Input; of the shape of the output if skippable.
        context: Genes and statistics. Collected statistics come back padded to the largest size.
        skippable: Whether `index` may be -1.
    """
    if context.collected is not None or context.statistics is not None:
        return _forward_only(branches, index, params, x, context, skippable)
    return _differentiable(branches, skippable, context)(index, context.genes, params, x)


def layered(
    sublayers: Sequence[Branches],
    indices: Sequence[Int[Array, " l"]],
    params: Sequence[Tree],
    x: Tree,
    context: Context,
    genes: Sequence[Tree],
    view: View = WHOLE,
    handed_on: Sequence[str] = (),
) -> Tree:
    """Layers under one loop, each its sublayers in turn at the size of their index, or without the one where it is -1.

    What is written in place was measured on CPUs; for other devices, by the process's default when this is traced, and
    where statistics are used or collected, it is a scan of `switched`.

    Args:
        sublayers: Sublayers of a layer.
        indices: For each sublayer, its index in each layer. int32[l].
        params: For each sublayer, its full-size weights, layers on a leading axis.
        x: Input.
        context: Context of all layers; statistics have layers on a leading axis, and so have those collected.
        genes: For each sublayer, genes of its layers that its stages select by.
        view: View of a stream like `x` that the sublayers of a layer take and return.
        handed_on: As in `search_spaces.network.Stack`; not together with a view that is paired.
    """
    each = range(len(sublayers))
    forward_only = context.collected is not None or context.statistics is not None
    if forward_only or jax.default_backend() != "cpu":

        def one(x: Tree, inputs: tuple) -> tuple[Tree, Tree]:
            (own, statistics, i), collected = inputs, None if context.collected is None else {}
            y = view.enter(x, i)
            inner = replace(context, statistics=statistics, collected=collected)
            for sublayer, index, weights, selected in zip(sublayers, *own, strict=True):
                y = switched(sublayer, index, weights, y, replace(inner, genes=selected))
            return view.leave(x, y, i), collected

        own = tuple(indices), tuple(params), tuple(genes)
        y, collected = jax.lax.scan(one, x, (own, context.statistics, jnp.arange(len(indices[0]))))
        if context.collected is not None:
            context.collected.update(collected)
        return y

    count = len(indices[0])

    def chosen(s: int, i: jax.Array, genes: Sequence[Tree], index: jax.Array, branch: Callable, carry: Tree) -> Tree:
        inner = replace(context, genes=jax.tree.map(lambda gene: gene[i], genes[s]))
        cases = [
            partial(branch, s, cut, sublayers[s].context(inner, number)) for number, cut in enumerate(sublayers[s].cuts)
        ]
        return in_place(index, cases, carry)

    def kept_of(x: Tree) -> Tree:
        if not handed_on:
            return x[1] if view.paired else x
        return {name: leaf for name, leaf in x.items() if name not in handed_on}

    def entered(kept: Tree, given: Tree, g: Tree) -> Tree:
        if view.paired:
            return g[0], kept  # any sum will do
        return {**kept, **given} if handed_on else kept

    def primal(indices: Sequence[jax.Array], genes: Sequence[Tree], params: Sequence[Tree], x: Tree) -> Tree:
        def layer(i: jax.Array, x: Tree) -> Tree:
            def branch(s: int, cut: Cut, inner: Context, x: Tree) -> Tree:
                return values_of(sublayers[s].stages, take_layer(params[s], cut, i), x, inner)[-1]

            y = view.enter(x, i)
            for s in each:
                y = chosen(s, i, genes, indices[s][i], branch, y)
            return view.leave(x, y, i)

        return jax.lax.fori_loop(0, count, layer, x)

    def residuals(s: int, inner: Context, weights: Tree, x: Tree) -> tuple[tuple, Tree]:
        x, *between, y = values_of(sublayers[s].stages, weights, x, inner)
        return (kept_of(x), *between), y

    def forward(
        indices: Sequence[jax.Array], genes: Sequence[Tree], params: Sequence[Tree], x: Tree
    ) -> tuple[Tree, tuple]:
        def layer(i: jax.Array, carry: tuple) -> tuple:
            def branch(s: int, cut: Cut, inner: Context, carry: tuple) -> tuple:
                x, kept = carry
                values, y = residuals(s, inner, take_layer(params[s], cut, i), x)
                return y, _put(kept, values, i)

            y, kept = view.enter(carry[0], i), list(carry[1])
            for s in each:
                y, kept[s] = chosen(s, i, genes, indices[s][i], branch, (y, kept[s]))
            return view.leave(carry[0], y, i), tuple(kept)

        def room(s: int) -> Tree:
            largest = partial(take_layer, params[s], sublayers[s].cuts[-1])
            inner = replace(context, genes=jax.tree.map(lambda gene: gene[0], genes[s]))
            inner = sublayers[s].context(inner, -1)
            full = jax.eval_shape(lambda x: residuals(s, inner, largest(0), view.enter(x, 0))[0], x)
            return _zeros(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), full))

        y, kept = jax.lax.fori_loop(0, count, layer, (x, tuple(map(room, each))))
        return y, (indices, genes, params, kept, {name: x[name] for name in handed_on})

    def backward(saved: tuple, cotangent: Tree) -> tuple:
        indices, genes, params, kept, given = saved

        def layer(done: jax.Array, carry: tuple) -> tuple:
            i = count - 1 - done

            def branch(s: int, cut: Cut, inner: Context, carry: tuple) -> tuple:
                weights = take_layer(params[s], cut, i)
                own = jax.eval_shape(partial(residuals, s, inner), weights, carry[0])[0]
                x, *between = _at(kept[s], i, own)
                x = entered(x, given, carry[0])
                grads, d_x = pull_back(sublayers[s].stages, weights, (x, *between), carry[0], inner)
                return d_x, put_layer(carry[1], cut, grads, i)

            g, grads = view.enter_back(carry[0], i), list(carry[1])
            for s in reversed(each):
                g, grads[s] = chosen(s, i, genes, indices[s][i], branch, (g, grads[s]))
            return view.leave_back(carry[0], g, i), tuple(grads)

        d_x, grads = jax.lax.fori_loop(0, count, layer, (cotangent, tuple(map(_zeros, params))))
        return None, None, grads, d_x

    network = jax.custom_vjp(primal)
    network.defvjp(forward, backward)
    return network(tuple(indices), tuple(genes), tuple(params), x)


def in_place(index: Int[Array, ""], branches: Sequence[Callable[[Tree], Tree]], carry: Tree) -> Tree:
    """Computes `branches[index](carry)`, or returns the carry if `index` is -1.

    Each branch is a loop that runs once or not at all: XLA lets a loop write into the buffers that it carries, where it
    copies those of a conditional whole.
    """
    for number, branch in enumerate(branches):
        index, carry = jax.lax.while_loop(
            lambda state, number=number: state[0] == number,
            lambda state, branch=branch: (jnp.int32(-1), branch(state[1])),
            (index, carry),
        )
    return carry


def _forward_only(
    branches: Branches, index: jax.Array, params: Tree, x: Tree, context: Context, skippable: bool
) -> Tree:
    def variant(number: int) -> Callable:
        def branch(params: Tree, x: Tree, genes: Tree, statistics: Tree) -> tuple[Tree, dict]:
            given = None
            if statistics is not None:
                cut = branches.statistics[number]
                given = take(chosen(at(statistics, branches.path) if cut else {}, cut), cut)
            collected = None if context.collected is None else {}
            inner = replace(context, genes=genes, statistics=given, collected=collected)
            inner = branches.context(inner, number)
            y = run(branches.stages, take(params, branches.cuts[number]), x, inner)
            return y, collected or {}

        return branch

    operands = (params, x, context.genes, context.statistics)
    numbers = range(len(branches.cuts))
    *smaller, last = map(variant, numbers)
    variants = [*smaller, jax.jit(last, inline=True)]  # compiled, as it is then traced once, its shapes included
    full = jax.eval_shape(variants[-1], *operands)
    skip = lambda params, x, genes, statistics: (x, _zeros(full[1]))  # noqa: E731
    cases = [lambda *operands, branch=branch: _pad(branch(*operands), full) for branch in variants]
    y, collected = _select(index, skip if skippable else None, cases, *operands)
    if context.collected is not None:
        for name, moments in collected.items():
            put(context.collected, "/".join(filter(None, (branches.path, name))), moments)
    return y


def _select(index: jax.Array, skip: Callable | None, branches: Sequence[Callable], *operands: Tree) -> Tree:
    """`branches[index]` of the operands, or `skip` where `index` is -1."""
    if skip is None:
        return branches[0](*operands) if len(branches) == 1 else jax.lax.switch(index, branches, *operands)
    return jax.lax.switch(index + 1, [skip, *branches], *operands)


def _differentiable(branches: Branches, skippable: bool, context: Context) -> Callable:
    stages, numbers = branches.stages, range(len(branches.cuts))

    # Compiled, as it is then traced once for all places that need it or its shapes.
    @partial(jax.jit, static_argnums=0, inline=True)
    def values_at(number: int, genes: Tree, params: Tree, x: Tree) -> tuple:
        inner = branches.context(replace(context, genes=genes), number)
        return values_of(stages, take(params, branches.cuts[number]), x, inner)[1:]

    @jax.custom_vjp
    def sublayer(index: jax.Array, genes: Tree, params: Tree, x: Tree) -> Tree:
        skip = (lambda genes, params, x: x) if skippable else None
        cases = [lambda *operands, number=number: values_at(number, *operands)[-1] for number in numbers]
        return _select(index, skip, cases, genes, params, x)

    def forward(index: jax.Array, genes: Tree, params: Tree, x: Tree) -> tuple[Tree, tuple]:
        full = jax.eval_shape(lambda *o: values_at(numbers[-1], *o)[:-1], genes, params, x)

        def variant(number: int) -> Callable:
            def case(*operands: Tree) -> tuple[Tree, Tree]:
                *residuals, y = values_at(number, *operands)
                return y, _pad(tuple(residuals), full)

            return case

        skip = (lambda genes, params, x: (x, _zeros(full))) if skippable else None
        y, residuals = _select(index, skip, list(map(variant, numbers)), genes, params, x)
        return y, (index, genes, params, x, residuals)

    def backward(saved: tuple, cotangent: Tree) -> tuple:
        index, genes, params, x, residuals = saved

        def variant(number: int) -> Callable:
            def case(genes: Tree, params: Tree, x: Tree, residuals: Tree, cotangent: Tree) -> tuple[Tree, Tree]:
                own = jax.eval_shape(lambda *o: values_at(number, *o)[:-1], genes, params, x)
                cut, values = branches.cuts[number], (x, *_crop(residuals, own))
                inner = branches.context(replace(context, genes=genes), number)
                grads, d_x = pull_back(stages, take(params, cut), values, cotangent, inner)
                return spread(grads, cut, params), d_x

            return case

        skip = (lambda genes, params, x, residuals, cotangent: (_zeros(params), cotangent)) if skippable else None
        grads, dx = _select(index, skip, list(map(variant, numbers)), genes, params, x, residuals, cotangent)
        return None, None, grads, dx

    sublayer.defvjp(forward, backward)
    return sublayer


def _zeros(like: Tree) -> Tree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)


def _pad(tree: Tree, like: Tree) -> Tree:
    def pad(leaf: jax.Array, full: jax.ShapeDtypeStruct) -> jax.Array:
        widths = [(0, f - n) for n, f in zip(leaf.shape, full.shape, strict=True)]
        return jnp.pad(leaf, widths) if any(w for _, w in widths) else leaf

    return jax.tree.map(pad, tree, like)


def _crop(tree: Tree, like: Tree) -> Tree:
    return jax.tree.map(lambda leaf, own: leaf[tuple(slice(n) for n in own.shape)], tree, like)


def _at(stacks: Tree, i: jax.Array, like: Tree) -> Tree:
    """What lies at `i` of the leading axis; as much of it as `like` has the shape of."""

    def read(leaf: jax.Array, own: Any) -> jax.Array:
        return jax.lax.dynamic_slice(leaf, (i, *[0] * own.ndim), (1, *own.shape))[0]

    return jax.tree.map(read, stacks, like)


def _put(stacks: Tree, values: Tree, i: jax.Array) -> Tree:
    """The stacks with the values at `i` of the leading axis; where a value is smaller, the rest stays."""
    return jax.tree.map(
        lambda leaf, own: jax.lax.dynamic_update_slice(leaf, own[None], (i, *[0] * own.ndim)), stacks, values
    )
