"""Tracked: a weight with its perturbation as two thin factors, through everything that only moves entries about.

The perturbation is the sum over the last axis of `left * right`, each of which has the axes of the weight, of length 1
where it does not vary. So slices, transposes, reshapes and concatenations of the weight are those of the factors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

Axis = tuple[int, int]
"""A leaf of the weights, by its number, and one of its axes."""


class NoLowRankForm(Exception):
    """An operation on a perturbed matrix has a result without factors."""


@dataclass(frozen=True)
class Tracked:
    """A weight, or a part of weights.

    Attributes:
        base: Without its perturbation.
        left: Factor [..., r]; None while it is only asked how weights are used.
        right: The other factor.
        axes: For each axis of the base, the axes of leaves that it runs over.
    """

    base: Num[Array, "..."]
    left: Num[Array, "..."] | None
    right: Num[Array, "..."] | None
    axes: tuple[frozenset[Axis], ...]

    def moved(
        self, move: Callable[[Num[Array, "..."]], Num[Array, "..."]], axes: Sequence[frozenset[Axis]]
    ) -> "Tracked":
        """Applies an operation to the base and to both factors, which have one more axis."""
        left, right = (None if factor is None else move(factor) for factor in (self.left, self.right))
        return Tracked(move(self.base), left, right, tuple(axes))

    @property
    def leaves(self) -> frozenset[int]:
        """Numbers of the leaves that it is made of."""
        return frozenset(leaf for axes in self.axes for leaf, _ in axes)


jax.tree_util.register_dataclass(Tracked, data_fields=["base", "left", "right"], meta_fields=["axes"])


def varies(factor: Num[Array, "..."], axis: int) -> bool:
    """Returns whether a factor has more than one entry along an axis."""
    return factor.shape[axis] != 1


# ---------------------------------------------------------------- operations that move entries, by the primitive's name


def _transpose(t: Tracked, *, permutation: Sequence[int]) -> Tracked:
    rest = len(permutation)
    move = lambda a: a.transpose(*permutation, *range(rest, a.ndim))  # noqa: E731
    return t.moved(move, [t.axes[i] for i in permutation])


def _slice(
    t: Tracked, *, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Sequence[int] | None
) -> Tracked:
    steps = strides or (1,) * len(start_indices)

    def move(a: jax.Array) -> jax.Array:
        places = [
            slice(None) if n == 1 and full != 1 else slice(*place)
            for n, full, place in zip(
                a.shape, t.base.shape, zip(start_indices, limit_indices, steps, strict=True), strict=False
            )
        ]
        return a[tuple(places)]

    return t.moved(move, t.axes)


def _dynamic_slice(t: Tracked, *starts: jax.Array, slice_sizes: Sequence[int]) -> Tracked:
    def move(a: jax.Array) -> jax.Array:
        fixed = [n == 1 and full != 1 for n, full in zip(a.shape, t.base.shape, strict=False)]
        zero, rest = jnp.zeros_like(starts[0]), a.shape[len(fixed) :]
        at = [zero if still else start for still, start in zip(fixed, starts, strict=True)]
        sizes = [1 if still else size for still, size in zip(fixed, slice_sizes, strict=True)]
        return jax.lax.dynamic_slice(a, (*at, *[zero] * len(rest)), (*sizes, *rest))

    return t.moved(move, t.axes)


def _squeeze(t: Tracked, *, dimensions: Sequence[int]) -> Tracked:
    gone = {i % t.base.ndim for i in dimensions}
    return t.moved(lambda a: a.squeeze(tuple(gone)), [axes for i, axes in enumerate(t.axes) if i not in gone])


def _split(t: Tracked, *, sizes: Sequence[int], axis: int) -> list[Tracked]:
    parts, start = [], [0] * t.base.ndim
    for size in sizes:
        limit = list(t.base.shape)
        limit[axis] = start[axis] + size
        parts.append(_slice(t, start_indices=tuple(start), limit_indices=limit, strides=None))
        start[axis] = limit[axis]
    return parts


def _broadcast(t: Tracked, *, shape: Sequence[int], broadcast_dimensions: Sequence[int]) -> Tracked:
    def move(a: jax.Array) -> jax.Array:
        if a is t.base:
            return jax.lax.broadcast_in_dim(a, shape, broadcast_dimensions)
        target = [1] * len(shape)
        for i, j in enumerate(broadcast_dimensions):
            target[j] = a.shape[i]
        rest = a.shape[t.base.ndim :]
        return a.reshape(*target, *rest)

    axes = [frozenset()] * len(shape)
    for i, j in enumerate(broadcast_dimensions):
        axes[j] = t.axes[i]
    return t.moved(move, axes)


def _convert(t: Tracked, *, new_dtype: Any) -> Tracked:
    return t.moved(lambda a: a.astype(new_dtype), t.axes)


def _reverse(t: Tracked, *, dimensions: Sequence[int]) -> Tracked:
    return t.moved(lambda a: jax.lax.rev(a, dimensions), t.axes)


def _reshape(t: Tracked, *, new_sizes: Sequence[int], dimensions: None = None) -> Tracked:
    groups = _groups(t.base.shape, tuple(new_sizes))

    def move(a: jax.Array) -> jax.Array:
        if a is t.base:
            return a.reshape(new_sizes)
        sizes: list[int] = []
        for old, new in groups:
            varying = [varies(a, i) for i in old if t.base.shape[i] != 1]
            if any(varying) and not all(varying):
                raise NoLowRankForm("joins axes of both sides of a product")
            sizes += [new_sizes[j] if any(varying) else 1 for j in new]
        return a.reshape(*sizes, *a.shape[t.base.ndim :])

    axes: list[frozenset[Axis]] = []
    for old, new in groups:
        together = frozenset().union(*(t.axes[i] for i in old))
        axes += [together if new_sizes[j] != 1 or len(new) == 1 else frozenset() for j in new]
    return t.moved(move, axes)


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Consecutive axes of two shapes with equally many entries."""
    found, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        left, right = [i] if i < len(old) else [], [j] if j < len(new) else []
        i, j = i + len(left), j + len(right)
        while (m := math.prod(old[k] for k in left)) != (n := math.prod(new[k] for k in right)):
            if m < n:
                left, i = [*left, i], i + 1
            else:
                right, j = [*right, j], j + 1
        found.append((left, right))
    return found


