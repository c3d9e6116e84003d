"""The elastic vision transformer: layers under one loop, each sublayer a switch over its own sizes.

References:
    Chen et al. AutoFormer: Searching Transformers for Visual Recognition. ICCV 2021, arXiv:2107.00651.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from search_spaces import Architecture, Program, ViTSpace
from supernet import attention
from supernet.normalisation import layer_norm, masked_layer_norm
from supernet.standalone.vit import patches
from supernet.supernet import SUPERNETS, Params, Statistics, Supernet
from supernet.switch import Context, Stage, Sublayer, layered, run


@SUPERNETS.register("vit")
class ViTSupernet(Supernet):
    """Weights: the plain module's state at the largest sizes, layers stacked on a leading axis, and the fused
    projection's axis split into [3, heads * head_dim] so that fewer heads are a prefix."""

    stacked = "layers"
    space: ViTSpace

    def init(self, key: jax.Array) -> Params:
        """Fresh weights of the largest subnet, stacked."""
        plain = nnx.to_pure_dict(nnx.state(self.module(self.space.largest, nnx.Rngs(key))))
        layers = plain.pop("layers")
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(layers[i] for i in sorted(layers)))
        qkv = stacked["attention"]["qkv"]
        stacked["attention"]["qkv"] = jax.tree.map(lambda leaf: leaf.reshape(*leaf.shape[:-1], 3, -1), qkv)
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
        depth = jnp.asarray(space.depth)[genes[int(space.columns["depth"])]]
        active = jnp.arange(space.max_depth) < depth
        heads = jnp.where(active, genes[space.columns["heads"]], -1)
        ratios = jnp.where(active, genes[space.columns["mlp_ratio"]], -1)
        hidden = [space.hidden(int(width), ratio) for ratio in space.mlp_ratio]
        attend, mlp = self._attention(len(x)), _mlp()

        sublayers = (Sublayer(self.kept(attend), space.heads), Sublayer(self.kept(mlp), hidden))
        parts = (("norm1", "attention"), ("norm2", "fc1", "fc2"))
        weights = [{name: params["layers"][name] for name in names} for names in parts]
        stream = layered(sublayers, (heads, ratios), weights, self._embed(params, x))
        return self._classify(params, stream, len(x)), {}

    def apply_sliced(
        self, params: Params, architecture: Architecture, x: jax.Array, statistics: Statistics | None = None
    ) -> jax.Array:
        """See `Supernet.apply_sliced`."""
        del statistics
        genes = jnp.asarray(architecture.genes, jnp.int32)
        width, heads, hidden = self._sizes(architecture)
        params = _narrow(self.sharing(params, genes), width)
        stream = self._embed(params, x)
        attend, mlp = self._attention(len(x)), _mlp()
        for i, (h, m) in enumerate(zip(heads, hidden, strict=True)):
            weights = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
            stream = run(attend, weights, stream, h, Context())
            stream = run(mlp, weights, stream, m, Context())
        return self._classify(params, stream, len(x))

    def apply_masked(
        self, params: Params, genes: jax.Array, x: jax.Array, *, program: Program, statistics: Statistics | None = None
    ) -> jax.Array:
        """See `Supernet.apply_masked`; the width is masked too, so `program` is not needed."""
        del program, statistics
        space = self.space
        params = self.sharing(params, genes)
        width_gene = genes[int(space.columns["width"])]
        width = jnp.asarray(space.width)[width_gene]
        depth = jnp.asarray(space.depth)[genes[int(space.columns["depth"])]]
        heads = jnp.asarray(space.heads)[genes[space.columns["heads"]]]
        hidden_table = np.array([[space.hidden(w, r) for r in space.mlp_ratio] for w in space.width])
        hidden = jnp.asarray(hidden_table)[width_gene, genes[space.columns["mlp_ratio"]]]
        on = jnp.arange(space.width[-1]) < width

        tokens = patches(x, space.patch_size) @ params["patch"]["kernel"] + params["patch"]["bias"]
        if space.class_token:
            first = jnp.broadcast_to(params["class_token"], (len(x), 1, tokens.shape[-1]))
            tokens = jnp.concatenate([first, tokens], axis=1)
        stream = (tokens + params["position"]) * on
        for i in range(space.max_depth):
            layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
            y = masked_layer_norm(stream, layer["norm1"], on, width)
            qkv = jnp.einsum("btd,dsn->sbtn", y, layer["attention"]["qkv"]["kernel"])
            qkv = qkv + layer["attention"]["qkv"]["bias"][:, None, None]
            q, k, v = qkv.reshape(*qkv.shape[:3], space.heads[-1], space.head_dim)
            p = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * space.head_dim**-0.5)
            mixed = jnp.einsum("bhqk,bkhd->bqhd", p, v) * (jnp.arange(space.heads[-1]) < heads[i])[:, None]
            out = layer["attention"]["out"]
            update = (mixed.reshape(*mixed.shape[:2], -1) @ out["kernel"] + out["bias"]) * on
            stream = stream + update * (i < depth)
            y = masked_layer_norm(stream, layer["norm2"], on, width)
            h = nnx.gelu(y @ layer["fc1"]["kernel"] + layer["fc1"]["bias"])
            h = h * (jnp.arange(h.shape[-1]) < hidden[i])
            update = (h @ layer["fc2"]["kernel"] + layer["fc2"]["bias"]) * on
            stream = stream + update * (i < depth)
        stream = masked_layer_norm(stream, params["norm"], on, width)
        pooled = stream[:, 0] if space.class_token else stream.mean(axis=1)
        return pooled @ params["head"]["kernel"] + params["head"]["bias"]

    # ---------------------------------------------------------------- pieces

    def _embed(self, params: Params, x: jax.Array) -> jax.Array:
        b, width = len(x), params["position"].shape[-1]
        flat = patches(x, self.space.patch_size).reshape(-1, self.space.patch_dim)
        tokens = (flat @ params["patch"]["kernel"] + params["patch"]["bias"]).reshape(b, -1, width)
        if self.space.class_token:
            tokens = jnp.concatenate([jnp.broadcast_to(params["class_token"], (b, 1, width)), tokens], axis=1)
        return (tokens + params["position"]).reshape(-1, width)

    def _classify(self, params: Params, stream: jax.Array, batch: int) -> jax.Array:
        stream = stream.reshape(batch, self.space.tokens, -1)
        # The normalisation is per token: the class token alone needs it where it is all that is read.
        stream = layer_norm(stream[:, :1] if self.space.class_token else stream, params["norm"])
        return stream.mean(axis=1) @ params["head"]["kernel"] + params["head"]["bias"]

    def _attention(self, b: int) -> tuple[Stage, ...]:
        t, d = self.space.tokens, self.space.head_dim

        def project(params: Params, inputs: tuple, heads: int, context: Context) -> jax.Array:
            (x,) = inputs
            qkv = params["attention"]["qkv"]
            kernel = qkv["kernel"][..., : heads * d].reshape(x.shape[-1], -1)
            y = layer_norm(x, params["norm1"]) @ kernel + qkv["bias"][:, : heads * d].reshape(-1)
            return y.reshape(b, t, 3, heads, d).transpose(2, 0, 3, 1, 4)

        def attend(params: Params, inputs: tuple, heads: int, context: Context) -> jax.Array:
            q, k, _ = inputs[1].reshape(3, b * heads, t, d)
            return attention.probabilities(q, k).reshape(b, heads, t, t)

        def attend_gradient(
            params: Params, inputs: tuple, output: jax.Array, g: jax.Array, heads: int, context: Context
        ) -> tuple[Any, tuple]:
            q, k, _ = inputs[1].reshape(3, b * heads, t, d)
            flat = (b * heads, t, t)
            dq, dk = attention.probabilities_gradient(q, k, output.reshape(flat), g.reshape(flat))
            d_qkv = jnp.stack([dq, dk, jnp.zeros_like(dq)]).reshape(inputs[1].shape)
            return None, (None, d_qkv)

        def mix(params: Params, inputs: tuple, heads: int, context: Context) -> jax.Array:
            x, qkv, p = inputs
            v = qkv[2].reshape(b * heads, t, d)
            mixed = attention.batched_matmul(p.reshape(b * heads, t, t), v)
            mixed = mixed.reshape(b, heads, t, d).transpose(0, 2, 1, 3).reshape(b * t, heads * d)
            out = params["attention"]["out"]
            return x + (mixed @ out["kernel"][: heads * d] + out["bias"])

        return Stage(project), Stage(attend, attend_gradient), Stage(mix)

    # ---------------------------------------------------------------- extraction

    def _sizes(self, architecture: Architecture) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        d = architecture.description
        return d["width"], tuple(d["heads"]), tuple(self.space.hidden(d["width"], r) for r in d["mlp_ratio"])

    def config(self, architecture: Architecture) -> dict[str, Any]:
        """See `Supernet.config`."""
        width, heads, hidden = self._sizes(architecture)
        sizes = ("head_dim", "patch_size", "image_size", "channels", "classes", "class_token")
        shared = {name: getattr(self.space, name) for name in sizes}
        return {"width": width, "heads": list(heads), "hidden": list(hidden), **shared}

    def example(self, architecture: Architecture) -> jax.ShapeDtypeStruct:
        """See `Supernet.example`."""
        size = self.space.image_size
        return jax.ShapeDtypeStruct((size, size, self.space.channels), np.float32)

    def slice(self, params: Params, architecture: Architecture, statistics: Statistics) -> Params:
        """See `Supernet.slice`."""
        del statistics
        width, heads, hidden = self._sizes(architecture)
        params = _narrow(params, width)
        layers = {}
        for i, (h, m) in enumerate(zip(heads, hidden, strict=True)):
            layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
            inner = h * self.space.head_dim
            qkv = jax.tree.map(
                lambda leaf, n=inner: leaf[..., :n].reshape(*leaf.shape[:-2], -1), layer["attention"]["qkv"]
            )
            out = {**layer["attention"]["out"], "kernel": layer["attention"]["out"]["kernel"][:inner]}
            layers[i] = {
                **layer,
                "attention": {"qkv": qkv, "out": out},
                "fc1": jax.tree.map(lambda leaf, m=m: leaf[..., :m], layer["fc1"]),
                "fc2": {**layer["fc2"], "kernel": layer["fc2"]["kernel"][:m]},
            }
        return {**params, "layers": layers}


