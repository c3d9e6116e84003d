"""Textbook encoder-decoder transformer, whose decoder layers attend to the last one, two or three encoder layers.

References:
    Vaswani et al. Attention Is All You Need. NeurIPS 2017, arXiv:1706.03762 (heads, sinusoids, masks).
    Wang et al. HAT: Hardware-Aware Transformers for Efficient Natural Language Processing. ACL 2020, arXiv:2005.14187
    (outputs of encoder layers one behind the other, the last one first; one size of queries for any number of heads).
    Xiong et al. On Layer Normalization in the Transformer Architecture. ICML 2020, arXiv:2002.04745 (norms first).
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def prepare(x: jax.Array, architecture: dict[str, Any]) -> jax.Array:
    """See `Reference.prepare`: nothing to do."""
    del architecture
    return x


def cut(params: Any, architecture: dict[str, Any], settings: Any) -> Any:
    """See `Reference.cut`."""
    source, target = architecture["encoder_width"], architecture["decoder_width"]
    encoder, decoder = params["encoder"]["layers"], params["decoder"]["layers"]
    weights: dict[str, Any] = {"encoder": [], "decoder": []}
    for i, hidden in enumerate(architecture["encoder_mlp_width"]):
        own = {"attention": _attention_of(encoder["attention"], i, source, source)}
        weights["encoder"].append({**own, "mlp": _mlp_of(encoder["mlp"], i, source, hidden)})
    for i, hidden in enumerate(architecture["decoder_mlp_width"]):
        own = {"attention": _attention_of(decoder["attention"], i, target, target)}
        own["cross"] = _attention_of(decoder["cross"], i, target, source)
        weights["decoder"].append({**own, "mlp": _mlp_of(decoder["mlp"], i, target, hidden)})
    if "embedding" in params:
        weights["embedding"] = params["embedding"][:, : max(source, target)]
    else:
        widths = {"source_embedding": source, "target_embedding": target, "head": target}
        weights |= {name: params[name][:, :width] for name, width in widths.items()}
    if "norm" in params["encoder"]:
        weights["encoder_norm"] = {name: leaf[:source] for name, leaf in params["encoder"]["norm"].items()}
        weights["decoder_norm"] = {name: leaf[:target] for name, leaf in params["decoder"]["norm"].items()}
    return weights


def _attention_of(shared: Any, i: int, stream: int, memory: int) -> Any:
    weights = {"norm": {name: leaf[i, :stream] for name, leaf in shared["norm"].items()}}
    for name, reads in (("q", stream), ("k", memory), ("v", memory)):
        weights[name] = {"kernel": shared[name]["kernel"][i, :reads], "bias": shared[name]["bias"][i]}
    out = {"kernel": shared["out"]["kernel"][i, :, :stream], "bias": shared["out"]["bias"][i, :stream]}
    return {**weights, "out": out}


def _mlp_of(shared: Any, i: int, width: int, hidden: int) -> Any:
    return {
        "norm": {name: leaf[i, :width] for name, leaf in shared["norm"].items()},
        "up": {"kernel": shared["up"]["kernel"][i, :width, :hidden], "bias": shared["up"]["bias"][i, :hidden]},
        "down": {"kernel": shared["down"]["kernel"][i, :hidden, :width], "bias": shared["down"]["bias"][i, :width]},
    }


def forward(
    weights: Any, x: jax.Array, architecture: dict[str, Any], settings: Any, constant_statistics: bool = False
) -> jax.Array:
    """See `Reference.forward`."""
    del constant_statistics
    post, widest = settings.post_norm, max(*settings.encoder_width, *settings.decoder_width)
    tables = [weights.get("embedding", weights.get(f"{side}_embedding")) for side in ("source", "target")]
    widths = architecture["encoder_width"], architecture["decoder_width"]
    z, y = (_embedded(x[:, i], tables[i][:, : widths[i]], widest) for i in range(2))
    tokens = x.shape[2]
    shown = (x[:, 0] != settings.pad).at[:, 0].set(True)
    outputs = [z]
    for layer, heads in zip(weights["encoder"], architecture["encoder_heads"], strict=True):
        z = _added(
            z, lambda r, w=layer["attention"], h=heads: _attention(r, r, w, h, shown[:, None]), layer["attention"], post
        )
        z = _added(z, lambda r, w=layer["mlp"]: _mlp(r, w), layer["mlp"], post)
        outputs.append(z)
    if not post:
        outputs = [_norm(one, weights["encoder_norm"]) for one in outputs[-max(settings.memories) :]]
    before = jnp.tril(jnp.ones((tokens, tokens), bool))[None]
    layers = zip(*(architecture[name] for name in ("decoder_heads", "cross_heads", "memories")), strict=True)
    for layer, (heads, cross_heads, count) in zip(weights["decoder"], layers, strict=True):
        memory = jnp.concatenate(outputs[::-1][:count], axis=1)
        seen = jnp.concatenate([shown] * count, axis=1)[:, None]
        y = _added(y, lambda r, w=layer["attention"], h=heads: _attention(r, r, w, h, before), layer["attention"], post)
        y = _added(
            y,
            lambda r, w=layer["cross"], h=cross_heads, m=memory, s=seen: _attention(r, m, w, h, s),
            layer["cross"],
            post,
        )
        y = _added(y, lambda r, w=layer["mlp"]: _mlp(r, w), layer["mlp"], post)
    if not post:
        y = _norm(y, weights["decoder_norm"])
    table = weights["head"] if "head" in weights else weights["embedding"][:, : widths[1]]
    return _logits(y, table)


def _added(z: jax.Array, sublayer: Any, weights: Any, post: bool) -> jax.Array:
    if post:
        return _norm(z + sublayer(z), weights["norm"])
    return z + sublayer(_norm(z, weights["norm"]))


# Compiled in these pieces only because their shapes recur.
@jax.jit
def _logits(y: jax.Array, table: jax.Array) -> jax.Array:
    return jnp.einsum("btd,vd->btv", y, table)


@partial(jax.jit, static_argnums=2)
def _embedded(tokens: jax.Array, table: jax.Array, widest: int) -> jax.Array:
    width = table.shape[1]
    waves = np.zeros((tokens.shape[1], width))
    for channel in range(width):
        speed = 10000.0 ** (-(channel // 2) / ((widest + 1) // 2))
        angles = np.arange(tokens.shape[1]) * speed
        waves[:, channel] = np.cos(angles) if channel % 2 else np.sin(angles)
    return table[tokens] * math.sqrt(widest) + jnp.asarray(waves, jnp.float32)


@jax.jit
def _norm(z: jax.Array, weights: Any) -> jax.Array:
    mean = z.mean(axis=-1, keepdims=True)
    variance = ((z - mean) ** 2).mean(axis=-1, keepdims=True)
    return (z - mean) / jnp.sqrt(variance + 1e-6) * weights["scale"] + weights["bias"]


@partial(jax.jit, static_argnums=3)
def _attention(z: jax.Array, memory: jax.Array, weights: Any, heads: int, seen: jax.Array) -> jax.Array:
    """Attention head by head; `seen` [b or 1, t or 1, s]."""

    def linear(x: jax.Array, name: str) -> jax.Array:
        return jnp.einsum("btd,de->bte", x, weights[name]["kernel"]) + weights[name]["bias"]

    q, k, v = linear(z, "q"), linear(memory, "k"), linear(memory, "v")
    size, found = q.shape[-1] // heads, []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        scores = jnp.einsum("bsk,btk->bst", q[..., own], k[..., own]) / math.sqrt(size)
        scores = jnp.where(seen, scores, -jnp.inf)
        shares = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = shares / shares.sum(axis=-1, keepdims=True)
        found.append(jnp.einsum("bst,btk->bsk", shares, v[..., own]))
    return linear(jnp.concatenate(found, axis=-1), "out")


@jax.jit
def _mlp(z: jax.Array, weights: Any) -> jax.Array:
    up = jnp.einsum("btd,de->bte", z, weights["up"]["kernel"]) + weights["up"]["bias"]
    return jnp.einsum("bth,hd->btd", jnp.maximum(up, 0), weights["down"]["kernel"]) + weights["down"]["bias"]
