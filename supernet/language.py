"""The elastic language model: layers under one loop, each sublayer a switch over its own sizes.

References:
    Chen et al. AutoFormer: Searching Transformers for Visual Recognition. ICCV 2021, arXiv:2107.00651 (entanglement).
    Taghibakhshi et al. Nemotron Elastic: Towards Efficient Many-in-One Reasoning LLMs. 2025, arXiv:2511.16664.
    Differs: what is sampled is computed alone, where that masks; no router.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from search_spaces import Architecture, LanguageSpace, Program
from supernet import attention
from supernet.language_masked import masked_logits
from supernet.normalisation import rms_norm
from supernet.passes import wide
from supernet.rotary import rotate
from supernet.standalone.language import ACTIVATIONS, normalise
from supernet.supernet import SUPERNETS, Params, Statistics, Supernet
from supernet.switch import Context, Stage, Sublayer, layered, run


@SUPERNETS.register("language")
class LanguageSupernet(Supernet):
    """Weights: the plain module's state at the largest sizes, layers stacked on a leading axis, and the axes of heads
    split into [kv heads, queries, head size] (queries, output) and [kv heads, head size] (keys, values), so that fewer
    of each are a prefix.

    Inputs are tokens int32[b, t], logits float32[b, t, v]; t need not be `context`.
    """

    stacked = "layers"
    has_precisions = True
    space: LanguageSpace

    def init(self, key: jax.Array) -> Params:
        """Fresh weights of the largest subnet, stacked."""
        plain = nnx.to_pure_dict(nnx.state(self.module(self.space.largest, nnx.Rngs(key))))
        layers = plain.pop("layers")
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(layers[i] for i in sorted(layers)))
        groups, size = self.space.kv_heads[-1], self.space.head_size
        attend = stacked["attention"]
        for name, shape in {"q": (groups, -1, size), "k": (groups, size), "v": (groups, size)}.items():
            attend[name] = jax.tree.map(lambda leaf, s=shape: leaf.reshape(*leaf.shape[:-1], *s), attend[name])
        kernel = attend["out"]["kernel"]
        attend["out"]["kernel"] = kernel.reshape(len(kernel), groups, -1, size, kernel.shape[-1])
        return {**plain, "layers": stacked}

    # ---------------------------------------------------------------- forward passes

    def apply(
        self,
        params: Params,
        genes: jax.Array,
        x: jax.Array,
        *,
        program: Program,
        statistics: Statistics | None = None,
        collect: bool = False,
    ) -> tuple[jax.Array, Statistics]:
        """See `Supernet.apply`; there are no batch statistics."""
        del statistics, collect
        space, (width,) = self.space, program
        params = _narrow(self.sharing(params, genes), int(width))
        positions = jnp.asarray(space.positions_of)[genes[int(space.columns["depth"])]]

        def by_layer(choice: str) -> jax.Array:
            return genes[space.columns_by_position(choice)][positions]

        heads = by_layer("kv_heads") * len(space.queries) + by_layer("queries")
        heads, hidden = (jnp.where(positions < 0, -1, gene) for gene in (heads, by_layer("mlp_width")))
        return self.forward(params, heads, hidden, x), {}

    def forward(self, params: Params, heads: jax.Array, hidden: jax.Array, x: jax.Array) -> jax.Array:
        """Logits of the network with these layers.

        Args:
            params: Effective weights, as wide as the stream.
            heads: For each layer, which pair of kv heads and queries; -1 for a layer that is left out. int32[l].
            hidden: For each layer, which MLP width; -1 for a layer that is left out. int32[l].
            x: int32[b, t].
        """
        space = self.space
        sizes = [(groups, queries) for groups in space.kv_heads for queries in space.queries]
        attend, mlp = self.attention(*x.shape), self.mlp()

        sublayers = (Sublayer(self.kept(attend), sizes), Sublayer(self.kept(mlp), space.mlp_width))
        weights = (params["layers"]["attention"], params["layers"]["mlp"])
        stream = layered(sublayers, (heads, hidden), weights, self.embed(params, x), space.parallel)
        return self.logits(params, stream, x.shape)

    def apply_sliced(
        self, params: Params, architecture: Architecture, x: jax.Array, statistics: Statistics | None = None
    ) -> jax.Array:
        """See `Supernet.apply_sliced`."""
        del statistics
        width, layers = self._sizes(architecture)
        params = _narrow(self.sharing(params, jnp.asarray(architecture.genes, jnp.int32)), width)
        stream = self.embed(params, x)
        attend, mlp = self.attention(*x.shape), self.mlp()
        for i, *heads, hidden in layers:
            weights = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
            y = (stream, stream) if self.space.parallel else stream
            y = run(attend, weights["attention"], y, heads, Context())
            y = run(mlp, weights["mlp"], y, hidden, Context())
            stream = y[0] if self.space.parallel else y
        return self.logits(params, stream, x.shape)

    def apply_masked(
        self, params: Params, genes: jax.Array, x: jax.Array, *, program: Program, statistics: Statistics | None = None
    ) -> jax.Array:
        """See `Supernet.apply_masked`; the width is masked too, so `program` is not needed."""
        del program, statistics
        return masked_logits(self.space, self.sharing(params, genes), genes, x)

    # ---------------------------------------------------------------- pieces

    def embed(self, params: Params, tokens: jax.Array) -> jax.Array:
        """Tokens int32[b, t] to the stream float32[b * t, d]."""
        x = params["embedding"][tokens]
        if "position" in params:
            x = x + params["position"][: tokens.shape[1]]
        if "token_type" in params:
            x = x + params["token_type"][0]
        x = x.reshape(-1, x.shape[-1])
        return normalise(self.space, x, params["norm"]) if self.space.post_norm else x

    def features(self, params: Params, x: jax.Array) -> jax.Array:
        """The stream behind the last layer to what the output projection reads, float[b * t, d]."""
        space = self.space
        x = x if space.post_norm else normalise(space, x, params["norm"])
        if space.head_transform:
            dense = wide(_linear(x.astype(self.passes.dtype), params["transform"]["dense"]))
            x = normalise(space, ACTIVATIONS[space.activation](dense), params["transform"]["norm"])
        return x.astype(self.passes.dtype)

    def logits(self, params: Params, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The stream behind the last layer to logits float32[b, t, v]; `shape` is [b, t]."""
        space, x = self.space, self.features(params, x)
        table = params["embedding" if space.tied else "head"]
        logits = jnp.matmul(x, table.astype(x.dtype).T, preferred_element_type=table.dtype)
        return (logits + params["head_bias"] if space.head_transform else logits).reshape(*shape, -1)

    def read(self, params: Params, x: Any) -> jax.Array:
        """What a sublayer computes with, of its input."""
        source = x[1] if self.space.parallel else x
        source = source if self.space.post_norm else normalise(self.space, source, params["norm"])
        return source.astype(self.passes.dtype)

    def _added(self, x: Any, update: jax.Array) -> Any:
        return (x[0] + update, x[1]) if self.space.parallel else x + update

    def _chain(self, *stages: Stage) -> tuple[Stage, ...]:
        """The stages, and behind them the norm of a network that normalises after each sublayer."""

        def settle(params: Params, inputs: tuple, size: Any, context: Context) -> jax.Array:
            return normalise(self.space, inputs[-1], params["norm"])

        return (*stages, Stage(settle)) if self.space.post_norm else stages

    def attention(self, b: int, t: int) -> tuple[Stage, ...]:
        """Attention over b sequences of t tokens: queries, keys and values; probabilities; what is added."""
        space, size = self.space, self.space.head_size

        def project(params: Params, inputs: tuple, heads: tuple[int, int], context: Context) -> tuple:
            groups, queries = heads
            params = cut_attention(params, *heads)
            parts = [params[name] for name in ("q", "k", "v")]
            fused = {name: jnp.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
            y = _linear(self.read(params, inputs[0]), fused).reshape(b, t, groups * (queries + 2), size)
            y = y.swapaxes(1, 2)
            q, k, v = jnp.split(y, [groups * queries, groups * (queries + 1)], axis=1)
            if space.qk_norm:
                q, k = (rms_norm(a, params[f"{n}_norm"], space.norm_epsilon) for a, n in ((q, "q"), (k, "k")))
            if space.positions == "rope":
                q, k = (rotate(a, jnp.arange(t), space.frequencies) for a in (q, k))
            return q.reshape(b, groups, queries, t, size), k, v

        # The queries of a group are rows of one product with its keys.
        def flat(projected: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
            q, k, v = projected
            return q.reshape(-1, q.shape[2] * t, size), k.reshape(-1, t, size), v.reshape(-1, t, size)

        def attend(params: Params, inputs: tuple, heads: tuple[int, int], context: Context) -> jax.Array:
            q, k, _ = flat(inputs[1])
            seen = jnp.tile(jnp.tri(t, dtype=bool), (heads[1], 1)) if space.causal else None
            return attention.probabilities(q, k, seen).reshape(b, *heads, t, t)

        def attend_gradient(
            params: Params, inputs: tuple, output: jax.Array, g: jax.Array, heads: tuple[int, int], context: Context
        ) -> tuple[Any, tuple]:
            q, k, _ = flat(inputs[1])
            shape = (len(k), -1, t)
            dq, dk = attention.probabilities_gradient(q, k, output.reshape(shape), g.reshape(shape))
            like_q, like_k, v = inputs[1]
            return None, (None, (dq.reshape(like_q.shape), dk.reshape(like_k.shape), jnp.zeros_like(v)))

        def mix(params: Params, inputs: tuple, heads: tuple[int, int], context: Context) -> Any:
            x, projected, p = inputs
            v = flat(projected)[2]
            mixed = attention.batched_matmul(p.reshape(len(v), -1, t), v)
            mixed = mixed.reshape(b, -1, t, size).swapaxes(1, 2).reshape(b * t, -1)
            return self._added(x, _linear(mixed, cut_attention(params, *heads)["out"]))

        return self._chain(Stage(project), Stage(attend, attend_gradient), Stage(mix))

    def mlp(self) -> tuple[Stage, ...]:
        """The MLP: units before the activation, gate first; what is added."""
        inwards = ("gate", "up") if self.space.activation == "swiglu" else ("up",)
        act = ACTIVATIONS[self.space.activation]

        def expand(params: Params, inputs: tuple, hidden: int, context: Context) -> tuple[jax.Array, ...]:
            x, params = self.read(params, inputs[0]), cut_mlp(params, hidden)
            return tuple(_linear(x, params[name]) for name in inwards)

        def contract(params: Params, inputs: tuple, hidden: int, context: Context) -> Any:
            x, (first, *gated) = inputs
            y = act(first) * gated[0] if gated else act(first)
            return self._added(x, _linear(y, cut_mlp(params, hidden)["down"]))

        return self._chain(Stage(expand), Stage(contract))

    # ---------------------------------------------------------------- extraction

    def _sizes(self, architecture: Architecture) -> tuple[int, list[tuple[int, int, int, int]]]:
        """Stream width; and layer, kv heads, queries and MLP width of each layer, in the order of the network."""
        d, space = architecture.description, self.space
        follow = {"kv_heads": space.heads_of(d["width"])} if space.heads_follow_width else {}
        sizes = [{**d, **follow}[name] for name in ("kv_heads", "queries", "mlp_width")]
        sizes = [size if isinstance(size, list) else [size] * d["depth"] for size in sizes]
        return d["width"], sorted(zip(space.layers(d["depth"]), *sizes, strict=True))

    def config(self, architecture: Architecture) -> dict[str, Any]:
        """See `Supernet.config`."""
        width, layers = self._sizes(architecture)
        _, kv_heads, queries, mlp_width = (list(column) for column in zip(*layers, strict=True))
        sizes = {"width": width, "kv_heads": kv_heads, "queries": queries, "mlp_width": mlp_width}
        return {**sizes, "form": self.space.form}

    def example(self, architecture: Architecture) -> jax.ShapeDtypeStruct:
        """See `Supernet.example`: tokens."""
        return jax.ShapeDtypeStruct((self.space.context,), np.int32)

    def slice(self, params: Params, architecture: Architecture, statistics: Statistics) -> Params:
        """See `Supernet.slice`."""
        del statistics
        width, sizes = self._sizes(architecture)
        params = _narrow(params, width)
        layers = {}
        for position, (i, *heads, hidden) in enumerate(sizes):
            layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
            layers[position] = {
                "attention": cut_attention(layer["attention"], *heads),
                "mlp": cut_mlp(layer["mlp"], hidden),
            }
        return {**params, "layers": layers}


def cut_attention(params: Params, groups: int, queries: int) -> Params:
    """The attention of one layer with fewer heads, in the layout of the plain module."""

    def last(tree: Params, *sizes: int) -> Params:
        cut = tuple(slice(size) for size in sizes)
        return jax.tree.map(lambda leaf: leaf[..., *cut, :].reshape(*leaf.shape[: -1 - len(sizes)], -1), tree)

    kernel = params["out"]["kernel"]
    return {
        **params,
        "q": last(params["q"], groups, queries),
        "k": last(params["k"], groups),
        "v": last(params["v"], groups),
        "out": {**params["out"], "kernel": kernel[:groups, :queries].reshape(-1, kernel.shape[-1])},
    }


def cut_mlp(params: Params, hidden: int) -> Params:
    """The MLP of one layer with fewer units."""
    inwards = {name: params[name] for name in ("gate", "up") if name in params}
    return {
        **params,
        **jax.tree.map(lambda leaf: leaf[..., :hidden], inwards),
        "down": {**params["down"], "kernel": params["down"]["kernel"][:hidden]},
    }


def _linear(x: jax.Array, params: Params) -> jax.Array:
    """Computed in the type of x; weights keep theirs, and so do their gradients."""
    y = x @ params["kernel"].astype(x.dtype)
    return y + params["bias"].astype(x.dtype) if "bias" in params else y


def _narrow(params: Params, width: int) -> Params:
    """Cuts every axis that runs along the residual stream to `width`."""
    return along_stream(params, lambda leaf, axis: leaf[(slice(None),) * (axis % leaf.ndim) + (slice(width),)])


def along_stream(params: Params, change: Callable[[Any, int], Any]) -> Params:
    """The weights with `change(leaf, axis)` of every axis that runs along the residual stream."""

    def last(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: change(leaf, -1), tree)

    def reading(tree: Params, axis: int) -> Params:
        return {**tree, "kernel": change(tree["kernel"], axis)}

    ends = ("embedding", "position", "token_type", "norm", "head")
    changed = {**params, **{name: last(params[name]) for name in ends if name in params}}
    if "transform" in params:
        transform = last(params["transform"])
        changed["transform"] = {**transform, "dense": reading(transform["dense"], 0)}
    for name, layer in params["layers"].items():
        inwards = {part: reading(layer[part], 1) for part in ("q", "k", "v", "gate", "up") if part in layer}
        outwards = {part: last(layer[part]) for part in ("norm", "out", "down") if part in layer}
        changed["layers"] = {**changed["layers"], name: {**layer, **inwards, **outwards}}
    return changed