def _mlp() -> tuple[Stage, ...]:
    def expand(params: Params, inputs: tuple, hidden: int, context: Context) -> jax.Array:
        (x,) = inputs
        return layer_norm(x, params["norm2"]) @ params["fc1"]["kernel"][:, :hidden] + params["fc1"]["bias"][:hidden]

    def contract(params: Params, inputs: tuple, hidden: int, context: Context) -> jax.Array:
        x, h = inputs
        return x + (nnx.gelu(h) @ params["fc2"]["kernel"][:hidden] + params["fc2"]["bias"])

    return Stage(expand), Stage(contract)


def _narrow(params: Params, width: int) -> Params:
    """Cuts every axis that runs along the residual stream to `width`."""
    last = lambda tree: jax.tree.map(lambda leaf: leaf[..., :width], tree)  # noqa: E731
    layers = params["layers"]
    return {
        **{name: last(params[name]) for name in ("patch", "position", "class_token", "norm") if name in params},
        "head": {**params["head"], "kernel": params["head"]["kernel"][:width]},
        "layers": {
            "norm1": last(layers["norm1"]),
            "norm2": last(layers["norm2"]),
            "attention": {
                "qkv": {**layers["attention"]["qkv"], "kernel": layers["attention"]["qkv"]["kernel"][:, :width]},
                "out": last(layers["attention"]["out"]),
            },
            "fc1": {**layers["fc1"], "kernel": layers["fc1"]["kernel"][:, :width]},
            "fc2": last(layers["fc2"]),
        },
    }
