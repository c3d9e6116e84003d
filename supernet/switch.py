"""The engine's core: one sublayer as a switch over its statically sliced variants, paying only for the one taken.

A sublayer is a chain of stages. Differentiating a `lax.switch` automatically would write the residuals of every
branch, zeros for those not taken. Here the outputs between stages are the only residuals: one buffer each, as large as
the largest variant's, shared by all branches; whatever lies inside a stage is recomputed in the backward branch.

`switched` is one sublayer, `layered` a network of equal layers, whose branches write residuals, at their own size, and
gradients where they belong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from supernet.stages import COUNTED

Tree = Any
Size = Any


@dataclass
class Context:
    """What a stage sees besides weights and activations.

    Attributes:
        genes: Traced integers that select inside a stage (a kernel size) without selecting its shapes.
        statistics: Batch statistics to normalise with (inference); None normalises with the batch's own.
        collected: When a dict, normalisations leave the batch's statistics here by name (calibration).
    """

    genes: Tree = None
    statistics: Tree = None
    collected: dict[str, Tree] | None = field(default=None)


@dataclass(frozen=True)
class Stage:
    """One step of a sublayer, for a size that is known when it is traced.

    Attributes:
        forward: `(params, inputs, size, context) -> output`; `inputs` are the sublayer's input and the outputs of all
            stages before this one.
        backward: `(params, inputs, output, cotangent, size, context) -> (params cotangent, inputs cotangents)` where
            a gradient written by hand beats recomputing the stage; a cotangent that is zero may be None. The output of
            the last stage is not kept, and is None. None takes the automatic gradient.
    """

    forward: Callable[[Tree, tuple, Size, Context], Tree]
    backward: Callable[[Tree, tuple, Tree, Tree, Size, Context], tuple[Tree, tuple]] | None = None


@dataclass(frozen=True)
class Sublayer:
    """A sublayer that each layer of a network has, with weights of its own.

    Attributes:
        stages: Chain of stages whose last output has the shape of the input, whatever the size.
        sizes: Static sizes, smallest first; each becomes a branch.
    """

    stages: Sequence[Stage]
    sizes: Sequence[Size]


def run(stages: Sequence[Stage], params: Tree, x: Tree, size: Size, context: Context) -> Tree:
    """The sublayer at one size, with JAX's own differentiation."""
    *kept, y = values_of(stages, params, x, size, context)
    if (counted := COUNTED.get()) is not None:
        counted += [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)]
    return y


def values_of(stages: Sequence[Stage], params: Tree, x: Tree, size: Size, context: Context) -> tuple:
    """The input and the outputs of all stages."""
    values = (x,)
    for stage in stages:
        values += (stage.forward(params, values, size, context),)
    return values


def merged(stages: Sequence[Stage]) -> tuple[Stage]:
    """The chain as one stage: nothing but its input is kept for the backward pass, and all of it is computed again."""

    def forward(params: Tree, inputs: tuple, size: Size, context: Context) -> Tree:
        return values_of(stages, params, inputs[0], size, context)[-1]

    def backward(
        params: Tree, inputs: tuple, output: Tree, cotangent: Tree, size: Size, context: Context
    ) -> tuple[Tree, tuple]:
        *values, _ = values_of(stages, params, inputs[0], size, context)
        grads, d_x = _pull_back(stages, params, tuple(values), cotangent, size, context)
        return grads, (d_x,)

    return (Stage(forward, backward),)


def switched(
    stages: Sequence[Stage],
    sizes: Sequence[Size],
    index: jax.Array,
    params: Tree,
    x: Tree,
    context: Context,
    skippable: bool = True,
) -> Tree:
    """The sublayer at `sizes[index]`, or its input unchanged where `index` is -1.

    Args:
        stages: Chain of stages whose last output has one shape, whatever the size; that of `x` if skippable.
        sizes: Static sizes, smallest first; each becomes a branch.
        index: int32 scalar.
        params: Full-size weights; the stages slice them.
        x: Input.
        context: Genes and statistics. Collected statistics come back padded to the largest size.
        skippable: Whether `index` may be -1.
    """
    if context.collected is not None or context.statistics is not None:
        return _forward_only(stages, sizes, index, params, x, context, skippable)
    return _differentiable(tuple(stages), tuple(sizes), skippable)(index, context.genes, params, x)


