"""ModuleSpace: the space of a user's own Flax module, whose arguments vary; and `elastic`, which makes its family."""

import dataclasses
import inspect
import itertools
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from search_spaces import FAMILIES, Choice, SearchSpace, UserError
from search_spaces.choice import Value
from search_spaces.cost import Cost
from search_spaces.errors import did_you_mean
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import Part
from supernet.engine.stages import Context
from supernet.flax_modules.builds import Builds, text
from supernet.flax_modules.counting import Counts, counted
from supernet.flax_modules.following import Following, Leaves
from supernet.flax_modules.running import Pieces
from supernet.weights.cuts import put

LAYER, STACK = "layer", "layers_of_module"
"""Name of the layers' sublayer, and of their weights, which no attribute of a module should have."""
FROM_DATA = {"classes": int, "channels": int, "image_size": int, "vocabulary": int, "context": int}
"""Arguments that the data give, and their types."""


@dataclass(frozen=True, eq=False)
class CountedSublayer(Sublayer):
    """A part of a module, whose products are counted where it is traced.

    Attributes:
        arguments: Names of all choices that it may depend on.
        counts: Its multiply-adds at values of these.
    """

    arguments: tuple[str, ...] = ()
    counts: Callable[[Mapping[str, Value]], Counts] = lambda values: Counts(0, 0)

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """See `Sublayer.choices`."""
        return self.arguments

    def sizes(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """See `Sublayer.sizes`; the values themselves beside them."""
        return {**super().sizes(values), **{f"{name}=": values[name] for name in self.arguments}}

    def cost(self, sizes: Mapping[str, Any]) -> Cost:
        """See `Sublayer.cost`."""
        values = {name: sizes[f"{name}="] for name in self.arguments}
        return Cost(super().cost(sizes).params, *self.counts(values))


@dataclass(frozen=True, kw_only=True)
class ModuleSpace(SearchSpace):
    """Networks of one Flax module. Fields of its families are the arguments of the module.

    Args:
        input_shape: Shape of one input, such as (height, width, channels).
    """

    inputs = ("images", "arrays")

    module: ClassVar[type[nnx.Module]]
    elastic: ClassVar[tuple[str, ...]]
    """Arguments that vary."""
    fixed: ClassVar[tuple[str, ...]]
    """Arguments that do not."""

    input_shape: tuple[int, ...]

    @cached_property
    def builds(self) -> Builds:
        """The module at any sizes."""
        return Builds(self.module, {name: getattr(self, name) for name in self.fixed})

    @cached_property
    def options(self) -> dict[str, tuple[Value, ...]]:
        """Values of each argument that varies."""
        return {name: Choice(name, getattr(self, name)).values for name in self.elastic}

    @cached_property
    def following(self) -> Following:
        """Arguments that each axis follows."""
        return Following(self.builds, self.options)

    @cached_property
    def pieces(self) -> Pieces:
        """Runner of the parts of the module."""
        layers = self.following.layers
        return Pieces(self.builds, layers and layers.place, layers and layers.depth)

    @cached_property
    def inner(self) -> tuple[str, ...]:
        """Arguments of which each layer may have its own value: they size layers alone."""
        return tuple(name for name in self.elastic if self._is_inner(name))

    @cached_property
    def outer(self) -> tuple[str, ...]:
        """Arguments that select a program: what they size is outside the layers too."""
        return tuple(name for name in self.elastic if name not in self.inner and name != self.pieces.depth)

    def _is_inner(self, name: str) -> bool:
        followed = name in self.following.layer.follows
        if name == self.pieces.depth or name in self.following.outside.follows:
            return False
        if self.pieces.place is not None and len(self.options[name]) > 1:
            streams = [self.stream({**self.following.largest, name: value}) for value in self.options[name]]
            if any(stream != streams[0] for stream in streams):
                return False
        if not followed and len(self.options[name]) > 1:
            raise UserError(
                f"space.{name}: no weight of {self.module.__name__} follows it; they are alike at each of "
                f"{list(self.options[name])}. Use it in the module, or leave it out of what is elastic."
            )
        return followed

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """See `SearchSpace.choices`: programs first, then the depth and what it gates."""
        depth = self.pieces.depth
        outer = [Choice(name, self.options[name], selects_program=True) for name in self.outer]
        if depth is None:
            return tuple(outer)
        inner = [Choice(name, self.options[name], gate=depth) for name in self.inner]
        return (*outer, Choice(depth, self.options[depth]), *inner)

    @cached_property
    def network(self) -> Network:
        """See `SearchSpace.network`: found in the module."""
        following, layers = self.following, self.following.layers
        outside = CountedSublayer(
            "outside_layers", _parts(following.outside), arguments=self.outer, counts=self._counts_outside
        )
        if layers is None:
            return Network(outside, ())
        arguments = (*self.outer, *self.inner)
        layer = CountedSublayer(LAYER, _parts(following.layer), arguments=arguments, counts=self._counts_of_layer)
        most = int(self.options[layers.depth][-1])
        return Network(outside, (Stack(STACK, (layer,), most, depth=layers.depth, module="/".join(layers.place)),))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts_outside({})
        if self.pieces.place is not None:
            self._check_layers_keep_shape()
            self.sizes_of_layers({name: self.options[name][-1] for name in self.outer})

    # ---------------------------------------------------------------- shapes and counts

    def full(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Values of all arguments: the largest where none are given."""
        return {**self.following.largest, **values}

    def few(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Returns the same with the fewest possible layers, which are built faster."""
        depth = self.pieces.depth
        return {**self.full(values), **({} if depth is None else {depth: self.options[depth][0]})}

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        """Shape and type of one input."""
        return jax.ShapeDtypeStruct(self.input_shape, np.float32)

    @property
    def _batch(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *self.example.shape), self.example.dtype)

    def stream(self, values: Mapping[str, Value]) -> jax.ShapeDtypeStruct:
        """Returns the shape and type of the input of layers for one example."""
        full = self.few(values)
        if (key := tuple(sorted(full.items()))) not in self._streams:
            params = self._shapes_of(self.following.outside, full, self.builds.leaves(full))
            with self.builds.named(f"{self.module.__name__}({text(full)}) of an input {self.input_shape}"):
                self._streams[key] = jax.eval_shape(
                    lambda params, x: self.pieces.embed(full, params, x, Context(x.shape, full, input=x)),
                    params, self._batch,
                )  # fmt: skip
        return self._streams[key]

    @cached_property
    def _streams(self) -> dict[tuple, jax.ShapeDtypeStruct]:
        return {}

    def _shapes_of(self, leaves: Leaves, values: Mapping[str, Value], shapes: Mapping[str, tuple]) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        before = "" if leaves is self.following.outside else f"{self.pieces.list}/0/"
        for path in leaves.weights:
            put(tree, path, jax.ShapeDtypeStruct(shapes[before + path], jnp.float32))
        return tree

    def _counts_outside(self, values: Mapping[str, Value]) -> Counts:
        full = self.few(values)
        params, stream = self._shapes_of(self.following.outside, full, self.builds.leaves(full)), self.stream(values)

        def outside(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            context = Context(x.shape, full, input=x)
            return self.pieces.head(full, params, x if self.pieces.place is None else y, context)

        with self.builds.named(f"{self.module.__name__}({text(full)}) of an input {self.input_shape}"):
            return counted(outside, params, self._batch, stream)

    def _counts_of_layer(self, values: Mapping[str, Value]) -> Counts:
        full = self.few(values)
        with self._named_layer(full):
            return counted(self._layer_at(full), self._layer_shapes(full), self.stream(values))

    def _layer_at(self, full: Mapping[str, Value]) -> Callable[[Any, jax.Array], jax.Array]:
        return lambda params, x: self.pieces.layer(full, params, x, Context(values=full))

    def _layer_shapes(self, full: Mapping[str, Value]) -> dict[str, Any]:
        return self._shapes_of(self.following.layer, full, self.builds.leaves(full))

    def _named_layer(self, full: Mapping[str, Value]) -> Any:
        return self.builds.named(f"{self.pieces.list}/0 of {self.module.__name__}({text(full)})")

    def _check_layers_keep_shape(self) -> None:
        ends = ({}, {name: self.options[name][0] for name in (*self.outer, *self.inner)})
        for values in ends:
            full = self.few(values)
            before = self.stream(full)
            with self._named_layer(full):
                after = jax.eval_shape(self._layer_at(full), self._layer_shapes(full), before)
            if (after.shape, after.dtype) != (before.shape, before.dtype):
                raise UserError(
                    f"space.family: {self.pieces.list}/0 of {self.module.__name__} makes {after.dtype}{after.shape} of "
                    f"{before.dtype}{before.shape}. Layers that can be left out keep the shape of what they read; put "
                    "it outside the list."
                )

    def sizes_of_layers(self, outer: Mapping[str, Value]) -> dict[tuple, dict[str, Value]]:
        """Values of the layers' own arguments by the shapes of a layer's weights.

        Raises:
            UserError: Two sizes have weights of the same shapes.
        """
        layer, found = self.network.stacks[0].sublayers[0], {}
        for combination in itertools.product(*(self.options[name] for name in self.inner)):
            own = dict(zip(self.inner, combination, strict=True))
            sizes = layer.sizes({**self.full({}), **outer, **own})
            shapes = signature({
                path: tuple(size if isinstance(size, int) else sizes[size.name] for size in shape)  # type: ignore[union-attr]
                for path, shape in layer.weights.items()
            })  # fmt: skip
            if shapes in found:
                raise UserError(
                    f"space.{self.inner[0]}: layers of {self.module.__name__} have the same weights at "
                    f"{text(found[shapes])} and at {text(own)}, so that their sizes cannot be told. Leave out one of "
                    "the arguments, or their common multiples."
                )
            found[shapes] = own
        return found


def signature(shapes: Mapping[str, Sequence[int]]) -> tuple:
    """Shapes by path, to be looked up."""
    return tuple(sorted((path, tuple(shape)) for path, shape in shapes.items()))


def _parts(leaves: Leaves) -> dict[str, Part]:
    weights = {path: Part({"": shape}) for path, shape in leaves.weights.items()}
    return weights | {path: Part({}, (), {"": shape}) for path, shape in leaves.statistics.items()}


# -------------------------------------------------------------------- families


def elastic(module: type[nnx.Module], family: str | None = None, /, **choices: Sequence[Value]) -> type[ModuleSpace]:
    """Makes a Flax module elastic: registers a family whose networks are the module at all these sizes.

    Axes of weights that follow an argument are found by building the module at several sizes. An argument that adds
    entries to a list is its depth: the first entries are on. One that sizes nothing but these layers has a value in
    each. All others have one value, for the whole network, and a compiled program a value.

    Args:
        module: A class derived from `nnx.Module`, whose constructor takes `rngs` and whose list of layers, if it has
            one, is run by `for layer in self.layers: x = layer(x)`. Arguments that are not elastic are settings of the
            space; `classes`, `channels`, `image_size` and `input_shape` come from the data.
        family: Name for `space.family`; that of the class when None: `residual_mlp` for `ResidualMLP`.
        choices: Arguments of the constructor and the values that they may have, smallest first.

    Returns:
        The family's class, a dataclass of its settings.

    Raises:
        UserError: The arguments do not fit the module, or the family's name is taken.
    """
    from supernet.flax_modules.network import register

    name = family or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", module.__name__).lower()
    where = f"elastic({module.__name__})"
    parameters = dict(inspect.signature(module.__init__).parameters)
    parameters.pop("self", None)
    if parameters.pop("rngs", None) is None:
        raise UserError(f"{where}: its constructor takes no `rngs`. Take it, by name, for fresh weights.")
    for choice, values in choices.items():
        if choice not in parameters:
            raise UserError(f"{where}: {choice!r} is no argument of its constructor.{did_you_mean(choice, parameters)}")
        if not isinstance(values, list | tuple) or not all(type(value) in (int, float) for value in values):
            raise UserError(f"{where}: {choice}: {values!r} is not a list of numbers. Give the sizes, smallest first.")
        Choice(choice, tuple(values))
    if not choices:
        raise UserError(f"{where}: no choices. Name an argument with its values: width=[32, 64].")
    fields: list[tuple] = []
    for choice, values in choices.items():
        kind = int if all(isinstance(value, int) for value in values) else float
        fields.append((choice, tuple[kind, ...], dataclasses.field(default=tuple(map(kind, values)))))
    fixed = [parameter for parameter in parameters.values() if parameter.name not in choices]
    settings = [setting for parameter in fixed if (setting := _setting(where, module, parameter)) is not None]
    for setting, *_ in (*fields, *settings):
        if setting != "input_shape" and hasattr(ModuleSpace, setting):
            raise UserError(
                f"{where}: a space has an attribute {setting!r} of its own. Give the argument another name."
            )
    space = dataclasses.make_dataclass(
        f"{module.__name__}Space",
        [*fields, *(setting for setting in settings if setting[0] != "input_shape")],
        bases=(ModuleSpace,),
        namespace={
            "__doc__": (module.__doc__ or f"Networks of {module.__name__}.").strip(),
            "__module__": module.__module__,
            "family": name,
            "module": module,
            "elastic": tuple(choices),
            "fixed": tuple(setting for setting, *_ in settings),
        },
        frozen=True,
        kw_only=True,
    )
    space.__module__ = module.__module__
    FAMILIES.register(name)(space)
    register(name, space)
    return space


def _setting(where: str, module: type[nnx.Module], parameter: inspect.Parameter) -> tuple | None:
    """The field for an argument that does not vary; None for one that no file can set, which keeps its default."""
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise UserError(f"{where}: its constructor takes {parameter}. Name each argument.")
    name, default = parameter.name, parameter.default
    scope = vars(sys.modules.get(module.__module__, typing))
    kind = parameter.annotation
    if isinstance(kind, str):
        try:
            kind = eval(kind, dict(scope))  # an annotation of the user's own module, as typing.get_type_hints does
        except Exception:
            kind = parameter.empty
    if name == "input_shape":
        return (name, tuple[int, ...])
    if default is not parameter.empty:
        if not isinstance(default, int | float | str | tuple) and default is not None:
            return None
        return (name, type(default) if kind is parameter.empty else kind, dataclasses.field(default=default))
    if kind is parameter.empty:
        kind = FROM_DATA.get(name)
    if kind is None:
        raise UserError(f"{where}: its argument {name!r} has no type. Annotate it, or give it a default.")
    return (name, kind)