MOVES: dict[str, Callable[..., Any]] = {
    "transpose": _transpose,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "squeeze": _squeeze,
    "split": _split,
    "reshape": _reshape,
    "broadcast_in_dim": _broadcast,
    "convert_element_type": _convert,
    "rev": _reverse,
}
"""Operations on one tracked value, with the parameters that they take of those of the primitive."""

PARAMETERS = {
    "transpose": ("permutation",),
    "slice": ("start_indices", "limit_indices", "strides"),
    "dynamic_slice": ("slice_sizes",),
    "squeeze": ("dimensions",),
    "split": ("sizes", "axis"),
    "reshape": ("new_sizes", "dimensions"),
    "broadcast_in_dim": ("shape", "broadcast_dimensions"),
    "convert_element_type": ("new_dtype",),
    "rev": ("dimensions",),
}


def scaled(t: Tracked, factor: Num[Array, "..."]) -> Tracked:
    """Returns the weight times a single number."""
    right = None if t.right is None else t.right * factor.reshape(())
    return replace(t, base=t.base * factor.reshape(()), right=right)


def concatenated(parts: Sequence[Any], axis: int) -> Tracked:
    """Weights one after the other, some of which may have no perturbation; ranks add up."""
    base = jnp.concatenate([part.base if isinstance(part, Tracked) else part for part in parts], axis)
    tracked = [part for part in parts if isinstance(part, Tracked)]
    axes = [frozenset().union(*(part.axes[i] for part in tracked)) for i in range(base.ndim)]
    if any(part.left is None for part in tracked):
        return Tracked(base, None, None, tuple(axes))
    sides: dict[str, list[jax.Array]] = {"left": [], "right": []}
    at = 0
    for part in parts:
        length = (part.base if isinstance(part, Tracked) else part).shape[axis]
        if isinstance(part, Tracked):
            placed = False
            for name, into in sides.items():
                factor = getattr(part, name)
                if varies(factor, axis) or (length == 1 and not placed and name == "right"):
                    edges = [(0, 0)] * factor.ndim
                    edges[axis] = (at, base.shape[axis] - at - length)
                    factor, placed = jnp.pad(factor, edges), True
                into.append(factor)
            if not placed:
                raise NoLowRankForm("joins weights that are constant along the axis")
        at += length
    left, right = (_ranked(factors, base.ndim) for factors in sides.values())
    return Tracked(base, left, right, tuple(axes))


def _ranked(factors: Sequence[jax.Array], rank_axis: int) -> jax.Array:
    """Factors of several weights after each other along the axis of ranks."""
    shape = [max(lengths) for lengths in zip(*(factor.shape[:rank_axis] for factor in factors), strict=True)]
    whole = [jnp.broadcast_to(factor, (*shape, factor.shape[rank_axis])) for factor in factors]
    return jnp.concatenate(whole, rank_axis)


def rows(t: Tracked) -> Tracked:
    """Returns the same weight with factors whose first axis has the weight's length, for a loop over it."""
    spread = partial(_along, length=t.base.shape[0])
    return replace(t, left=spread(t.left), right=spread(t.right))


def _along(factor: jax.Array | None, length: int) -> jax.Array | None:
    return None if factor is None else jnp.broadcast_to(factor, (length, *factor.shape[1:]))