def layered(
    sublayers: Sequence[Sublayer], indices: Sequence[jax.Array], params: Sequence[Tree], x: Tree, parallel: bool = False
) -> Tree:
    """Layers under one loop, each its sublayers in turn at `sizes[index]`, or without the one whose index is -1.

    Their stages see neither genes nor statistics. What is written in place was measured on CPUs; for other devices, by
    the process's default when this is traced, it is a scan of `switched`.

    Args:
        sublayers: What a layer consists of.
        indices: For each sublayer, its index in each layer. int32[l].
        params: For each sublayer, its full-size weights, layers on a leading axis.
        x: Input.
        parallel: The sublayers take a pair, the sum so far and the layer's input, and change nothing of it but the sum,
            to which they add. Otherwise they take and return what has the shape of `x`.
    """
    each, spread = range(len(sublayers)), (lambda x: (x, x)) if parallel else (lambda x: x)
    count = len(indices[0])
    if jax.default_backend() != "cpu":

        def one(x: Tree, inputs: tuple) -> tuple[Tree, None]:
            y = spread(x)
            for sublayer, index, weights in zip(sublayers, *inputs, strict=True):
                y = switched(sublayer.stages, sublayer.sizes, index, weights, y, Context())
            return y[0] if parallel else y, None

        return jax.lax.scan(one, x, (tuple(indices), tuple(params)))[0]

    def chosen(s: int, index: jax.Array, branch: Callable, carry: Tree) -> Tree:
        return in_place(index, [partial(branch, s, size) for size in sublayers[s].sizes], carry)

    def primal(indices: Sequence[jax.Array], params: Sequence[Tree], x: Tree) -> Tree:
        def layer(i: jax.Array, x: Tree) -> Tree:
            def branch(s: int, size: Size, x: Tree) -> Tree:
                return run(sublayers[s].stages, _at(params[s], i), x, size, Context())

            x = spread(x)
            for s in each:
                x = chosen(s, indices[s][i], branch, x)
            return x[0] if parallel else x

        return jax.lax.fori_loop(0, count, layer, x)

    def residuals(s: int, size: Size, weights: Tree, x: Tree) -> tuple[tuple, Tree]:
        x, *between, y = values_of(sublayers[s].stages, weights, x, size, Context())
        return (x[1] if parallel else x, *between), y

    def forward(indices: Sequence[jax.Array], params: Sequence[Tree], x: Tree) -> tuple[Tree, tuple]:
        def layer(i: jax.Array, carry: tuple) -> tuple:
            def branch(s: int, size: Size, carry: tuple) -> tuple:
                x, kept = carry
                values, y = residuals(s, size, _at(params[s], i), x)
                return y, _put(kept, values, i)

            x, kept = spread(carry[0]), list(carry[1])
            for s in each:
                x, kept[s] = chosen(s, indices[s][i], branch, (x, kept[s]))
            return x[0] if parallel else x, tuple(kept)

        def room(s: int) -> Tree:
            full = jax.eval_shape(partial(residuals, s, sublayers[s].sizes[-1]), _at(params[s], 0), spread(x))[0]
            return _zeros(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), full))

        y, kept = jax.lax.fori_loop(0, count, layer, (x, tuple(map(room, each))))
        return y, (indices, params, kept)

    def backward(saved: tuple, cotangent: Tree) -> tuple:
        indices, params, kept = saved

        def layer(done: jax.Array, carry: tuple) -> tuple:
            i = count - 1 - done

            def branch(s: int, size: Size, carry: tuple) -> tuple:
                weights = _at(params[s], i)
                own = jax.eval_shape(partial(residuals, s, size), weights, carry[0])[0]
                x, *between = _at(kept[s], i, own)
                values = (spread(x), *between)
                grads, d_x = _pull_back(sublayers[s].stages, weights, values, carry[0], size, Context())
                return d_x, _put(carry[1], grads, i)

            # Of a pair, the sum's cotangent is that of the layer's output; the other grows to that of its input.
            g, grads = spread(carry[0]), list(carry[1])
            for s in reversed(each):
                g, grads[s] = chosen(s, indices[s][i], branch, (g, grads[s]))
            return g[1] if parallel else g, tuple(grads)

        d_x, grads = jax.lax.fori_loop(0, count, layer, (cotangent, tuple(map(_zeros, params))))
        return None, grads, d_x

    network = jax.custom_vjp(primal)
    network.defvjp(forward, backward)
    return network(tuple(indices), tuple(params), x)


