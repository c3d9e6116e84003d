"""ElasticNetwork: every pass of a supernet from the description of its networks and the stages of its sublayers.

A family's author writes the description (`SearchSpace.network`), the stages of each sublayer, and what embeds the input
and reads the result. Stages receive weights that are already cut to one size, so the same ones serve all passes:

- switched: the architecture is data, each sublayer a switch over its own sizes (`supernet.engine.branches`);
- static: one architecture, known when traced;
- superposed: a mixture of all sizes, at full size (`supernet.engine.mixtures`);
- masked: the mixture with all weight on one value.
"""

import inspect
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, Float, Int, Key, Shaped

from search_spaces import Architecture, Program
from search_spaces.network import Stack, Sublayer
from search_spaces.sealed_json import JsonObject
from supernet.engine.branches import Branches, layered, switched
from supernet.engine.derived import DerivedNetwork, derived_config
from supernet.engine.mixed_stack import mixed_stack
from supernet.engine.mixtures import mix, mixed_mask, shares
from supernet.engine.randomness import FreshWeights
from supernet.engine.stages import Context, Stage, merged, run, stages_of
from supernet.engine.supernet import Params, Statistics
from supernet.engine.superposed import Relaxed, SuperposedSupernet
from supernet.engine.views import View, view_of
from supernet.layers.integers import is_carried
from supernet.layers.passes import PLAIN
from supernet.standalone import MODULES
from supernet.tasks.task import TASKS
from supernet.weights.cuts import Tree, around, at, put, take_stacks, within
from supernet.weights.described import Kind, Place, Weights

_OTHERS = np.uint32(0xFFFFFFFE)
"""Folded, from here down, into the key of fresh weights for those that the deepest network lacks."""


