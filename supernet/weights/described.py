"""Weights of a described network: where each lies in the supernet's tree and in the plain module, and at which size.

Outside the layers the tree is the plain module's; the weights of a stack lie under its path, layers on a leading axis.
Axes that the plain module merges are split as described. Batch statistics are laid out in the same way.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, Float, Int

from search_spaces import Architecture, SearchSpace, UserError
from search_spaces.choice import Value
from search_spaces.edges import Edge
from search_spaces.network import Stack, Sublayer
from search_spaces.parts import Shape, flat, lengths
from supernet.weights.cuts import Cut, Tree, at, put, take

Relaxed = Float[Array, "g v"]
Kind = Literal["weights", "statistics"]
Path = tuple[str | int, ...]


class Place(NamedTuple):
    """A sublayer of one architecture: where it lies in the plain module and in the supernet, and its values."""

    module: Path
    stack: Stack | None
    layer: int
    sublayer: Sublayer
    values: Mapping[str, Value]

    def path(self, path: str) -> Path:
        """Returns the path in the plain module for a path in the sublayer; Flax numbers the members of a list."""
        return (*self.module, *(int(name) if name.isdigit() else name for name in path.split("/")))


class Weights:
    """The layout of a space's weights.

    Args:
        space: A space with a description.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space, self._network = space, space.network
        self.values: dict[str, tuple[Value, ...]] = {choice.name: choice.values for choice in space.choices}
        self.largest: dict[str, Value] = {name: values[-1] for name, values in self.values.items()}
        self.sublayers: list[tuple[Stack | None, Sublayer]] = [(None, self._network.outside_layers)]
        self.sublayers += [(stack, sublayer) for stack in self._network.stacks for sublayer in stack.sublayers]

    # ---------------------------------------------------------------- parts of the tree

    def part(self, tree: Tree, stack: Stack | None) -> Tree:
        """Returns the weights or statistics of a stack; the whole tree for those outside of stacks."""
        return tree if stack is None else at(tree, stack.path)

    def layer(self, tree: Tree, stack: Stack, index: int) -> Tree:
        """Returns the weights or statistics of one layer."""
        if tree is None:
            return None
        own = at(tree, stack.path)
        return own if stack.layers is None else jax.tree.map(lambda leaf: leaf[index], own)

    def path(self, stack: Stack | None, sublayer: Sublayer, path: str) -> str:
        """Returns the path in the tree for a path in a sublayer."""
        return "/".join(filter(None, (stack and stack.path, sublayer.path, path)))

    def own(self, tree: Tree, sublayer: Sublayer, kind: Kind = "weights") -> Tree:
        """Returns the part of a tree that belongs to a sublayer, of one layer or of a stack, as its stages see it."""
        tree_of: Tree = {}
        for path in getattr(sublayer, kind):
            put(tree_of, path, at(tree, "/".join(filter(None, (sublayer.path, path)))))
        return tree_of

    def update(self, tree: Tree, stack: Stack | None, sublayer: Sublayer, own: Tree) -> None:
        """Replaces what belongs to a sublayer, in place."""
        for path, leaf in traverse_util.flatten_dict(own, sep="/").items():
            put(tree, self.path(stack, sublayer, path), leaf)

    def cut(self, sublayer: Sublayer, values: Mapping[str, Value], kind: Kind = "weights") -> Cut:
        """Returns the slices of a sublayer's weights or statistics at values of its choices."""
        sizes, largest = sublayer.sizes(values), sublayer.sizes(self.largest)
        cuts: Tree = {}
        for path, shape in getattr(sublayer, kind).items():
            put(cuts, path, sublayer.slices(shape, sizes, largest))
        return cuts

    def taken(self, tree: Tree, sublayer: Sublayer, values: Mapping[str, Value], kind: Kind = "weights") -> Tree:
        """Returns the part of a tree that belongs to a sublayer, cut to values of its choices; None without a tree."""
        return None if tree is None else take(self.own(tree, sublayer, kind), self.cut(sublayer, values, kind))

    def sizes_none(self, name: str) -> bool:
        """Returns whether a choice changes other shapes than those of weights, so that no mask expresses it."""
        shapes = (shape for sublayer in self._network.sublayers for shape in sublayer.weights.values())
        return not any(name in axis.choices for shape in shapes for axis in flat(shape) if not isinstance(axis, int))

    # ---------------------------------------------------------------- the plain module

    def places(self, architecture: Architecture) -> Iterator[Place]:
        """Yields all sublayers of an architecture: those outside of layers first, then those of each layer in turn."""
        space, numbers = self._space, Counter[str]()
        program = [choice.name for choice in space.choices if choice.selects_program]
        known = dict(zip(program, space.program(architecture.genes), strict=True))
        yield Place((), None, 0, self._network.outside_layers, known)
        for stack, index, values in space.active_layers(architecture):
            path = stack.module or stack.path
            place: Path = tuple(path.split("/"))
            if stack.module is not None or stack.layers is not None:
                place = (*place, numbers[path])
                numbers[path] += 1
            for sublayer in (sublayer for sublayer in stack.sublayers if sublayer.on(values)):
                inside = sublayer.path.split("/") if sublayer.path else ()
                yield Place((*place, *inside), stack, index, sublayer, values)

    def taken_at(self, place: Place, tree: Tree, kind: Kind = "weights") -> Tree:
        """Returns the weights or statistics of the supernet that stages see there; None without a tree."""
        own = tree if place.stack is None else self.layer(tree, place.stack, place.layer)
        return self.taken(own, place.sublayer, place.values, kind)

    def given_at(self, place: Place, state: Mapping[Path, Any], kind: Kind = "weights") -> Tree:
        """Returns the weights or statistics of the plain module that stages see there."""
        sizes, tree = place.sublayer.sizes(place.values), {}
        for path, shape in getattr(place.sublayer, kind).items():
            put(tree, path, state[place.path(path)].reshape(lengths(flat(shape), sizes)))
        return tree

    def sizes(self, architecture: Architecture) -> tuple[dict[str, int], list[dict[str, Any]]]:
        """Returns the axis lengths outside of layers, and for each layer its axis lengths and chosen alternatives."""
        (_, *_, sublayer, values), *places = self.places(architecture)
        layers: dict[tuple[Stack | None, int], dict[str, Any]] = {}
        for place in places:
            of_layer, option = layers.setdefault((place.stack, place.layer), {}), place.sublayer.option
            of_layer.update(place.sublayer.sizes(place.values), **({option.of.choice: option.value} if option else {}))
        return sublayer.sizes(values), list(layers.values())

    def init(self, *modules: nnx.Module) -> Tree:
        """Returns the parameters of the plain modules of `SearchSpace.covering`, in the layout of the supernet.

        Raises:
            UserError: The description contradicts a module.
        """
        gathered: dict[str, dict[int, jax.Array]] = {}
        for module, architecture in zip(modules, self._space.covering, strict=True):
            for place, path, leaf in self.leaves(module, architecture):
                where = self.path(place.stack, place.sublayer, path)
                gathered.setdefault(where, {}).setdefault(place.layer, leaf)
        return self._laid_out(gathered, lambda layers: jnp.stack(layers))

    def leaves(self, module: nnx.Module, architecture: Architecture) -> Iterator[tuple[Place, str, Any]]:
        """Yields the parameters of a plain module in the described shapes, each with its place and path.

        Raises:
            UserError: The description contradicts the module.
        """
        given = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
        for place in self.places(architecture):
            for path, shape in place.sublayer.weights.items():
                yield place, path, _described(place, path, shape, given.pop(place.path(path), None))
        for path in given:
            raise UserError(
                f"network: the plain module's weight {'/'.join(map(str, path))} is named by no part. Describe it."
            )

    @cached_property
    def shapes(self) -> Tree:
        """The tree of `init` with shapes and types in place of arrays, from the description alone."""
        gathered: dict[str, dict[int, jax.ShapeDtypeStruct]] = {}
        for place in (place for architecture in self._space.covering for place in self.places(architecture)):
            sizes = place.sublayer.sizes(place.values)
            for inside, part in place.sublayer.parts.items():
                for name, shape in part.weights.items():
                    where = self.path(place.stack, place.sublayer, "/".join(filter(None, (inside, name))))
                    leaf = jax.ShapeDtypeStruct(lengths(flat(shape), sizes), np.dtype(part.init(name).dtype))
                    gathered.setdefault(where, {}).setdefault(place.layer, leaf)
        return self._laid_out(gathered, lambda layers: layers[0].update(shape=(len(layers), *layers[0].shape)))

    def _laid_out(self, gathered: Mapping[str, Mapping[int, Any]], stack: Callable[[list[Any]], Any]) -> Tree:
        """The supernet's tree of each weight's layers; those of a stack with layers become one leaf."""
        tree: Tree = {}
        stacked = tuple(f"{stack.path}/" for stack in self._network.stacks if stack.layers is not None)
        for path, leaves in gathered.items():
            layers = [leaves[layer] for layer in sorted(leaves)]
            put(tree, path, stack(layers) if path.startswith(stacked) else layers[0])
        return tree

    def slice(self, params: Tree, architecture: Architecture, statistics: Tree) -> Tree:
        """Returns weights and statistics of one architecture in the structure of its plain module's state.

        Raises:
            UserError: The network has batch statistics, and none are given.
        """
        if not statistics and any(sublayer.statistics for _, sublayer in self.sublayers):
            raise UserError("statistics: missing. Pass those that `supernet.training.evaluation.calibrate` gives.")
        state: dict[Path, Any] = {}
        kinds: dict[Kind, Tree] = {"weights": params, "statistics": statistics}
        for place in self.places(architecture):
            sizes = place.sublayer.sizes(place.values)
            for kind, whole in kinds.items():
                shapes: dict[str, Shape] = getattr(place.sublayer, kind)
                if shapes:
                    cut = self.taken_at(place, whole, kind)
                    for path, shape in shapes.items():
                        state[place.path(path)] = at(cut, path).reshape(lengths(shape, sizes))
        return traverse_util.unflatten_dict(state)

    # ---------------------------------------------------------------- genes of layers

    def columns(self, stack: Stack, name: str) -> Int[np.ndarray, " p"]:
        """Returns the gene that each position reads for a choice."""
        return np.array([self._space.column(name, stack.group, position) for position in range(stack.slots)])

    def positions(self, stack: Stack) -> Int[np.ndarray, "n l"]:
        """Returns the position of each layer at each value of the depth; -1 for a layer that is off."""
        return stack.positions_of(stack.depths(self.values))

    def genes(self, genes: Int[Array, " g"], stack: Stack, name: str, position: Int[Array, " l"]) -> Int[Array, " l"]:
        """Returns the gene of each layer for a choice, int32[l], by position; arbitrary for a layer that is off."""
        columns = self.columns(stack, name)
        fixed = stack.positions is None and not stack.edges
        return genes[columns[stack.first :]] if fixed else genes[columns][position]

    def layer_positions(self, genes: Int[Array, " g"], stack: Stack) -> Int[Array, " l"]:
        """Returns the position of each layer; -1 for a layer that is off. int32[l]."""
        if stack.edges:
            slots = [(jnp.asarray(edge.slots, jnp.int32), edge.choice) for edge in stack.edges]
            return jnp.stack([of[genes[self._space.column(name)] if name else 0] for of, name in slots])
        depth = genes[self._space.column(stack.depth, stack.group)] if stack.depth in self.values else 0
        return jnp.asarray(self.positions(stack))[depth]

    def layer_genes(self, genes: Int[Array, " g"], stack: Stack, name: str) -> Int[Array, " l"]:
        """Returns the gene of each layer for a choice, int32[l]; arbitrary for a layer that is off."""
        return self.genes(genes, stack, name, self.layer_positions(genes, stack))

    def relaxed(
        self, relaxed: Relaxed, stack: Stack | None, choices: tuple[str, ...]
    ) -> dict[str, Float[Array, "... _v"]]:
        """Returns the weight of each value by choice: [v], or [l, v] for choices with a gene a layer.

        The weights of an edge of a graph sum to the weight with which it is there; other weights sum to 1.
        """
        found = {}
        for name in choices:
            count = len(self.values[name])
            if stack is not None and stack.edges:
                found[name] = jnp.stack([self._on_edge(relaxed, stack, edge, name) for edge in stack.edges])
                continue
            if stack is None or stack.layers is None:
                found[name] = relaxed[self._space.column(name, *((stack.group, stack.first) if stack else ())), :count]
                continue
            columns, positions = self.columns(stack, name), self.positions(stack)
            if len(set(columns)) == 1:
                found[name] = relaxed[columns[0], :count]
            elif stack.positions is None:
                found[name] = relaxed[columns[stack.first :], :count]
            else:
                weight = self._depth(relaxed, stack)[:, None] * (positions >= 0)
                total = jnp.sum(weight, axis=0)
                weight = weight / jnp.maximum(total, np.finfo(np.float32).tiny)
                off = (total == 0)[:, None] * np.eye(1, count, dtype=np.float32)  # what is computed there is left out
                found[name] = jnp.einsum("nl,nlv->lv", weight, relaxed[columns[positions], :count]) + off
        return found

    def _on_edge(self, relaxed: Relaxed, stack: Stack, edge: Edge, name: str) -> Float[Array, " _v"]:
        """The weight with which an edge is there and has each value of a choice; sums to that of its being there."""
        columns, slots = self.columns(stack, name), np.array(edge.slots)
        there = jnp.ones(1) if edge.choice is None else relaxed[self._space.column(edge.choice), : len(slots)]
        return (there * (slots >= 0)) @ relaxed[columns[slots], : len(self.values[name])]

    def _depth(self, relaxed: Relaxed, stack: Stack) -> jax.Array:
        if stack.depth not in self.values:
            return jnp.ones(1)
        return relaxed[self._space.column(stack.depth, stack.group), : len(self.values[stack.depth])]

    def depths(self, relaxed: Relaxed, stack: Stack) -> tuple[Float[Array, " l"], Float[Array, " l+1"] | None]:
        """Returns how far each layer of a stack is on [l], and the weight of stopping after 0 to l layers [l + 1].

        The weights of stopping are None where the layers that are on need not be the first ones.
        """
        weight, on = self._depth(relaxed, stack), self.positions(stack) >= 0
        stops = None
        if stack.positions is None:
            stops = weight @ (np.arange(on.shape[1] + 1) == on.sum(axis=1)[:, None]).astype(np.float32)
        return weight @ on.astype(np.float32), stops


def _described(place: Place, path: str, shape: Shape, leaf: Any) -> jax.Array:
    """A weight of the plain module in the described shape."""
    where = "/".join(map(str, (*place.module, path)))
    if leaf is None:
        raise UserError(f"network: part {where}: the plain module has no such weight. Describe those that it has.")
    sizes = place.sublayer.sizes(place.values)
    expected = lengths(shape, sizes)
    if len(expected) != leaf.ndim:
        raise UserError(
            f"network: part {where}: {len(expected)} axes are described, and the plain module's weight has "
            f"{leaf.ndim} {leaf.shape}. Describe each."
        )
    for axes, size, length in zip(shape, expected, leaf.shape, strict=True):
        if size != length:
            named = [getattr(axis, "name", str(axis)) for axis in (axes if isinstance(axes, tuple) else (axes,))]
            raise UserError(
                f"network: part {where}: axis {' x '.join(named)} has {size} entries, and the plain module's weight "
                f"{length}. Describe the size that it has."
            )
    return leaf.reshape(lengths(flat(shape), sizes))