def in_place(index: jax.Array, branches: Sequence[Callable[[Tree], Tree]], carry: Tree) -> Tree:
    """`branches[index](carry)`, or the carry unchanged where `index` is -1.

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
    stages: Sequence[Stage],
    sizes: Sequence[Size],
    index: jax.Array,
    params: Tree,
    x: Tree,
    context: Context,
    skippable: bool,
) -> Tree:
    def variant(size: Size) -> Callable:
        def branch(params: Tree, x: Tree, genes: Tree, statistics: Tree) -> tuple[Tree, dict]:
            inner = Context(genes, statistics, {} if context.collected is not None else None)
            y = run(stages, params, x, size, inner)
            return y, inner.collected or {}

        return branch

    operands = (params, x, context.genes, context.statistics)
    full = jax.eval_shape(variant(sizes[-1]), *operands)
    skip = lambda params, x, genes, statistics: (x, _zeros(full[1]))  # noqa: E731
    branches = [lambda *operands, size=size: _pad(variant(size)(*operands), full) for size in sizes]
    y, collected = _select(index, skip if skippable else None, branches, *operands)
    if context.collected is not None:
        context.collected.update(collected)
    return y


def _select(index: jax.Array, skip: Callable | None, branches: Sequence[Callable], *operands: Tree) -> Tree:
    """`branches[index]` of the operands, or `skip` where `index` is -1."""
    if skip is None:
        return jax.lax.switch(index, branches, *operands)
    return jax.lax.switch(index + 1, [skip, *branches], *operands)


def _differentiable(stages: tuple[Stage, ...], sizes: tuple[Size, ...], skippable: bool) -> Callable:
    # Compiled, as it is then traced once for all places that need it or its shapes.
    @partial(jax.jit, static_argnums=0, inline=True)
    def values_at(size: Size, genes: Tree, params: Tree, x: Tree) -> tuple:
        return values_of(stages, params, x, size, Context(genes))[1:]

    @jax.custom_vjp
    def sublayer(index: jax.Array, genes: Tree, params: Tree, x: Tree) -> Tree:
        skip = (lambda genes, params, x: x) if skippable else None
        branches = [lambda *operands, size=size: values_at(size, *operands)[-1] for size in sizes]
        return _select(index, skip, branches, genes, params, x)

    def forward(index: jax.Array, genes: Tree, params: Tree, x: Tree) -> tuple[Tree, tuple]:
        full = jax.eval_shape(lambda *o: values_at(sizes[-1], *o)[:-1], genes, params, x)

        def variant(size: Size) -> Callable:
            def branch(*operands: Tree) -> tuple[Tree, Tree]:
                *residuals, y = values_at(size, *operands)
                return y, _pad(tuple(residuals), full)

            return branch

        skip = (lambda genes, params, x: (x, _zeros(full))) if skippable else None
        y, residuals = _select(index, skip, list(map(variant, sizes)), genes, params, x)
        return y, (index, genes, params, x, residuals)

    def backward(saved: tuple, cotangent: Tree) -> tuple:
        index, genes, params, x, residuals = saved

        def variant(size: Size) -> Callable:
            def branch(genes: Tree, params: Tree, x: Tree, residuals: Tree, cotangent: Tree) -> tuple[Tree, Tree]:
                own = jax.eval_shape(lambda *o: values_at(size, *o)[:-1], genes, params, x)
                return _pull_back(stages, params, (x, *_crop(residuals, own)), cotangent, size, Context(genes))

            return branch

        skip = (lambda genes, params, x, residuals, cotangent: (_zeros(params), cotangent)) if skippable else None
        grads, dx = _select(index, skip, list(map(variant, sizes)), genes, params, x, residuals, cotangent)
        return None, None, grads, dx

    sublayer.defvjp(forward, backward)
    return sublayer


def _pull_back(
    stages: Sequence[Stage], params: Tree, values: tuple, cotangent: Tree, size: Size, context: Context
) -> tuple[Tree, Tree]:
    """Cotangents of the weights and of `values[0]`; `values` are the input and the outputs of all stages but one."""
    cotangents: list[Tree] = [None] * len(values) + [cotangent]
    grads: Tree = None
    for i in reversed(range(len(stages))):
        stage, inputs, output = stages[i], values[: i + 1], (*values, None)[i + 1]
        if stage.backward is not None:
            d_params, d_inputs = stage.backward(params, inputs, output, cotangents[i + 1], size, context)
        else:
            _, vjp = jax.vjp(lambda p, v, stage=stage: stage.forward(p, v, size, context), params, inputs)
            d_params, d_inputs = vjp(cotangents[i + 1])
        grads = _add(grads, d_params)
        for j, d in enumerate(d_inputs):
            cotangents[j] = _add(cotangents[j], d)
    return grads, cotangents[0]


def _add(a: Tree, b: Tree) -> Tree:
    if a is None or b is None:
        return b if a is None else a
    return jax.tree.map(jnp.add, a, b)


def _zeros(like: Tree) -> Tree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)


def _pad(tree: Tree, like: Tree) -> Tree:
    def pad(leaf: jax.Array, full: jax.ShapeDtypeStruct) -> jax.Array:
        widths = [(0, f - n) for n, f in zip(leaf.shape, full.shape, strict=True)]
        return jnp.pad(leaf, widths) if any(w for _, w in widths) else leaf

    return jax.tree.map(pad, tree, like)


def _crop(tree: Tree, like: Tree) -> Tree:
    return jax.tree.map(lambda leaf, own: leaf[tuple(slice(n) for n in own.shape)], tree, like)


def _at(stacks: Tree, i: jax.Array | int, like: Tree = None) -> Tree:
    """What lies at `i` of the leading axis; as much of it as `like` has the shape of."""

    def read(leaf: jax.Array, own: Any) -> jax.Array:
        return jax.lax.dynamic_slice(leaf, (i, *[0] * own.ndim), (1, *own.shape))[0]

    whole = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stacks)
    return jax.tree.map(read, stacks, whole if like is None else like)


def _put(stacks: Tree, values: Tree, i: jax.Array) -> Tree:
    """The stacks with the values at `i` of the leading axis; where a value is smaller, the rest stays."""
    return jax.tree.map(
        lambda leaf, own: jax.lax.dynamic_update_slice(leaf, own[None], (i, *[0] * own.ndim)), stacks, values
    )
