"""The elastic inverted bottleneck as stages of the engine: expand, convolve, project, finish.

Kept between stages are the three products before their batch norms, and these norms' moments; normalised and
activated maps are computed again in the backward pass.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import Params
from supernet.layers.batch_norm import Moments, moments, normalise, normalise_with
from supernet.layers.depthwise import depthwise
from supernet.layers.elastic_depthwise import elastic_depthwise
from supernet.layers.linear import linear


class Measured(NamedTuple):
    """A product [..., c] and the moments [c] to normalise it with."""

    product: Float[Array, "b h w c"]
    moments: Moments


@dataclass(frozen=True)
class Bottleneck:
    """Properties that all sizes of a block share; its weights say whether it expands, and squeezes.

    Attributes:
        kernels: Sizes that a kernel gene selects from.
        stride: 1 or 2.
        activation: `relu` or `hard_swish`.
        adds: Whether the input is added to the output.
        expands: Whether there is an expansion; the fixed block has none.
    """

    kernels: tuple[int, ...]
    stride: int
    activation: str
    adds: bool
    expands: bool = True

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The engine's stages; input and output are [b, h, w, c]."""
        expand = (Stage(self._expand),) if self.expands else ()
        return *expand, Stage(self._convolve), Stage(self._project), Stage(self._finish)

    def _expand(self, params: Params, inputs: tuple, context: Context) -> Measured:
        return measure("expand_norm", pointwise(inputs[0], params["expand"]), context)

    def _convolve(self, params: Params, inputs: tuple, context: Context) -> Measured:
        x, kernel = inputs[-1], params["depthwise"]["kernel"]
        if self.expands:
            x = norm("expand_norm", x, params, self.activation, context)
        if "kernel" in context.genes:
            y = elastic_depthwise(x, kernel, context.genes["kernel"], self.kernels, self.stride)
        else:
            y = depthwise(x, kernel, self.stride)
        return measure("depthwise_norm", y, context)

    def _project(self, params: Params, inputs: tuple, context: Context) -> Measured:
        x = norm("depthwise_norm", inputs[-1], params, self.activation, context)
        if "squeeze_excite" in params:
            x = _squeeze_excite(x, **params["squeeze_excite"])
        return measure("project_norm", pointwise(x, params["project"]), context)

    def _finish(self, params: Params, inputs: tuple, context: Context) -> jax.Array:
        y = norm("project_norm", inputs[-1], params, None, context)
        return inputs[0] + y if self.adds else y


def pointwise(x: Float[Array, "b h w c"], params: Params) -> Float[Array, "b h w d"]:
    """Computes a 1x1 convolution of x [b, h, w, c] as one matrix product."""
    return (x.reshape(-1, x.shape[-1]) @ params["kernel"]).reshape(*x.shape[:-1], -1)


def measure(name: str, product: Float[Array, "b h w c"], context: Context) -> Measured:
    """Returns the product with its moments, or those of the context under `name`; the context collects them."""
    used = moments(product) if context.statistics is None else context.statistics[name]
    if context.collected is not None:
        context.collected[name] = used
    return Measured(product, used)


def norm(name: str, x: Measured, params: Params, activation: str | None, context: Context) -> Float[Array, "b h w c"]:
    """Computes the activation of the batch norm of a measured product."""
    return (normalise if context.statistics is None else normalise_with)(*x, params[name], activation)


def _squeeze_excite(x: jax.Array, reduce: Params, widen: Params) -> jax.Array:
    y = jnp.maximum(linear(jnp.mean(x, axis=(1, 2)), reduce), 0)
    return x * jax.nn.hard_sigmoid(linear(y, widen))[:, None, None]
