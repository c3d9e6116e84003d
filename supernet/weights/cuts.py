"""Trees of weights: paths in them, and cuts, the part of each weight that a size uses.

A cut is a tree of weights with a tuple of slices in place of each leaf. Paths are joined by slashes.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

Tree = Any
Cut = Any


def at(tree: Tree, path: str) -> Any:
    """Returns what lies at a path; the tree itself at the empty one."""
    for name in path.split("/") if path else ():
        tree = tree[name]
    return tree


def put(tree: Tree, path: str, leaf: Any) -> None:
    """Puts something at a path, in place."""
    *above, last = path.split("/")
    for name in above:
        tree = tree.setdefault(name, {})
    tree[last] = leaf


def chosen(tree: Tree, like: Tree) -> Tree:
    """Returns the part of a tree of dicts at which another one has leaves."""
    return {name: chosen(tree[name], below) for name, below in like.items()} if isinstance(like, dict) else tree


def take(tree: Tree, cut: Cut) -> Tree:
    """Takes the parts of a cut from JAX or NumPy arrays."""

    def part(leaf: Any, at: tuple[slice, ...]) -> Any:
        if _sizes(at) == leaf.shape:
            return leaf
        if isinstance(leaf, jax.Array):
            return jax.lax.slice(leaf, _starts(at), [axis.stop for axis in at])
        return leaf[at]

    return jax.tree.map(part, tree, cut)


def around(cuts: Sequence[Cut]) -> Cut:
    """Returns the smallest cut that contains several cuts."""

    def hold(*every: tuple[slice, ...]) -> tuple[slice, ...]:
        return tuple(slice(min(a.start for a in axis), max(a.stop for a in axis)) for axis in zip(*every, strict=True))

    return jax.tree.map(hold, *cuts, is_leaf=_is_place)


def within(cut: Cut, outer: Cut) -> Cut:
    """Returns a cut relative to another cut that contains it."""

    def shift(at: tuple[slice, ...], around: tuple[slice, ...]) -> tuple[slice, ...]:
        return tuple(slice(a.start - o.start, a.stop - o.start) for a, o in zip(at, around, strict=True))

    return jax.tree.map(shift, cut, outer, is_leaf=_is_place)


def take_stacks(stacks: Tree, cut: Cut) -> Tree:
    """Takes the parts of a cut from all layers on the leading axis."""
    return jax.tree.map(lambda leaf, at: leaf[(slice(None), *at)], stacks, cut)


def spread(parts: Tree, cut: Cut, like: Tree) -> Tree:
    """Inverts `take`: puts the parts into zeros in the shape of `like`."""

    def place(part: jax.Array, at: tuple[slice, ...], full: Any) -> jax.Array:
        around = [(axis.start, size - axis.stop) for axis, size in zip(at, full.shape, strict=True)]
        return jnp.pad(part, around) if any(map(any, around)) else part

    return jax.tree.map(place, parts, cut, like)


def take_layer(stacks: Tree, cut: Cut, i: Int[Array, ""] | int) -> Tree:
    """Takes the parts of a cut from layer `i` on the leading axis."""

    def part(leaf: jax.Array, at: tuple[slice, ...]) -> jax.Array:
        return jax.lax.dynamic_slice(leaf, (i, *_starts(at)), (1, *_sizes(at)))[0]

    return jax.tree.map(part, stacks, cut)


def put_layer(stacks: Tree, cut: Cut, parts: Tree, i: Int[Array, ""]) -> Tree:
    """Puts the parts of layer `i` into the stacks; all else stays."""

    def place(leaf: jax.Array, at: tuple[slice, ...], part: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(leaf, part[None], (i, *_starts(at)))

    return jax.tree.map(place, stacks, cut, parts)


def _is_place(cut: Cut) -> bool:
    return isinstance(cut, tuple)


def _starts(at: tuple[slice, ...]) -> list[int]:
    return [axis.start for axis in at]


def _sizes(at: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(axis.stop - axis.start for axis in at)
