"""A small family of which each layer is one of several operations: what cell spaces stand on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces import Choice, SearchSpace
from search_spaces.network import Alternatives, Network, Stack, Sublayer
from search_spaces.parts import Axis, Part, Product, batch_norm, linear
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import Params
from supernet.families.bottleneck import measure, norm
from supernet.standalone import MODULES
from supernet.standalone.mobilenet import BatchNorm, patches_3x3

HIDDEN = 5


@dataclass(frozen=True)
class Operations(SearchSpace):
    """Layers of one stream width, each a 3x3 convolution, an expansion, pooling or nothing.

    Args:
        width: Of the stream.
        depth: Layers.
        operation: The operations.
    """

    family = "operations"

    width: tuple[int, ...] = (4, 6)
    depth: tuple[int, ...] = (1, 2, 3)
    operation: tuple[str, ...] = ("conv3", "skip", "expand", "pool")
    image_size: int = 4
    channels: int = 1
    classes: int = 3

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return (
            Choice("width", self.width, selects_program=True),
            Choice("depth", self.depth),
            Choice("operation", self.operation, gate="depth", ordered=False),
        )

    @cached_property
    def network(self) -> Network:
        positions, width = self.image_size**2, Axis("width")
        convolution = Part({"kernel": ((9, width), width)}, (Product(positions, (9, width), (width,)),))
        operations = {
            "skip": Sublayer("skip", {}),
            "conv3": Sublayer("conv3", {"conv": convolution, "norm": batch_norm(width, positions)}),
            "expand": Sublayer(
                "expand", {"up": linear(width, HIDDEN, positions), "down": linear(HIDDEN, width, positions)}
            ),
            "pool": Sublayer("pool", {}),
        }
        chosen = {name: operations[name] for name in self.operation}
        outside = {"stem": linear(self.channels, width, positions), "head": linear(width, self.classes)}
        layers = Stack("layers", (Alternatives("operation", chosen),), self.depth[-1])
        return Network(Sublayer("outside_layers", outside), (layers,))


class OperationsSupernet(ElasticNetwork):
    """The operations as stages."""

    space: Operations

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        def convolve(params: Params, inputs: tuple, context: Context) -> Any:
            return measure("norm", _convolved(inputs[0], params["conv"]["kernel"]), context)

        def finish(params: Params, inputs: tuple, context: Context) -> jax.Array:
            return inputs[0] + norm("norm", inputs[1], params, "relu", context)

        def expand(params: Params, inputs: tuple, context: Context) -> jax.Array:
            return jnp.tanh(inputs[0] @ params["up"]["kernel"] + params["up"]["bias"])

        def contract(params: Params, inputs: tuple, context: Context) -> jax.Array:
            return inputs[0] + inputs[1] @ params["down"]["kernel"] + params["down"]["bias"]

        def pool(params: Params, inputs: tuple, context: Context) -> jax.Array:
            return pooled(inputs[0])

        return {
            "conv3": (Stage(convolve), Stage(finish)),
            "expand": (Stage(expand), Stage(contract)),
            "pool": (Stage(pool),),
        }

    def embed(self, params: Params, x: jax.Array, context: Context) -> jax.Array:
        return x @ params["stem"]["kernel"] + params["stem"]["bias"]

    def head(self, params: Params, x: jax.Array, context: Context) -> jax.Array:
        return jnp.sin(x).mean(axis=(1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]

    def config(self, architecture: Any) -> dict[str, Any]:
        _, layers = self.weights.sizes(architecture)
        return {
            "operations": [layer["operation"] for layer in layers],
            "width": architecture.description["width"],
            "channels": self.space.channels,
            "classes": self.space.classes,
        }


def _convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return patches_3x3(x, 1) @ kernel.reshape(-1, kernel.shape[-1])


def pooled(x: jax.Array) -> jax.Array:
    """Means of 3x3 neighbourhoods, zero beyond the edge."""
    b, h, w, c = x.shape
    return patches_3x3(x, 1).reshape(b, h, w, 9, c).mean(axis=3)


class Convolution(nnx.Module):
    """A 3x3 convolution with its norm, added."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Linear(9 * width, width, use_bias=False, rngs=rngs)
        self.norm = BatchNorm(width, "relu")

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.norm(self.conv(patches_3x3(x, 1)))


class Expansion(nnx.Module):
    """Two products with an activation between, added."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.up, self.down = nnx.Linear(width, HIDDEN, rngs=rngs), nnx.Linear(HIDDEN, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.down(jnp.tanh(self.up(x)))


class Layer(nnx.Module):
    """One operation, under its name."""

    def __init__(self, operation: str, width: int, rngs: nnx.Rngs) -> None:
        self.operation = operation
        if operation == "conv3":
            self.conv3 = Convolution(width, rngs)
        if operation == "expand":
            self.expand = Expansion(width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        match self.operation:
            case "skip":
                return x
            case "pool":
                return pooled(x)
        return getattr(self, self.operation)(x)


@MODULES.register("operations")
class Plain(nnx.Module):
    """The plain network.

    Args:
        operations: Of each layer.
        width: Of the stream.
        channels: Of the input.
        classes: Outputs.
    """

    def __init__(self, operations: Sequence[str], width: int, channels: int, classes: int, *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Linear(channels, width, rngs=rngs)
        self.layers = nnx.List([Layer(operation, width, rngs) for operation in operations])
        self.head = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(jnp.sin(x).mean(axis=(1, 2)))
