"""ModuleSupernet: every pass of a supernet of a user's own Flax module, whose own code runs at each size.

Mixtures are of outputs: a layer's at all its sizes, weighted, and the network's at all programs. Nothing inside a
module needs to know that it is mixed, and all weight on one size is that size's network.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, Float, Int, Shaped

from search_spaces import Architecture, Program
from search_spaces.choice import Value
from search_spaces.network import Stack
from search_spaces.sealed_json import JsonObject
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage, run
from supernet.engine.supernet import SUPERNETS, Params, Statistics
from supernet.engine.superposed import Relaxed
from supernet.flax_modules.plain import plain
from supernet.flax_modules.space import LAYER, STACK, ModuleSpace, signature
from supernet.standalone import MODULES
from supernet.weights.cuts import Tree, at, take


def register(family: str, space: type[ModuleSpace]) -> None:
    """Registers the supernet of a family, and the module that its subnets are exported as."""
    own = {"__module__": space.__module__, "__doc__": ModuleSupernet.__doc__}
    supernet = type(f"{space.module.__name__}Supernet", (ModuleSupernet,), own)
    SUPERNETS.register(family)(supernet)

    def build(rngs: nnx.Rngs, **arguments: Any) -> nnx.Module:
        return plain(space.module, **arguments, rngs=rngs)

    build.__module__ = space.__module__
    MODULES.register(family)(build)


class ModuleSupernet(ElasticNetwork):
    """A supernet of a user's module."""

    space: ModuleSpace

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        """See `ElasticNetwork.stages`: one, which is a layer as the module has it."""
        sizes: dict[tuple, dict] = {}

        def forward(params: Params, inputs: tuple, context: Context) -> jax.Array:
            outer = {name: context.values[name] for name in self.space.outer}
            key = tuple(outer.values())
            if key not in sizes:
                sizes[key] = self.space.sizes_of_layers(outer)
            leaves: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
            shapes = {path: leaf.shape for path, leaf in leaves.items()}
            values = self.space.few({**outer, **sizes[key][signature(shapes)]})
            return self.space.pieces.layer(values, params, inputs[0], context)

        return {LAYER: (Stage(forward),)}

    def embed(self, params: Params, x: Shaped[Array, "b ..."], context: Context) -> Shaped[Array, "..."]:
        """See `ElasticNetwork.embed`; statistics are collected by `head`, which passes here again."""
        return self.space.pieces.embed(self._sizes(context), params, x, replace(self._inner(context), collected=None))

    def head(self, params: Params, x: Shaped[Array, "..."], context: Context) -> Float[Array, "b *t c"]:
        """See `ElasticNetwork.head`."""
        return self.space.pieces.head(self._sizes(context), params, x, self._inner(context))

    def _sizes(self, context: Context) -> Mapping[str, Value]:
        return self.space.few({name: context.values[name] for name in self.space.outer})

    def _inner(self, context: Context) -> Context:
        """The context with the batch statistics of what lies outside the layers."""
        described = self.space.network.outside_layers
        return replace(
            context, statistics=self.weights.taken(context.statistics, described, context.values, "statistics")
        )

    @property
    def stacked(self) -> str:
        """See `Supernet.stacked`."""
        return STACK

    def config(self, architecture: Architecture) -> JsonObject:
        """See `Supernet.config`: what `plain` takes."""
        space, described = self.space, architecture.description
        named = [name for name in space.elastic if name not in space.inner]
        arguments = {name: getattr(space, name) for name in space.fixed} | {name: described[name] for name in named}
        layers = [{name: values[name] for name in space.inner} for _, _, values in space.active_layers(architecture)]
        return {
            "arguments": {name: list(v) if isinstance(v, tuple) else v for name, v in arguments.items()},
            "layers": layers,
            "place": list(space.pieces.place or ()),
        }

    def example(self, architecture: Architecture) -> jax.ShapeDtypeStruct:
        """See `Supernet.example`."""
        return self.space.example

    # ---------------------------------------------------------------- mixtures

    def apply_superposed(self, params: Params, relaxed: Relaxed, x: Shaped[Array, "b ..."]) -> Float[Array, "b *t c"]:
        """See `SuperposedSupernet.apply_superposed`."""
        params = self.sharing.mixed(params, relaxed)
        outer = [choice for choice in self.space.choices if choice.selects_program]
        logits = []
        for chosen in itertools.product(*(range(len(choice.values)) for choice in outer)):
            values = {choice.name: choice.values[i] for choice, i in zip(outer, chosen, strict=True)}
            rows = [relaxed[self.space.column(choice.name), i] for choice, i in zip(outer, chosen, strict=True)]
            logits.append(math.prod(rows) * self._mixture(params, relaxed, x, Context(x.shape, values, input=x)))
        return sum(logits[1:], logits[0])

    def apply_masked(
        self,
        params: Params,
        genes: Int[Array, " g"],
        x: Shaped[Array, "b ..."],
        *,
        program: Program,
        statistics: Statistics | None = None,
    ) -> Float[Array, "b *t c"]:
        """See `Supernet.apply_masked`: the mixture with all weight on one value of each choice."""
        relaxed = (jnp.arange(max(self.space.cardinalities)) == genes[:, None]).astype(np.float32)
        context = Context(x.shape, self.known(program), statistics=statistics, input=x)
        return self._mixture(self.sharing.effective(params, genes), relaxed, x, context)

    def _mixture(self, params: Params, relaxed: Relaxed, x: jax.Array, context: Context) -> jax.Array:
        """Logits of one program, whose layers are mixtures of all their sizes."""
        outside = self.weights.taken(params, self.space.network.outside_layers, context.values)
        y = self.embed(outside, x, context)
        for stack in self.space.network.stacks:
            y = self._mixed_layers(stack, at(params, stack.path), relaxed, y, context)
        return self.head(outside, y, context)

    def _mixed_layers(
        self, stack: Stack, params: Params, relaxed: Relaxed, x: jax.Array, context: Context
    ) -> jax.Array:
        weights, (sublayer,) = self.weights, stack.sublayers
        by_choice = weights.relaxed(relaxed, stack, self.space.inner)
        of_layers = {name: leaf for name, leaf in by_choice.items() if leaf.ndim == 2}
        chosen = list(itertools.product(*(range(len(weights.values[name])) for name in self.space.inner)))
        branches = self._branches(sublayer, self.space.inner, context.values)
        given = None if context.statistics is None else at(context.statistics, stack.path)

        def layer(x: jax.Array, params: Params, statistics: Tree, own: Mapping[str, jax.Array]) -> jax.Array:
            own, y = {**by_choice, **own}, jnp.zeros_like(x)
            for indices, cut, moments in zip(chosen, branches.cuts, branches.statistics, strict=True):
                weight = math.prod(own[name][i] for name, i in zip(self.space.inner, indices, strict=True))
                inner = replace(context, statistics=None if statistics is None else take(statistics, moments))
                y = y + weight * run(branches.stages, take(params, cut), x, inner)
            return y

        _, stops = weights.depths(relaxed, stack)
        assert stops is not None  # the first layers are on

        def body(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
            (x, stopped), (own, stop) = carry, inputs
            y = layer(x, *own)
            return (y, stopped + stop * y), None

        inputs = (weights.own(params, sublayer), given, of_layers), stops[1:]
        (_, y), _ = jax.lax.scan(body, (x, stops[0] * x), inputs)
        return y
