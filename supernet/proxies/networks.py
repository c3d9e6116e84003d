"""Networks that proxies score: those of a supernet, told apart by genes, or a plain Flax module."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, Float, Int, Shaped

from search_spaces import Program
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.supernet import Params
from supernet.flax_modules.counting import counted
from supernet.layers.batch_norm import moments, normalise
from supernet.standalone.mobilenet import BatchNorm
from supernet.weights.cuts import Tree

Genes = Int[np.ndarray, " g"]
Forward = Callable[[Params, Shaped[Array, "b ..."]], Float[Array, "b *t c"]]
KERNEL = "kernel"
"""Last part of the names of the weights that proxies are about: those of convolutions and dense layers."""


class Networks(ABC):
    """Networks of one set of weights. Batch norms use the batch's own statistics."""

    @abstractmethod
    def weights(self, genes: Genes) -> Params:
        """Returns the effective weights of a network, as large as the largest one needs."""

    @abstractmethod
    def apply(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> Float[Array, "b *t c"]:
        """Logits of the network of `genes`, which may be traced: one program serves all networks of `program`."""

    @abstractmethod
    def straight(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> Float[Array, "b *t c"]:
        """Computes what `apply` does, without branches: what a network leaves out is zero."""

    @abstractmethod
    def measured(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> tuple[Float[Array, "b *t c"], list[Float[Array, "... _c"]]]:
        """Logits, and of each batch norm the variances [..., c] of the batch; 0 for what a network leaves out."""

    def lacks_blocks(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> str | None:
        """Returns why `blocks` is not known, to end a message that begins with `needs`; None where it is."""
        return "blocks, and of a plain network none are known"

    def blocks(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> tuple[Tree, list[Callable[[Tree], Tree]]]:
        """Returns the embedded stream, and the blocks, each of which maps a stream to the next one."""
        raise NotImplementedError(f"{type(self).__name__} has no blocks")

    @abstractmethod
    def static(self, genes: Genes) -> Forward:
        """Returns the pass of one network as a function of weights and inputs, without loops and branches."""

    @abstractmethod
    def kernels(self, tree: Params, genes: Genes) -> list[Float[Array | np.ndarray, "... _o"]]:
        """Returns the kernels of a network's convolutions and dense layers, of its weights or of a gradient, in order.

        The last axis of each are its outputs.
        """

    @abstractmethod
    def program(self, genes: Genes) -> Program:
        """Returns the values of a network that are known when its program is traced."""

    @abstractmethod
    def costs(self, genes: Genes) -> dict[str, int]:
        """Returns `params` and `macs` of a network."""


class SupernetNetworks(Networks):
    """The networks of a supernet.

    Args:
        net: The supernet.
        params: Its weights, at initialisation.
    """

    def __init__(self, net: ElasticNetwork, params: Params) -> None:
        self._params, self._space = params, net.space
        self._effective = jax.jit(net.sharing.effective)
        self._net = cast("ElasticNetwork", net.of_effective_weights)

    def weights(self, genes: Genes) -> Params:
        return self._effective(self._params, jnp.asarray(genes, jnp.int32))

    def apply(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> Float[Array, "b *t c"]:
        return self._net.apply(weights, genes, x, program=program)[0]

    def straight(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> Float[Array, "b *t c"]:
        return self._net.apply_masked(weights, genes, x, program=program)

    def measured(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> tuple[Float[Array, "b *t c"], list[Float[Array, "... _c"]]]:
        logits, collected = self._net.apply(weights, genes, x, program=program, collect=True)
        found: dict[tuple, Any] = traverse_util.flatten_dict(collected)
        return logits, [leaf for path, leaf in found.items() if path[-1] == "var"]

    def lacks_blocks(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> str | None:
        if self._net.stacks_are_chained:
            # A stream of several arrays has no one whose change from block to block says what the blocks do.
            stream = jax.eval_shape(lambda weights: self.blocks(weights, genes, x, program)[0], weights)
            if self._net.first_entry_alone or len(jax.tree.leaves(stream)) == 1:
                return None
        return "blocks that each read the one before alone, and these networks have others"

    def blocks(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> tuple[Tree, list[Callable[[Tree], Tree]]]:
        return self._net.in_stacks(weights, genes, x, program)

    def static(self, genes: Genes) -> Forward:
        architecture = self._space.architecture(genes)
        return lambda weights, x: self._net.apply_sliced(weights, architecture, x)

    def kernels(self, tree: Params, genes: Genes) -> list[Float[Array | np.ndarray, "... _o"]]:
        layout, space = self._net.weights, self._space
        program = dict(zip((c.name for c in space.choices if c.selects_program), space.program(genes), strict=True))
        parts = [layout.taken(tree, space.network.outside_layers, program)]
        for stack, index, values in space.active_layers(space.architecture(genes)):
            layer = layout.layer(tree, stack, index)
            parts += [layout.taken(layer, sublayer, values) for sublayer in stack.sublayers if sublayer.on(values)]
        return [leaf for part in parts for leaf in kernels_of(part)]

    def program(self, genes: Genes) -> Program:
        return self._space.program(genes)

    def costs(self, genes: Genes) -> dict[str, int]:
        found = self._space.cost(np.asarray(genes, np.int32)[None])
        return {metric: int(found[metric][0]) for metric in ("params", "macs")}


class PlainNetwork(Networks):
    """One Flax module; genes mean nothing.

    Args:
        module: The module, which takes a batch. It is copied; batch norms of the copy use the batch's own statistics.
        example: Shape and type of one input.
    """

    def __init__(self, module: nnx.Module, example: jax.ShapeDtypeStruct) -> None:
        copy: Any = nnx.merge(*nnx.split(module))
        copy.train()
        for _, part in nnx.iter_graph(copy):
            if type(part) in _FRESH:
                part.__class__ = _FRESH[type(part)]
        self._graph, self._params, self._rest = nnx.split(copy, nnx.Param, ...)
        self._example = jax.ShapeDtypeStruct((1, *example.shape), example.dtype)

    def weights(self, genes: Genes) -> Params:
        return nnx.to_pure_dict(self._params)

    def apply(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> Float[Array, "b *t c"]:
        return self._forward(weights, x)

    def straight(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> Float[Array, "b *t c"]:
        return self._forward(weights, x)

    def measured(
        self, weights: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], program: Program
    ) -> tuple[Float[Array, "b *t c"], list[Float[Array, "... _c"]]]:
        token = _MEASURED.set([])
        try:
            return self._forward(weights, x), _MEASURED.get() or []
        finally:
            _MEASURED.reset(token)

    def static(self, genes: Genes) -> Forward:
        return self._forward

    def _forward(self, weights: Params, x: jax.Array) -> jax.Array:
        params, rest = (jax.tree.map(lambda leaf: leaf, state) for state in (self._params, self._rest))
        nnx.replace_by_pure_dict(params, weights)
        module: Any = nnx.merge(self._graph, params, rest)
        return module(x)

    def kernels(self, tree: Params, genes: Genes) -> list[Float[Array | np.ndarray, "... _o"]]:
        return kernels_of(tree)

    def program(self, genes: Genes) -> Program:
        return ()

    def costs(self, genes: Genes) -> dict[str, int]:
        weights = self.weights(genes)
        params = sum(leaf.size for leaf in jax.tree.leaves(weights))
        return {"params": params, "macs": counted(self._forward, weights, self._example).macs}


def kernels_of(tree: Params) -> list[Float[Array | np.ndarray, "... _o"]]:
    """Returns the kernels in a tree of weights."""
    flat: dict[tuple, Any] = traverse_util.flatten_dict(tree)
    return [leaf for path, leaf in flat.items() if str(path[-1]) == KERNEL]


_MEASURED: ContextVar[list[jax.Array] | None] = ContextVar("measured", default=None)
"""Where the batch norms of a plain network leave the variances of the batch."""


def _fresh(x: jax.Array, scale: Any, bias: Any, activation: str | None) -> jax.Array:
    found = moments(x)
    if (seen := _MEASURED.get()) is not None:
        seen.append(found["var"])
    ends = jnp.ones(x.shape[-1]), jnp.zeros(x.shape[-1])
    params = [end if given is None else given[...] for end, given in zip(ends, (scale, bias), strict=True)]
    return normalise(x, found, dict(zip(("scale", "bias"), params, strict=True)), activation)


class _FreshBatchNorm(BatchNorm):
    def __call__(self, x: jax.Array) -> jax.Array:
        return _fresh(x, self.scale, self.bias, self.activation)


class _FreshFlaxBatchNorm(nnx.BatchNorm):
    def __call__(self, x: jax.Array, *_: Any, **__: Any) -> jax.Array:
        return _fresh(x, self.scale, self.bias, None)


_FRESH: dict[type, type] = {BatchNorm: _FreshBatchNorm, nnx.BatchNorm: _FreshFlaxBatchNorm}
