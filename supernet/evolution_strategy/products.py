"""Products with a tracked weight: the product with the weight, plus two thin ones with its factors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num, Shaped

from supernet.evolution_strategy.tracked import Axis, NoLowRankForm, Tracked, varies

Parameters = Mapping[str, Any]
"""Parameters of an operation, by the names that JAX gives them."""

_UNROLLED = 8
"""Ranks up to which the outer product is a sum of as many terms, which XLA puts into one loop with what follows."""


class Use(NamedTuple):
    """Axes of a weight that a product sums over, and those that it keeps.

    Attributes:
        name: Name of the primitive.
        reads: Axes that are summed over.
        writes: Axes that stay.
    """

    name: str
    reads: frozenset[Axis]
    writes: frozenset[Axis]


def use_of(name: str, inputs: Sequence[Any], params: Parameters) -> Use | None:
    """Returns how an equation uses its tracked input; None where it is no product that has factors."""
    tracked = [i for i, value in enumerate(inputs) if isinstance(value, Tracked)]
    if len(tracked) != 1:
        return None
    (which,) = tracked
    t = inputs[which]

    def of(dimensions: Sequence[int]) -> frozenset[Axis]:
        return frozenset().union(*(t.axes[i] for i in dimensions))

    every = range(t.base.ndim)
    match name:
        case "dot_general":
            contract, batch = (both[which] for both in params["dimension_numbers"])
            return Use(name, of(contract), of([i for i in every if i not in (*contract, *batch)]))
        case "conv_general_dilated" if which == 1 and params["feature_group_count"] == params["batch_group_count"] == 1:
            out = params["dimension_numbers"].rhs_spec[0]
            return Use(name, of([i for i in every if i != out]), of([out]))
        case "gather" if which == 0 and _is_lookup(t, params):
            indexed = params["dimension_numbers"].start_index_map
            return Use(name, of([i for i in every if i not in indexed]), of(indexed))
    return None


def multiplied(
    name: str, inputs: Sequence[Any], params: Parameters, bind: Callable[..., Shaped[Array, "..."]]
) -> Num[Array, "..."]:
    """Computes a product with the perturbed weight.

    Args:
        name: Name of the primitive.
        inputs: Inputs of the equation; one is tracked.
        params: Parameters of the equation.
        bind: The primitive with these parameters.
    """
    bare = [value.base if isinstance(value, Tracked) else value for value in inputs]
    base = bind(*bare)
    which = next(i for i, value in enumerate(inputs) if isinstance(value, Tracked))
    if inputs[which].left is None:
        return base
    rule = {"dot_general": _dot, "conv_general_dilated": _convolved, "gather": _looked_up}[name]
    return base + rule(which, inputs, params).astype(base.dtype)


def _sides(t: Tracked, reads: Sequence[int], writes: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """The factor of what is summed over, and that of what stays."""
    assert t.left is not None
    assert t.right is not None
    for inner, outer in ((t.left, t.right), (t.right, t.left)):
        if not any(varies(inner, i) for i in writes) and not any(varies(outer, i) for i in reads):
            return inner, outer
    raise NoLowRankForm("sums over axes of both sides")


def _outer(thin: jax.Array, factor: jax.Array) -> jax.Array:
    """Sum over the last axis of thin [..., 1, r] times a factor that it broadcasts with."""
    rank = thin.shape[-1]
    if rank > _UNROLLED:
        return jnp.sum(thin * factor, axis=-1)
    total = thin[..., 0] * factor[..., 0]
    for k in range(1, rank):
        total = total + thin[..., k] * factor[..., k]
    return total


def _dot(which: int, inputs: Sequence[Any], params: Parameters) -> jax.Array:
    contract, batch = params["dimension_numbers"]
    t, x = inputs[which], inputs[1 - which]
    own, its = (contract[which], batch[which]), (contract[1 - which], batch[1 - which])
    free = [i for i in range(t.base.ndim) if i not in (*own[0], *own[1])]
    inner, outer = _sides(t, own[0], free)
    shape = t.base.shape
    inner = jnp.broadcast_to(
        inner, [n if i in (*own[0], *own[1]) else 1 for i, n in enumerate(shape)] + [inner.shape[-1]]
    )
    inner = inner.squeeze(tuple(free))
    kept = [i for i in range(t.base.ndim) if i not in free]
    dims = (its[0], tuple(map(kept.index, own[0]))), (its[1], tuple(map(kept.index, own[1])))
    thin = jax.lax.dot_general(x, inner.astype(x.dtype), dims, precision=params["precision"])  # [batch, x's free, r]
    batches, others = len(own[1]), thin.ndim - len(own[1]) - 1
    outer = outer.squeeze(tuple(own[0])) if own[0] else outer
    left = [i for i in range(t.base.ndim) if i not in own[0]]
    outer = outer.transpose(*(left.index(i) for i in (*own[1], *free)), outer.ndim - 1)
    rank, stays = outer.shape[-1], outer.shape[batches:-1]
    if which == 1:
        thin = thin.reshape(*thin.shape[:-1], *[1] * len(free), rank)
        outer = outer.reshape(*outer.shape[:batches], *[1] * others, *stays, rank)
    else:
        thin = thin.reshape(*thin.shape[:batches], *[1] * len(free), *thin.shape[batches:-1], rank)
        outer = outer.reshape(*outer.shape[:batches], *stays, *[1] * others, rank)
    return _outer(thin, outer)


def _convolved(which: int, inputs: Sequence[Any], params: Parameters) -> jax.Array:
    x, t = inputs
    numbers = params["dimension_numbers"]
    out, feature = numbers.rhs_spec[0], numbers.out_spec[1]
    reads = [i for i in range(t.base.ndim) if i != out]
    inner, outer = _sides(t, reads, [out])
    shape = [1 if i == out else n for i, n in enumerate(t.base.shape)]
    kernel = jnp.moveaxis(jnp.broadcast_to(inner, (*shape, inner.shape[-1])).squeeze(out), -1, out)
    thin = jax.lax.conv_general_dilated_p.bind(x, kernel, **params)
    thin = jnp.expand_dims(jnp.moveaxis(thin, feature, -1), -2)
    added = _outer(thin, outer.reshape(-1, outer.shape[-1]))
    return jnp.moveaxis(added, -1, feature)


def _is_lookup(t: Tracked, params: Parameters) -> bool:
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    indexed = numbers.start_index_map
    whole = all(sizes[i] == (1 if i in indexed else n) for i, n in enumerate(t.base.shape))
    plain = not numbers.operand_batching_dims and tuple(sorted(indexed)) == tuple(numbers.collapsed_slice_dims)
    return whole and plain


def _looked_up(which: int, inputs: Sequence[Any], params: Parameters) -> jax.Array:
    t, indices = inputs
    numbers = params["dimension_numbers"]
    indexed = numbers.start_index_map
    others = [i for i in range(t.base.ndim) if i not in indexed]
    found, constant = _sides(t, others, indexed)[::-1]
    batch = indices.ndim - 1
    places = (*numbers.offset_dims, batch + len(others))  # the ranks come last
    sizes = [1 if i in indexed else n for i, n in enumerate(found.shape)]
    looked = jax.lax.gather(
        jnp.broadcast_to(found, [t.base.shape[i] if i in indexed else n for i, n in enumerate(found.shape)]), indices,
        numbers._replace(offset_dims=places), slice_sizes=tuple(sizes), mode=params["mode"],
        fill_value=params["fill_value"],
    )  # fmt: skip
    shape = [1] * looked.ndim
    for place, i in zip(numbers.offset_dims, others, strict=True):
        shape[place] = constant.shape[i]
    return _outer(looked, constant.reshape(*shape[:-1], constant.shape[-1]))
