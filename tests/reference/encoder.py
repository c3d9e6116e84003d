"""Textbook encoder: layers of BERT, each norm behind its sublayer; the mean of the tokens is classified.

References:
    Devlin et al. BERT: Pre-training of Deep Bidirectional Transformers. NAACL 2019, arXiv:1810.04805.
    Xu et al. AutoDistil. NeurIPS 2022 (alternate layers; leftmost channels and heads; a head's size stays).
    Ganesan et al. SuperShaper. 2021, arXiv:2110.04711 (a linear map into each layer, which is narrower, and one back).
"""

import math
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
    d, heads, depth = architecture["width"], architecture["heads"], architecture["depth"]
    hidden, of = round(d * architecture["mlp_ratio"]), settings.layers or max(settings.depth)
    used = sorted({math.floor(i * of / size) for size in settings.depth for i in range(size)})
    weights: dict[str, Any] = {
        "embedding": params["embedding"][:, :d], "position": params["position"][:, :d], "layers": [],
        "norm": {name: leaf[:d] for name, leaf in params["norm"].items()},
    }  # fmt: skip
    if "head" in params:
        weights["head"] = {"kernel": params["head"]["kernel"][:d], "bias": params["head"]["bias"]}
    for i in range(depth):
        n = used.index(math.floor(i * of / depth))
        attention, mlp = params["layers"]["attention"], params["layers"]["mlp"]
        e = architecture["bottleneck"][i] if "bottleneck" in architecture else d
        layer: dict[str, Any] = {
            name: {"kernel": attention[name]["kernel"][n, :e, :heads], "bias": attention[name]["bias"][n, :heads]}
            for name in ("q", "k", "v")
        }
        layer["out"] = {"kernel": attention["out"]["kernel"][n, :heads, :, :e], "bias": attention["out"]["bias"][n, :e]}
        layer["up"] = {"kernel": mlp["up"]["kernel"][n, :e, :hidden], "bias": mlp["up"]["bias"][n, :hidden]}
        layer["down"] = {"kernel": mlp["down"]["kernel"][n, :hidden, :e], "bias": mlp["down"]["bias"][n, :e]}
        for name, part in (("attention_norm", attention), ("mlp_norm", mlp)):
            layer[name] = {kind: leaf[n, :e] for kind, leaf in part["norm"].items()}
        if "bottleneck" in architecture:
            into, back = params["layers"]["narrow"], params["layers"]["widen"]
            layer["narrow"] = {"kernel": into["kernel"][n, :d, :e], "bias": into["bias"][n, :e]}
            layer["widen"] = {"kernel": back["kernel"][n, :e, :d], "bias": back["bias"][n, :d]}
        weights["layers"].append(layer)
    return weights


def forward(
    weights: Any, x: jax.Array, architecture: dict[str, Any], settings: Any, constant_statistics: bool = False
) -> jax.Array:
    """See `Reference.forward`."""
    del constant_statistics
    seen = np.asarray(x) != settings.pad if isinstance(x, np.ndarray) else x != settings.pad
    seen = jnp.asarray(seen).at[:, 0].set(True)
    y = weights["embedding"][x] + weights["position"][None, : x.shape[1]]
    y, last = _norm(y, weights["norm"]), None
    for layer in weights["layers"]:
        if "narrow" in layer:
            y = y @ layer["narrow"]["kernel"] + layer["narrow"]["bias"]
        q, k, v = last = [
            jnp.einsum("btd,dhk->bthk", y, layer[name]["kernel"]) + layer[name]["bias"] for name in ("q", "k", "v")
        ]
        scores = jnp.einsum("bqhk,bshk->bhqs", q, k) / math.sqrt(settings.head_size)
        p = jax.nn.softmax(jnp.where(seen[:, None, None], scores, -1e30), axis=-1)
        mixed = jnp.einsum("bhqs,bshk->bqhk", p, v)
        mixed = jnp.einsum("bqhk,hkd->bqd", mixed, layer["out"]["kernel"]) + layer["out"]["bias"]
        y = _norm(y + mixed, layer["attention_norm"])
        up = y @ layer["up"]["kernel"] + layer["up"]["bias"]
        up = up * 0.5 * (1 + jax.scipy.special.erf(up / math.sqrt(2)))
        y = _norm(y + up @ layer["down"]["kernel"] + layer["down"]["bias"], layer["mlp_norm"])
        if "widen" in layer:
            y = y @ layer["widen"]["kernel"] + layer["widen"]["bias"]
    if "head" not in weights:
        assert last is not None
        return _relation_heads(last, settings)
    share = seen / jnp.sum(seen, axis=1, keepdims=True)
    return jnp.sum(share[:, :, None] * y, axis=1) @ weights["head"]["kernel"] + weights["head"]["bias"]


def _relation_heads(projected: list[jax.Array], settings: Any) -> jax.Array:
    """All channels in their order, in equal parts; those that are left over at the end are dropped."""
    count, most = settings.relation_heads, max(settings.heads) * settings.head_size // settings.relation_heads
    found = []
    for a in projected:
        channels = a.reshape(*a.shape[:2], -1)
        own = channels.shape[-1] // count
        for head in range(count):
            part = channels[:, :, head * own : (head + 1) * own] / own**0.25
            found.append(jnp.concatenate([part, jnp.zeros((*part.shape[:2], most - own))], axis=-1))
    return jnp.concatenate(found, axis=-1)


def _norm(x: jax.Array, params: Any) -> jax.Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12) * params["scale"] + params["bias"]
