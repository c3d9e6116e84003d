"""Pieces of a user's module, run with weights of any size: one entry of its list of layers, and everything else.

The module's own `__call__` is what runs. Its list holds one stand-in while it does, which stops the pass where layers
begin (what comes before them) or puts in what they have made (what comes behind them).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from jaxtyping import Array, Float, Shaped

from search_spaces import UserError
from search_spaces.choice import Value
from supernet.engine.stages import Context
from supernet.flax_modules.builds import Builds, owner
from supernet.weights.cuts import Tree, put

Place = tuple[str, ...]
Values = Mapping[str, Value]


class Pieces:
    """Runner of the parts of a module.

    Args:
        builds: The module.
        place: Path of its list of layers; None for a module without.
        depth: Argument that is the length of the list.
    """

    def __init__(self, builds: Builds, place: Place | None, depth: str | None) -> None:
        self.builds, self.place, self.depth = builds, place, depth
        self._split: dict[tuple, tuple[Any, Any]] = {}

    def embed(self, values: Values, params: Tree, x: Shaped[Array, "b ..."], context: Context) -> Shaped[Array, "..."]:
        """Returns what the first layer reads; the input itself where there are no layers."""
        if self.place is None:
            return x

        def stop(stream: jax.Array) -> jax.Array:
            raise _Reached(stream)

        try:
            self._outside(values, params, x, context, stop)
        except _Reached as reached:
            return reached.stream
        raise AssertionError("runs without its layers were refused")

    def head(
        self, values: Values, params: Tree, stream: Shaped[Array, "..."], context: Context
    ) -> Float[Array, "b *t c"]:
        """Computes the output from the network's input and the output of the last layer."""
        x = stream if self.place is None else context.input
        assert x is not None
        return self._outside(values, params, x, context, lambda _: stream)

    def layer(self, values: Values, params: Tree, x: Shaped[Array, "..."], context: Context) -> Shaped[Array, "..."]:
        """Returns one entry of the list."""
        key = ("layer", *sorted(values.items()))
        if key not in self._split:
            assert self.place is not None
            self._split[key] = nnx.split(list_of(self.builds.at(values), self.place)[0])
        return self._run(self._split[key], params, x, context)

    @cached_property
    def list(self) -> str:
        """Path of the list, for messages."""
        return "/".join(self.place or ())

    def _outside(
        self, values: Values, params: Tree, x: jax.Array, context: Context, layers: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        key = ("outside", *sorted(values.items()))
        if key not in self._split:
            whole = nnx.merge(*nnx.split(self.builds.at(values)))  # a copy
            self._put(whole, ())
            self._split[key] = nnx.split(whole)
        return self._run(self._split[key], params, x, context, layers)

    def _run(
        self,
        split: tuple[Any, Any],
        params: Tree,
        x: jax.Array,
        context: Context,
        layers: Callable[[jax.Array], jax.Array] | None = None,
    ) -> jax.Array:
        """A part with weights, and with batch statistics or the batch's own, which are collected."""
        graph, state = split[0], jax.tree.map(lambda leaf: leaf, split[1])
        given = context.statistics
        if given is None:
            given = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _pure(state, nnx.BatchStat))
        nnx.replace_by_pure_dict(state, _united(_numbered(params), _numbered(given)))
        module: Any = nnx.merge(graph, state)
        if context.statistics is None:
            module.train()
            for _, part in nnx.iter_graph(module):
                if isinstance(part, nnx.BatchNorm):
                    part.momentum = 0.0  # what it keeps are then the batch's own statistics
        else:
            module.eval()
        if layers is None:
            y = module(x)
        else:
            stand_in = _StandIn(layers, self.list)
            self._put(module, (stand_in,))
            y = module(x)
            self._put(module, ())
            if self.place is not None and not stand_in.calls:
                raise UserError(
                    f"space.family: {self.builds.module.__name__} never runs the entries of {self.list}. Run each in "
                    f"its turn: for layer in self.{'.'.join(self.place)}: x = layer(x)"
                )
        if context.collected is not None:
            for path, leaf in traverse_util.flatten_dict(_pure(nnx.state(module), nnx.BatchStat)).items():
                put(context.collected, "/".join(map(str, path)), leaf)
        return y

    def _put(self, module: Any, layers: tuple) -> None:
        """Replaces the list of layers, past the checks that Flax makes of attributes."""
        if self.place is not None:
            vars(owner(module, self.place))[self.place[-1]] = layers


def list_of(module: Any, place: Sequence[str]) -> Any:
    """Returns the list of layers of a module."""
    return getattr(owner(module, tuple(place)), place[-1])


class _Reached(Exception):
    """The pass has come to the layers."""

    def __init__(self, stream: jax.Array) -> None:
        super().__init__()
        self.stream = stream


class _StandIn:
    """Stand-in for the list of layers while the rest of the module runs."""

    def __init__(self, layers: Callable[[jax.Array], jax.Array], name: str) -> None:
        self._layers, self._name, self.calls = layers, name, 0

    def __call__(self, *arguments: Any, **named: Any) -> jax.Array:
        if len(arguments) != 1 or named:
            raise UserError(f"space.family: entries of {self._name} are called with more than one array. Give x alone.")
        self.calls += 1
        if self.calls > 1:
            raise UserError(
                f"space.family: entries of {self._name} are run more than once. Run each once, in its turn."
            )
        return self._layers(arguments[0])


def _pure(state: Any, kind: Any) -> dict:
    return nnx.to_pure_dict(nnx.filter_state(state, kind))


def _numbered(tree: Tree) -> Tree:
    """The tree with the members of lists by number, as Flax names them."""
    if not isinstance(tree, Mapping):
        return tree
    named = {int(name) if isinstance(name, str) and name.isdigit() else name: part for name, part in tree.items()}
    return {name: _numbered(part) for name, part in named.items()}


def _united(first: Tree, second: Tree) -> Tree:
    """Two trees as one."""
    flat = {**traverse_util.flatten_dict(first), **traverse_util.flatten_dict(second)}
    return traverse_util.unflatten_dict(flat)