class ElasticNetwork(SuperposedSupernet):
    """A supernet that follows from its description; weights and statistics are laid out as `Weights` says."""

    # ---------------------------------------------------------------- what a family writes

    @cached_property
    @abstractmethod
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        """The stages of each sublayer of the stacks, by its name."""

    @abstractmethod
    def embed(self, params: Params, x: Shaped[Array, "b ..."], context: Context) -> Tree:
        """Computes the stream that the layers read from a batch of inputs, with the weights outside of the layers.

        The stream is an array, or a tree of some (the nodes of a cell).
        """

    @abstractmethod
    def head(self, params: Params, x: Tree, context: Context) -> Float[Array, "b *t c"]:
        """Computes logits from the stream after the last layer, with the weights outside of the layers."""

    def route(self, run: Callable[[Stack, Tree], Tree], x: Tree, values: Mapping[str, Any]) -> Tree:
        """Runs all stacks on the stream `x` in turn; a family whose stacks branch overrides this."""
        for stack in self.space.network.stacks:
            x = run(stack, x) if stack.there(values) else x
        return x

    first_entry_alone: ClassVar[bool] = False
    """Whether of a stream of several arrays only the first one is not zero between stacks."""

    @property
    def stacks_are_chained(self) -> bool:
        """Returns whether each stack reads what the one before gives; not where a family overrides `route`."""
        return type(self).route is ElasticNetwork.route

    # ---------------------------------------------------------------- weights

    @cached_property
    def weights(self) -> Weights:
        """Layout of the weights."""
        return Weights(self.space)

    @property
    def stacked(self) -> str:
        """See `Supernet.stacked`."""
        return next(stack.path.split("/")[-1] for stack in self.space.network.stacks if stack.layers is not None)

    def plain_weights(self, key: Key[Array, ""]) -> Params:
        """See `Supernet.plain_weights`; stacks have layers on a leading axis."""
        first, *others = self.space.covering
        keys = [key, *(jax.random.fold_in(key, _OTHERS - number) for number in range(len(others)))]
        modules = (self.module(a, FreshWeights(k)) for a, k in zip((first, *others), keys, strict=True))
        return self.weights.init(*modules)

    @cached_property
    def plain_shapes(self) -> Params:
        """See `Supernet.plain_shapes`.

        Raises:
            UserError: The description contradicts the plain module of the first architecture.
        """
        first = self.space.covering[0]
        # The module is compared with the description: what it raises is said before anything is drawn.
        jax.eval_shape(lambda: [leaf for *_, leaf in self.weights.leaves(self.module(first, FreshWeights(0)), first)])
        return self.weights.shapes

    def slice(self, params: Params, architecture: Architecture, statistics: Statistics) -> Params:
        """See `Supernet.slice`."""
        return self.weights.slice(params, architecture, statistics)

    def config(self, architecture: Architecture) -> JsonObject:
        """Arguments of the plain module by name: an axis, a choice that sizes none, or a property of the space.

        Of a derived module, the space's settings and the architecture.
        """
        if self.space.family not in MODULES:
            return derived_config(self.space, architecture)
        outside, layers = self.weights.sizes(architecture)
        chosen = architecture.description

        def argument(name: str) -> Any:
            if name in outside:
                return outside[name]
            if inside := [sizes[name] for sizes in layers if name in sizes]:
                return inside
            value = chosen[name] if name in chosen else getattr(self.space, name)
            return list(value) if isinstance(value, tuple) else value

        parameters = inspect.signature(MODULES[self.space.family].__init__).parameters
        return {name: argument(name) for name in parameters if name not in ("self", "rngs")}

    def module(self, architecture: Architecture, rngs: nnx.Rngs | None = None) -> nnx.Module:
        """See `Supernet.module`: the registered one of the family, or one that is derived from the description."""
        if self.space.family in MODULES:
            return super().module(architecture, rngs)
        return self.derived(architecture, rngs or FreshWeights(0))

    def derived(self, architecture: Architecture, rngs: nnx.Rngs) -> DerivedNetwork:
        """Builds the plain module of one architecture from the description and the stages alone."""
        net = self if self.passes == PLAIN else type(self)(self.space, self.sharing)
        return DerivedNetwork(
            self.weights, architecture, lambda state, x: net.apply_plain(state, architecture, x), rngs
        )

    def example(self, architecture: Architecture) -> jax.ShapeDtypeStruct:
        """See `Supernet.example`: what the family's task says, the first of several."""
        return TASKS[self.space.tasks()[0]].example(self.space, architecture)

    @property
    def has_statistics(self) -> bool:
        """See `Supernet.has_statistics`; by the description, without tracing a pass."""
        return any(sublayer.statistics for sublayer in self.space.network.sublayers)

    @property
    def values_per_statistic(self) -> int:
        """See `Supernet.values_per_statistic`."""
        return self.space.network.values_per_statistic(self.space.choices)

    # ---------------------------------------------------------------- switched and static passes

    def apply(
        self,
        params: Params,
        genes: Int[Array, " g"],
        x: Shaped[Array, "b ..."],
        *,
        program: Program,
        statistics: Statistics | None = None,
        collect: bool = False,
    ) -> tuple[Float[Array, "b *t c"], Statistics]:
        """See `Supernet.apply`."""
        genes, collected = jnp.asarray(genes), {} if collect else None
        context = Context(x.shape, self.known(program), statistics=statistics, collected=collected, input=x)
        y, outside = self.streamed(self.sharing.effective(params, genes), genes, x, context)
        return self.head(outside, y, context), collected or {}

    def streamed(
        self, params: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], context: Context
    ) -> tuple[Tree, Params]:
        """Computes the stream behind the layers by the switched pass, and cuts the weights that the head reads."""
        outside = self.weights.taken(params, self.space.network.outside_layers, context.values)

        def through(stack: Stack, y: Tree) -> Tree:
            given = None if context.statistics is None else at(context.statistics, stack.path)
            inner = replace(context, statistics=given, collected=None if context.collected is None else {})
            y = self.switched_stack(stack, at(params, stack.path), genes, y, inner)
            if context.collected is not None and inner.collected:
                put(context.collected, stack.path, inner.collected)
            return y

        return self.route(through, self.embed(outside, x, context), context.values), outside

    def in_stacks(
        self, params: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> tuple[Tree, list[Callable[[Tree], Tree]]]:
        """Returns what `apply` computes up to the head in parts: the embedded stream, and each stack as a function.

        Raises:
            NotImplementedError: The family's stacks do not follow each other.
        """
        if not self.stacks_are_chained:
            raise NotImplementedError(f"stacks of {type(self).__name__} branch")
        genes = jnp.asarray(genes)
        params, known = self.sharing.effective(params, genes), self.known(program)
        context = Context(x.shape, known, input=x)
        outside = self.weights.taken(params, self.space.network.outside_layers, known)
        parts = [
            partial(lambda stack, y: self.switched_stack(stack, at(params, stack.path), genes, y, context), stack)
            for stack in self.space.network.stacks
            if stack.there(known)
        ]
        return self.embed(outside, x, context), parts

    def switched_stack(
        self, stack: Stack, params: Params, genes: Int[Array, " g"], x: Tree, context: Context, view: View | None = None
    ) -> Tree:
        """Computes the layers of a stack at the sizes that their genes select.

        Args: as of `streamed`, but effective weights of the stack, and a view of the stream in place of the stack's.
        """
        weights = self.weights
        position = weights.layer_positions(genes, stack)
        branches, indices, selected = [], [], []
        computed = [sublayer for sublayer in stack.sublayers if stages_of(self.stages, sublayer)]
        for sublayer in computed:
            inside = [name for name in sublayer.choices if name not in context.values]
            own = {name: weights.genes(genes, stack, name, position) for name in inside}
            free = [name for name in inside if name not in sublayer.centred]
            index = jnp.zeros(position.shape, jnp.int32)
            for name in free:
                index = index * len(weights.values[name]) + own[name]
            branches.append(self._branches(sublayer, free, context.values))
            off = position < 0
            if (option := sublayer.option) is not None:
                # Its branches are among those of the other options, one after the other; all but one are left out.
                number = weights.values[option.of.choice].index(option.value)
                off = off | (weights.genes(genes, stack, option.of.choice, position) != number)
            indices.append(jnp.where(off, -1, index))
            selected.append({name: own[name] for name in sublayer.centred})
        trees = [weights.own(params, sublayer) for sublayer in computed]
        if stack.layers is not None:
            # Cut to the program's width once, instead of in every branch: a ViT's step takes 0.95 of the time.
            outer = [around(switch.cuts) for switch in branches]
            trees = [take_stacks(tree, cut) for tree, cut in zip(trees, outer, strict=True)]
            branches = [
                replace(switch, cuts=[within(cut, held) for cut in switch.cuts])
                for switch, held in zip(branches, outer, strict=True)
            ]
            return layered(branches, indices, trees, x, context, selected, view or view_of(stack), stack.handed_on)
        for sublayer, switch, index, tree, gene in zip(computed, branches, indices, trees, selected, strict=True):
            inner = replace(context, genes={name: leaf[0] for name, leaf in gene.items()})
            x = switched(switch, index[0], tree, x, inner, skippable=sublayer.option is not None)
        return x

    def _branches(self, sublayer: Sublayer, free: Sequence[str], known: Mapping[str, Any]) -> Branches:
        """The sizes of a sublayer, for all values of the choices that are free."""
        weights, stages = self.weights, stages_of(self.stages, sublayer)
        combinations = itertools.product(*(weights.values[name] for name in free))
        chosen = [dict(zip(free, values, strict=True)) for values in combinations]
        sizes = [{**weights.largest, **known, **values} for values in chosen]
        return Branches(
            merged(stages) if self.passes.rematerialize else stages,
            [weights.cut(sublayer, values) for values in sizes],
            [weights.cut(sublayer, values, "statistics") for values in sizes],
            sublayer.path,
            [{name: values[name] for name in free if self.weights.sizes_none(name)} for values in chosen],
        )

    def apply_sliced(
        self,
        params: Params,
        architecture: Architecture,
        x: Shaped[Array, "b ..."],
        statistics: Statistics | None = None,
    ) -> Float[Array, "b *t c"]:
        """See `Supernet.apply_sliced`."""
        params = self.sharing.effective(params, jnp.asarray(architecture.genes, jnp.int32))
        whole = {"weights": params, "statistics": statistics}
        return self._unrolled(architecture, x, lambda place, kind: self.weights.taken_at(place, whole[kind], kind))

    def apply_plain(self, state: Tree, architecture: Architecture, x: Shaped[Array, "b ..."]) -> Float[Array, "b *t c"]:
        """Logits of one architecture from the state of its plain module: what a derived module computes."""
        given = traverse_util.flatten_dict(state)
        return self._unrolled(architecture, x, lambda place, kind: self.weights.given_at(place, given, kind))

    def _unrolled(self, architecture: Architecture, x: jax.Array, read: Callable[[Place, Kind], Tree]) -> jax.Array:
        """Logits of one architecture, sublayer by sublayer, each with what is read of its weights and statistics."""
        first, *places = self.weights.places(architecture)
        known = self.known(self.space.program(architecture.genes))
        context = Context(x.shape, known, statistics=read(first, "statistics"), input=x)
        outside = read(first, "weights")
        by_stack = {stack: list(of) for stack, of in itertools.groupby(places, lambda place: place.stack)}

        def through(stack: Stack, y: Tree) -> Tree:
            view = view_of(stack)
            for number, layer in itertools.groupby(by_stack.get(stack, ()), lambda place: place.layer):
                inside = view.enter(y, number)
                for place in layer:
                    free = filter(self.weights.sizes_none, place.sublayer.choices)
                    values = {**known, **{name: place.values[name] for name in free}}
                    inner = replace(context, statistics=read(place, "statistics"), values=values)
                    inside = run(stages_of(self.stages, place.sublayer), read(place, "weights"), inside, inner)
                y = view.leave(y, inside, number)
            return y

        return self.head(outside, self.route(through, self.embed(outside, x, context), known), context)

    def known(self, program: Program) -> dict[str, Any]:
        """Returns the values of the choices that are known when a program is traced."""
        return dict(zip((choice.name for choice in self.space.choices if choice.selects_program), program, strict=True))

    # ---------------------------------------------------------------- mixtures

    def superpose(self, params: Params, relaxed: Relaxed) -> Params:
        """See `SuperposedSupernet.superpose`."""
        weights, sharing = self.weights, self.sharing
        plain = sharing.mixed(params, relaxed)
        plain = jax.tree.map(lambda leaf: leaf if is_carried(leaf) else leaf.astype(jnp.float32), plain)
        mixed = jax.tree.map(lambda leaf: leaf, plain)
        for stack, sublayer in weights.sublayers:
            own = weights.own(weights.part(plain, stack), sublayer)
            by_choice = weights.relaxed(relaxed, stack, sublayer.choices)
            weights.update(mixed, stack, sublayer, mix(own, sublayer, by_choice, weights.values))
        if sharing.choices:
            self._mix_effective(params, relaxed, mixed)
        return mixed

    def _mix_effective(self, params: Params, relaxed: Relaxed, mixed: Params) -> None:
        """Puts the mixture of what the sharing gives for each value of its choices where it changes weights."""
        weights, sharing = self.weights, self.sharing
        totals: dict[str, jax.Array] = {}
        for values in itertools.product(*(range(len(weights.values[name])) for name in sharing.choices)):
            genes, rows = np.zeros(self.space.num_genes, np.int32), relaxed
            for name, value in zip(sharing.choices, values, strict=True):
                columns = self.space.columns[name].reshape(-1)
                genes[columns] = value
                # Masks are linear in each row, so what is left of a row is the weight of its value.
                rows = rows.at[columns].multiply(np.eye(relaxed.shape[1], dtype=np.float32)[value])
            effective = sharing.effective(params, jnp.asarray(genes))
            for stack, sublayer in weights.sublayers:
                by_choice = weights.relaxed(rows, stack, tuple({*sublayer.choices, *sharing.choices}))
                for path, shape in sublayer.weights.items():
                    where = weights.path(stack, sublayer, path)
                    if where in sharing.changed:
                        mask = mixed_mask(shape, by_choice, weights.values, sharing.choices)
                        totals[where] = totals.get(where, 0) + at(effective, where) * mask
        for path, total in totals.items():
            put(mixed, path, total)

    def apply_superposed(self, params: Params, relaxed: Relaxed, x: Shaped[Array, "b ..."]) -> Float[Array, "b *t c"]:
        """See `SuperposedSupernet.apply_superposed`.

        A choice that no mask can express, because it changes shapes (a resolution), is a pass each, whose logits are
        mixed.
        """
        params = self.superpose(params, relaxed)
        shaping = [c for c in self.space.choices if c.selects_program and self.weights.sizes_none(c.name)]
        logits = []
        for chosen in itertools.product(*(range(len(choice.values)) for choice in shaping)):
            values = {choice.name: choice.values[i] for choice, i in zip(shaping, chosen, strict=True)}
            rows = [relaxed[self.space.column(choice.name), i] for choice, i in zip(shaping, chosen, strict=True)]
            logits.append(math.prod(rows) * self._mixed(params, relaxed, x, Context(x.shape, values, input=x)))
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
        known = {name: value for name, value in self.known(program).items() if self.weights.sizes_none(name)}
        params = self.superpose(params, relaxed)
        return self._mixed(params, relaxed, x, Context(x.shape, known, statistics=statistics, input=x))

    def _mixed(self, params: Params, relaxed: Relaxed, x: jax.Array, context: Context) -> jax.Array:
        """Logits at full size with mixed weights; a stack hands on a mixture of where it may stop."""
        weights, network = self.weights, self.space.network
        by_choice = weights.relaxed(relaxed, None, network.outside_layers.choices)
        outside = weights.own(params, network.outside_layers)
        outer = replace(context, shares=shares(network.outside_layers, by_choice, weights.values))

        def through(stack: Stack, y: Tree) -> Tree:
            given = None if context.statistics is None else at(context.statistics, stack.path)
            inner = replace(context, statistics=given)
            return mixed_stack(weights, self.stages, stack, at(params, stack.path), relaxed, y, inner)

        return self.head(outside, self.route(through, self.embed(outside, x, outer), context.values), outer)
