"""Modules of a deep network: weights of the hybrids that train them one by one, and of the network put together.

A meta-model has one layer a module. In the hybrid of a module, fresh layers stand in its place and those of the
meta-model everywhere else. The trees are those of spaces that `search_spaces.divided` has cut: `MODULE` holds the
layers of the meta-model, or those that a hybrid trains, `BEFORE` and `AFTER` the others.

References:
    Ni et al. Deep Model Assembling. 2022, arXiv:2212.04129 (modular training of large models; later Deep Incubation,
    ICCV 2023). Differs: what both the first and the last module read (an embedding that is the output projection too)
    stays that of the meta-model until all is trained on.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context
from supernet.engine.supernet import Params
from supernet.weights.cuts import Tree, at, put

BEFORE, MODULE, AFTER = "before", "module", "after"
"""Names of the parts of a hybrid's layers."""


class Ends(NamedTuple):
    """Names, at the top of the tree of weights, of those outside the layers.

    Attributes:
        first: Parts that embed the input and that nothing else reads: patches, positions, a class token.
        last: Parts behind the last layer that nothing else reads: a norm, a head.
        shared: Parts that both use, such as an embedding that is the output projection as well.
    """

    first: frozenset[str]
    last: frozenset[str]
    shared: frozenset[str]

    def of(self, module: int, modules: int) -> frozenset[str]:
        """Returns the names that belong to a module: the first one embeds, the last one has the head."""
        own = self.first if module == 0 else frozenset()
        return own | (self.last if module == modules - 1 else frozenset())


def layers_of_hybrid(module: int, modules: int, layers: int) -> dict[str, int]:
    """Returns the parts of a hybrid and their numbers of layers, in the order in which they run.

    Args:
        module: Index of the module that is fresh, from 0.
        modules: Number of modules.
        layers: Layers of each module of the whole network.
    """
    return {BEFORE: module, MODULE: layers, AFTER: modules - 1 - module}


def hybrid_weights(meta: Params, fresh: Params, module: int, ends: Ends) -> Params:
    """Returns the weights that the training of a module starts from.

    Args:
        meta: Weights of the meta-model.
        fresh: Fresh weights of the hybrid.
        module: Index of the module that is fresh, from 0.
        ends: Whose the weights outside the layers are.
    """
    modules = len(jax.tree.leaves(meta[MODULE])[0])
    own = ends.of(module, modules)
    rows = {BEFORE: slice(0, module), AFTER: slice(module + 1, modules)}
    parts = {name: jax.tree.map(lambda leaf, at=at: leaf[at], meta[MODULE]) for name, at in rows.items()}
    outside = {name: (fresh if name in own else meta)[name] for name in meta if name != MODULE}
    return {**outside, MODULE: fresh[MODULE], **{name: part for name, part in parts.items() if name in fresh}}


def assembled_weights(meta: Params, hybrids: Sequence[Params], ends: Ends, path: str) -> Params:
    """Returns the weights of the whole network: the modules one after the other, each end from the module that has it.

    Args:
        meta: Weights of the meta-model.
        hybrids: Weights of the hybrid of each module, trained.
        ends: Whose the weights outside the layers are.
        path: Path of the layers in the whole network.
    """
    modules = [at(hybrid, f"{MODULE}/{path}") for hybrid in hybrids]
    whole: Params = {
        name: (hybrids[0] if name in ends.first else hybrids[-1] if name in ends.last else meta)[name]
        for name in meta
        if name != MODULE
    }
    put(whole, path, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *modules))
    return whole


def ends_of(net: ElasticNetwork) -> Ends:
    """Returns which weights outside the layers `embed` and `head` read, found by tracing them."""
    space = net.space
    example = net.example(space.largest)
    x = jax.ShapeDtypeStruct((1, *example.shape), example.dtype)
    outside = net.weights.own(net.plain_shapes, space.network.outside_layers)
    program = zip((c.name for c in space.choices if c.selects_program), space.program(space.largest.genes), strict=True)
    known = dict(program)

    def embed(params: Tree, x: jax.Array) -> Tree:
        return net.embed(params, x, Context(x.shape, known, input=x))

    def head(params: Tree, stream: Tree, x: jax.Array) -> jax.Array:
        return net.head(params, stream, Context(x.shape, known, input=x))

    first = _read(embed, outside, x)
    last = _read(head, outside, jax.eval_shape(embed, outside, x), x)
    return Ends(first - last, last - first, first & last)


def _read(function: Callable[..., Any], params: Tree, *inputs: Tree) -> frozenset[str]:
    """Names at the top of the parameters whose leaves a function computes something with."""
    jaxpr = jax.make_jaxpr(function)(params, *inputs).jaxpr
    used = {v for eqn in jaxpr.eqns for v in eqn.invars if not isinstance(v, Literal)}
    names = [path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return frozenset(name for name, v in zip(names, jaxpr.invars, strict=False) if v in used)
