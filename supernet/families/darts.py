"""The elastic DARTS network: edges choose an operation, and all edges of a cell run under one loop.

Between cells the stream is the pair of the last two outputs, inside a cell the `Graph` of its nodes. A reduction cell
has two loops, as its edges from inputs halve the sides.

References:
    Liu, Simonyan, Yang. DARTS: Differentiable Architecture Search. ICLR 2019, arXiv:1806.09055.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from search_spaces import Architecture, DARTSSpace
from search_spaces.darts import SIDES, STRIDED
from search_spaces.sealed_json import JsonObject
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import SUPERNETS, Params
from supernet.engine.views import Graph
from supernet.families.bottleneck import Measured, measure, norm, pointwise
from supernet.layers.depthwise import depthwise
from supernet.layers.dilated import dilated_depthwise
from supernet.layers.linear import linear
from supernet.layers.pooling import max_pool, mean_pool
from supernet.standalone.darts import every_second
from supernet.standalone.nas_bench_201 import convolve

Outputs = tuple[Float[Array, "b i j d"], Float[Array, "b k l e"]]
"""Outputs of the cell before the last one, and of the last one."""
Ends = tuple[Float[Array, "b i j c"], Float[Array, "b h w c"]]
"""The sum in the node that an edge adds to, and the node that it reads."""


@SUPERNETS.register("darts")
class DARTSSupernet(ElasticNetwork):
    """Each edge of a cell has weights of its own for each operation."""

    space: DARTSSpace

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        """See `ElasticNetwork.stages`."""
        stages: dict[str, Sequence[Stage]] = {"close": (Stage(partial(_close, self.space.nodes)),)}
        for name, strides in (("normal", False), ("reduction", True)):
            chain = partial(_enter, False), partial(_open, self.space.nodes, strides)
            stages[f"enter/{name}"] = tuple(map(Stage, chain))
            stages[f"enter/{name}/halved"] = Stage(partial(_enter, True)), *stages[f"enter/{name}"][1:]
        for path, stride in (("", 1), (STRIDED, 2)):
            for operation, side in SIDES.items():
                chain = _separable(side, stride) if operation.startswith("sep") else _dilated(side, stride)
                stages[f"{path}{operation}"] = chain
            stages[f"{path}max_pool_3x3"] = (Stage(partial(_pool, max_pool, stride)),)
            stages[f"{path}avg_pool_3x3"] = (Stage(partial(_pool, mean_pool, stride)),)
        stages["skip_connect"] = (Stage(_skip),)
        stages[f"{STRIDED}skip_connect"] = Stage(_halve), Stage(partial(_finish, "skip_norm"))
        return stages

    def embed(self, params: Params, x: Float[Array, "b h w c"], context: Context) -> Outputs:
        """See `ElasticNetwork.embed`."""
        measured = measure("stem_norm", convolve(x, params["stem"]["kernel"]), context)
        y = norm("stem_norm", measured, params, None, context)
        return y, y

    def head(self, params: Params, x: Outputs, context: Context) -> Float[Array, "b c"]:
        """See `ElasticNetwork.head`."""
        return linear(jnp.mean(x[1], axis=(1, 2)), params["classifier"])

    def config(self, architecture: Architecture) -> JsonObject:
        """See `Supernet.config`."""
        s = self.space
        cells = {kind: [list(edge) for edge in edges] for kind, edges in s.genotype(architecture).items()}
        same = ("cells", "width", "stem_multiplier", "channels", "classes")
        return {**cells, **{name: getattr(s, name) for name in same}}


# ---------------------------------------------------------------- cells


def _enter(halved: bool, params: Params, inputs: tuple, context: Context) -> tuple[Measured, Measured]:
    """Prepares both inputs of a cell, but for their batch norms."""
    first, second = map(jax.nn.relu, inputs[0])
    y = _halves(first, params, "first") if halved else pointwise(first, params["first"])
    return measure("first_norm", y, context), measure("second_norm", pointwise(second, params["second"]), context)


def _open(nodes: int, reduces: bool, params: Params, inputs: tuple, context: Context) -> Graph:
    """The cell with its inputs, before any edge."""
    prepared = jnp.stack([
        norm(f"{name}_norm", measured, params, None, context)
        for name, measured in zip(("first", "second"), inputs[1], strict=True)
    ])  # fmt: skip
    last = inputs[0][1]
    if not reduces:
        return Graph(jnp.pad(prepared, [(0, nodes), *[(0, 0)] * 4]), None, last)
    batch, height, width, channels = prepared.shape[1:]
    return Graph(jnp.zeros((nodes, batch, -(-height // 2), -(-width // 2), channels), prepared.dtype), prepared, last)


def _close(nodes: int, params: Params, inputs: tuple, context: Context) -> Outputs:
    graph = inputs[0]
    return graph.carried, jnp.concatenate(list(graph.nodes[-nodes:]), axis=-1)


# ---------------------------------------------------------------- edges


def _separable(side: int, stride: int) -> tuple[Stage, ...]:
    def first(params: Params, inputs: tuple, context: Context) -> Measured:
        return _convolved("first", depthwise, side, stride, jax.nn.relu(inputs[0][1]), params, context)

    def second(params: Params, inputs: tuple, context: Context) -> Measured:
        x = norm("first_norm", inputs[1], params, "relu", context)
        return _convolved("second", depthwise, side, 1, x, params, context)

    return Stage(first), Stage(second), Stage(partial(_finish, "second_norm"))


def _dilated(side: int, stride: int) -> tuple[Stage, ...]:
    def convolve(params: Params, inputs: tuple, context: Context) -> Measured:
        return _convolved("dilated", dilated_depthwise, side, stride, jax.nn.relu(inputs[0][1]), params, context)

    return Stage(convolve), Stage(partial(_finish, "dilated_norm"))


def _convolved(
    name: str,
    function: Callable[..., jax.Array],
    side: int,
    stride: int,
    x: jax.Array,
    params: Params,
    context: Context,
) -> Measured:
    kernel = params[f"{name}_depthwise"]["kernel"].reshape(side, side, -1)
    return measure(f"{name}_norm", pointwise(function(x, kernel, stride), params[name]), context)


def _halves(x: jax.Array, params: Params, name: str) -> jax.Array:
    even, odd = every_second(x)
    return jnp.concatenate([pointwise(even, params[f"{name}_even"]), pointwise(odd, params[f"{name}_odd"])], axis=-1)


def _halve(params: Params, inputs: tuple, context: Context) -> Measured:
    return measure("skip_norm", _halves(jax.nn.relu(inputs[0][1]), params, "skip"), context)


def _finish(name: str, params: Params, inputs: tuple, context: Context) -> Ends:
    total, read = inputs[0]
    return total + norm(name, inputs[-1], params, None, context), read


def _pool(function: Callable[..., jax.Array], stride: int, params: Params, inputs: tuple, context: Context) -> Ends:
    total, read = inputs[0]
    return total + function(read, stride), read


def _skip(params: Params, inputs: tuple, context: Context) -> Ends:
    total, read = inputs[0]
    return total + read, read
