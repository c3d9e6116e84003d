"""The elastic NAS-Bench-201 network: edges choose an operation, cells run under a loop, residual blocks join stages.

The stream is the tuple of a cell's nodes: an edge adds to the node that it leads to, and at the end of a cell its last
node becomes the first of the next one.

References:
    Dong, Yang. NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search. ICLR 2020,
    arXiv:2001.00326.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from search_spaces import Architecture, NASBench201Space
from search_spaces.nas_bench_201 import EDGES, NODES, TAPS, edge_name
from search_spaces.sealed_json import JsonObject
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import SUPERNETS, Params
from supernet.families.bottleneck import Measured, measure, norm, pointwise
from supernet.layers.linear import linear
from supernet.standalone.nas_bench_201 import convolve, halve, smooth

Nodes = tuple[Float[Array, "b h w d"], ...]


@SUPERNETS.register("nas_bench_201")
class NASBench201Supernet(ElasticNetwork):
    """Each edge of a cell is a switch over its operations; all cells of a stage run under one loop."""

    space: NASBench201Space
    first_entry_alone = True

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        """See `ElasticNetwork.stages`."""
        stages: dict[str, Sequence[Stage]] = {"reduction": tuple(map(Stage, _REDUCTION)), "close": (Stage(_close),)}
        for target, source in EDGES:
            name = edge_name((target, source))
            add = partial(_add, source, target)
            stages[f"{name}/skip"] = (Stage(partial(add, lambda x: x)),)
            stages[f"{name}/pool_3x3"] = (Stage(partial(add, smooth)),)
            for operation in TAPS:
                chain = partial(_convolve, source), partial(_finish, target)
                stages[f"{name}/{operation}"] = tuple(map(Stage, chain))
        return stages

    def embed(self, params: Params, x: Float[Array, "b h w c"], context: Context) -> Nodes:
        """See `ElasticNetwork.embed`."""
        measured = measure("stem_norm", convolve(x, params["stem"]["kernel"]), context)
        return _nodes(norm("stem_norm", measured, params, None, context))

    def head(self, params: Params, x: Nodes, context: Context) -> Float[Array, "b c"]:
        """See `ElasticNetwork.head`."""
        y = norm("final_norm", measure("final_norm", x[0], context), params, "relu", context)
        return linear(jnp.mean(y, axis=(1, 2)), params["classifier"])

    def config(self, architecture: Architecture) -> JsonObject:
        """See `Supernet.config`."""
        s = self.space
        same = ("width", "cells", "stages", "channels", "classes")
        operations = [architecture.description[choice.name] for choice in s.choices]
        return {"operations": operations, **{name: getattr(s, name) for name in same}}


def _nodes(first: jax.Array) -> Nodes:
    return first, *[jnp.zeros_like(first)] * (NODES - 1)


def _plus(nodes: Nodes, target: int, summand: jax.Array) -> Nodes:
    return *nodes[:target], nodes[target] + summand, *nodes[target + 1 :]


def _add(source: int, target: int, operation: Any, params: Params, inputs: tuple, context: Context) -> Nodes:
    return _plus(inputs[0], target, operation(inputs[0][source]))


def _convolve(source: int, params: Params, inputs: tuple, context: Context) -> Measured:
    return measure("conv_norm", convolve(jax.nn.relu(inputs[0][source]), params["conv"]["kernel"]), context)


def _finish(target: int, params: Params, inputs: tuple, context: Context) -> Nodes:
    return _plus(inputs[0], target, norm("conv_norm", inputs[1], params, None, context))


def _close(params: Params, inputs: tuple, context: Context) -> Nodes:
    return _nodes(inputs[0][-1])


def _reduce(params: Params, inputs: tuple, context: Context) -> Measured:
    return measure("first_norm", convolve(jax.nn.relu(inputs[0][0]), params["first"]["kernel"], 2), context)


def _continue(params: Params, inputs: tuple, context: Context) -> Measured:
    y = jax.nn.relu(norm("first_norm", inputs[1], params, None, context))
    return measure("second_norm", convolve(y, params["second"]["kernel"]), context)


def _join(params: Params, inputs: tuple, context: Context) -> Nodes:
    shortcut = pointwise(halve(inputs[0][0]), params["shortcut"])
    return _nodes(shortcut + norm("second_norm", inputs[2], params, None, context))


_REDUCTION = (_reduce, _continue, _join)
