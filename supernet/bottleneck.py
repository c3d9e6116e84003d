"""The elastic inverted bottleneck as stages of the engine: expand, convolve, project, finish.

Kept between stages are the three products before their batch norms, and these norms' moments; normalised and
activated maps are computed again in the backward pass.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from supernet.batch_norm import BATCH_NORM_EPSILON, Moments, activate, moments, normalise, normalise_with
from supernet.depthwise import depthwise
from supernet.elastic_depthwise import centre, elastic_depthwise
from supernet.supernet import Params
from supernet.switch import Context, Stage


class Size(NamedTuple):
    """Static size of a block: channels of its depthwise convolution; inside squeeze-and-excite (0: there is none);
    and its kernel, None where `Context.genes` selects it."""

    hidden: int
    squeezed: int
    kernel: int | None


class Measured(NamedTuple):
    """A product [..., c] and the moments [c] to normalise it with."""

    product: jax.Array
    moments: Moments


@dataclass(frozen=True)
class Bottleneck:
    """What all sizes of a block have in common.

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
        """The engine's stages; input and output are [b, h, w, c], sizes are `Size`."""
        expand = (Stage(self._expand),) if self.expands else ()
        return *expand, Stage(self._convolve), Stage(self._project), Stage(self._finish)

    def _expand(self, params: Params, inputs: tuple, size: Size, context: Context) -> Measured:
        (x,) = inputs
        y = x.reshape(-1, x.shape[-1]) @ params["expand"]["kernel"][:, : size.hidden]
        return measure("expand_norm", y.reshape(*x.shape[:-1], -1), context)

    def _convolve(self, params: Params, inputs: tuple, size: Size, context: Context) -> Measured:
        x = inputs[-1]
        if self.expands:
            x = norm("expand_norm", x, params, self.activation, context)
        kernel = params["depthwise"]["kernel"][..., : size.hidden]
        if size.kernel is None:
            y = elastic_depthwise(x, kernel, context.genes, self.kernels, self.stride)
        else:
            y = depthwise(x, centre(kernel, size.kernel), self.stride)
        return measure("depthwise_norm", y, context)

    def _project(self, params: Params, inputs: tuple, size: Size, context: Context) -> Measured:
        x = norm("depthwise_norm", inputs[-1], params, self.activation, context)
        if size.squeezed:
            x = _squeeze_excite(x, params["squeeze_excite"], size)
        y = x.reshape(-1, size.hidden) @ params["project"]["kernel"][: size.hidden]
        return measure("project_norm", y.reshape(*x.shape[:-1], -1), context)

    def _finish(self, params: Params, inputs: tuple, size: Size, context: Context) -> jax.Array:
        y = norm("project_norm", inputs[-1], params, None, context)
        return inputs[0] + y if self.adds else y


def measure(name: str, product: jax.Array, context: Context) -> Measured:
    """The product with its own moments, or with those that the context gives under `name`; the context collects."""
    width = product.shape[-1]
    if context.statistics is None:
        used = moments(product)
    else:
        used = {key: leaf[:width] for key, leaf in context.statistics[name].items()}
    if context.collected is not None:
        context.collected[name] = used
    return Measured(product, used)


def norm(name: str, x: Measured, params: Params, activation: str | None, context: Context) -> jax.Array:
    """Activation of the batch norm of a measured product."""
    scale_and_bias = {key: leaf[: x.product.shape[-1]] for key, leaf in params[name].items()}
    return (normalise if context.statistics is None else normalise_with)(*x, scale_and_bias, activation)


def _squeeze_excite(x: jax.Array, params: Params, size: Size) -> jax.Array:
    hidden, squeezed = size.hidden, size.squeezed
    reduce, widen = params["reduce"], params["widen"]
    y = jnp.mean(x, axis=(1, 2)) @ reduce["kernel"][:hidden, :squeezed] + reduce["bias"][:squeezed]
    y = jnp.maximum(y, 0) @ widen["kernel"][:squeezed, :hidden] + widen["bias"][:hidden]
    return x * jax.nn.hard_sigmoid(y)[:, None, None]


# ---------------------------------------------------------------- the reference


def masked_bottleneck(
    block: Bottleneck, params: Params, x: jax.Array, kernel: jax.Array, hidden: jax.Array, squeezed: jax.Array,
    statistics: dict[str, Moments] | None,
) -> jax.Array:  # fmt: skip
    """The block at full size with zeroed channels and kernel edges, and JAX's own gradient throughout.

    Args:
        block: What all sizes have in common.
        params: Full-size weights.
        x: Input [b, h, w, c].
        kernel: Active kernel size, int32 scalar.
        hidden: Active channels, int32 scalar.
        squeezed: Active channels inside squeeze-and-excite, int32 scalar.
        statistics: Moments to normalise with; None takes the batch's own.
    """
    y, on = x, True
    if block.expands:
        y = y @ params["expand"]["kernel"]
        on = jnp.arange(y.shape[-1]) < hidden
        y = masked_norm("expand_norm", y, params, block.activation, statistics) * on
    full = params["depthwise"]["kernel"]
    offset = jnp.abs(jnp.arange(len(full)) - len(full) // 2)
    inside = (offset <= kernel // 2)[:, None] & (offset <= kernel // 2)
    y = depthwise(y, full * inside[..., None], block.stride)
    y = masked_norm("depthwise_norm", y, params, block.activation, statistics) * on
    if "squeeze_excite" in params:
        reduce, widen = params["squeeze_excite"]["reduce"], params["squeeze_excite"]["widen"]
        z = jax.nn.relu(y.mean(axis=(1, 2)) @ reduce["kernel"] + reduce["bias"])
        z = z * (jnp.arange(z.shape[-1]) < squeezed)
        y = y * jax.nn.hard_sigmoid(z @ widen["kernel"] + widen["bias"])[:, None, None]
    y = masked_norm("project_norm", y @ params["project"]["kernel"], params, None, statistics)
    return x + y if block.adds else y


def masked_norm(
    name: str, x: jax.Array, params: Params, activation: str | None, statistics: dict[str, Moments] | None
) -> jax.Array:
    """Activation of the batch norm of x [b, h, w, c], by the textbook formula."""
    own = {"mean": x.mean(axis=(0, 1, 2)), "var": x.var(axis=(0, 1, 2))}
    used = own if statistics is None else statistics[name]
    z = (x - used["mean"]) / jnp.sqrt(used["var"] + BATCH_NORM_EPSILON)
    return activate(z * params[name]["scale"] + params[name]["bias"], activation)
