"""Textbook transformer language model: decoders like Llama, GPT-2 and GPT-NeoX, and the encoder BERT.

References:
    Vaswani et al. Attention Is All You Need. NeurIPS 2017, arXiv:1706.03762.
    Touvron et al. LLaMA: Open and Efficient Foundation Language Models. 2023, arXiv:2302.13971.
    Radford et al. Language Models are Unsupervised Multitask Learners. 2019 (GPT-2; no arXiv id).
    Black et al. GPT-NeoX-20B: An Open-Source Autoregressive Language Model. 2022, arXiv:2204.06745 (parallel).
    Devlin et al. BERT: Pre-training of Deep Bidirectional Transformers. NAACL 2019, arXiv:1810.04805.
    Ainslie et al. GQA: Training Generalized Multi-Query Transformer Models. EMNLP 2023, arXiv:2305.13245.
    Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. 2021, arXiv:2104.09864 (entry i turns with
    entry i + n / 2, as Llama and GPT-NeoX have it).
    Grattafiori et al. The Llama 3 Herd of Models. 2024, arXiv:2407.21783 (stretched wavelengths).
    Shazeer. GLU Variants Improve Transformer. 2020, arXiv:2002.05202. Zhang, Sennrich. Root Mean Square Layer
    Normalization. NeurIPS 2019, arXiv:1910.07467. Hendrycks, Gimpel. Gaussian Error Linear Units. 2016,
    arXiv:1606.08415.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Form(NamedTuple):
    """Settings that decide how a network computes; hashable, unlike a space."""

    head_size: int
    causal: bool
    positions: str
    rope_theta: float
    rope_scaling: tuple[float, ...]
    rotary: float
    norm_epsilon: float
    norm: str
    activation: str
    post_norm: bool


def prepare(x: jax.Array, architecture: dict[str, Any]) -> jax.Array:
    """See `Reference.prepare`: nothing to do."""
    del architecture
    return x


def cut(params: Any, architecture: dict[str, Any], settings: Any) -> Any:
    """See `Reference.cut`."""
    width, depth = architecture["width"], architecture["depth"]
    sizes = dict(architecture)
    if settings.heads_follow_width:
        sizes["kv_heads"] = settings.kv_heads[settings.width.index(width)]
    by_position = [
        sizes[name] if isinstance(sizes[name], list) else [sizes[name]] * depth
        for name in ("kv_heads", "queries", "mlp_width")
    ]
    order = sorted(zip(_layers(depth, settings), *by_position, strict=True))
    layers = [_cut_layer(params["layers"], width, *layer) for layer in order]
    weights = {"embedding": params["embedding"][:, :width], "layers": layers, "norm": _first(params["norm"], width)}
    for name in ("position", "token_type", "head"):
        if name in params:
            weights[name] = params[name][:, :width]
    if "transform" in params:
        dense = params["transform"]["dense"]
        weights["transform"] = {
            "dense": {"kernel": dense["kernel"][:width, :width], "bias": dense["bias"][:width]},
            "norm": _first(params["transform"]["norm"], width),
        }
        weights["head_bias"] = params["head_bias"]
    return weights


def _layers(depth: int, settings: Any) -> list[int]:
    """Layers of a network, in the order of its choices."""
    deepest = max(settings.depth)
    if settings.keep == "ranked":
        return list(settings.layer_order[:depth])
    if settings.keep == "equidistant" and depth > 1:
        return [math.floor(i * (deepest - 1) / (depth - 1)) for i in range(depth)]
    return list(range(depth))


def _cut_layer(shared: Any, width: int, i: int, groups: int, queries: int, hidden: int) -> Any:
    attention, mlp = shared["attention"], shared["mlp"]
    cuts = {"q": (slice(groups), slice(queries)), "k": (slice(groups),), "v": (slice(groups),)}
    weights: dict[str, Any] = {"attention": {}, "mlp": {}}
    for name, of_heads in cuts.items():
        of_part = {"kernel": attention[name]["kernel"][(i, slice(width), *of_heads)]}
        if "bias" in attention[name]:
            of_part["bias"] = attention[name]["bias"][(i, *of_heads)]
        weights["attention"][name] = of_part
    weights["attention"]["out"] = _written(attention["out"], (i, slice(groups), slice(queries), slice(None)), i, width)
    for name in ("q_norm", "k_norm"):
        if name in attention:
            weights["attention"][name] = {"scale": attention[name]["scale"][i]}
    for name in ("gate", "up"):
        if name in mlp:
            weights["mlp"][name] = {"kernel": mlp[name]["kernel"][i, :width, :hidden]}
            if "bias" in mlp[name]:
                weights["mlp"][name]["bias"] = mlp[name]["bias"][i, :hidden]
    weights["mlp"]["down"] = _written(mlp["down"], (i, slice(hidden)), i, width)
    for name, of_layer in (("attention", attention), ("mlp", mlp)):
        weights[name]["norm"] = {key: leaf[i, :width] for key, leaf in of_layer["norm"].items()}
    return weights


def _written(shared: Any, read: tuple, i: int, width: int) -> Any:
    """Projection onto the stream."""
    weights = {"kernel": shared["kernel"][(*read, slice(width))]}
    return {**weights, "bias": shared["bias"][i, :width]} if "bias" in shared else weights


def _first(norm: Any, width: int) -> Any:
    return {name: leaf[:width] for name, leaf in norm.items()}


def forward(
    weights: Any, x: jax.Array, architecture: dict[str, Any], settings: Any, constant_statistics: bool = False
) -> jax.Array:
    """See `Reference.forward`."""
    del architecture, constant_statistics
    form = Form(*(getattr(settings, name) for name in Form._fields))
    z = _embedded(x, {name: weights[name] for name in _TABLES if name in weights})
    if form.post_norm:
        z = _norm(z, weights["norm"], form)
    for layer in weights["layers"]:
        if form.post_norm:  # BERT
            z = _norm(z + _attention(z, layer["attention"], form), layer["attention"]["norm"], form)
            z = _norm(z + _mlp(z, layer["mlp"], form), layer["mlp"]["norm"], form)
        else:
            mixed = _attention(_norm(z, layer["attention"]["norm"], form), layer["attention"], form)
            read = z if settings.parallel else z + mixed
            z = z + mixed + _mlp(_norm(read, layer["mlp"]["norm"], form), layer["mlp"], form)
    if not form.post_norm:
        z = _norm(z, weights["norm"], form)
    if "transform" in weights:
        z = _norm(_transformed(z, weights["transform"]["dense"], form), weights["transform"]["norm"], form)
    table = weights["embedding" if settings.tied else "head"]
    return _logits(z, table, weights["head_bias"] if "transform" in weights else 0.0)


_TABLES = ("embedding", "position", "token_type")


# Compiled in these pieces only because their shapes recur.
@jax.jit
def _embedded(tokens: jax.Array, tables: Any) -> jax.Array:
    z = tables["embedding"][tokens]
    if "position" in tables:
        z = z + tables["position"][: tokens.shape[1]]
    return z + tables["token_type"][0] if "token_type" in tables else z


@jax.jit
def _logits(z: jax.Array, table: jax.Array, bias: Any) -> jax.Array:
    return jnp.einsum("btd,vd->btv", z, table) + bias


@partial(jax.jit, static_argnums=2)
def _transformed(z: jax.Array, dense: Any, form: Form) -> jax.Array:
    return _activate(jnp.einsum("btd,de->bte", z, dense["kernel"]) + dense["bias"], form.activation)


@partial(jax.jit, static_argnums=2)
def _norm(z: jax.Array, weights: Any, form: Form) -> jax.Array:
    if form.norm == "rms":
        return _rms_norm(z, weights, form)
    mean = z.mean(axis=-1, keepdims=True)
    variance = ((z - mean) ** 2).mean(axis=-1, keepdims=True)
    return (z - mean) / jnp.sqrt(variance + form.norm_epsilon) * weights["scale"] + weights["bias"]


def _rms_norm(z: jax.Array, weights: Any, form: Form) -> jax.Array:
    return z / jnp.sqrt((z**2).mean(axis=-1, keepdims=True) + form.norm_epsilon) * weights["scale"]


@partial(jax.jit, static_argnums=2)
def _attention(z: jax.Array, weights: Any, form: Form) -> jax.Array:
    """Adds up what each query head writes to the stream, one head after the other."""
    _, groups, queries, _ = weights["q"]["kernel"].shape
    length = z.shape[1]
    heads = []
    for g in range(groups):
        k = _turned(_normed(_projected(z, weights["k"], (g,)), weights.get("k_norm"), form), form)
        v = _projected(z, weights["v"], (g,))
        for n in range(queries):
            q = _turned(_normed(_projected(z, weights["q"], (g, n)), weights.get("q_norm"), form), form)
            scores = jnp.einsum("bsk,btk->bst", q, k) / math.sqrt(form.head_size)
            if form.causal:
                scores = jnp.where(jnp.arange(length) <= jnp.arange(length)[:, None], scores, -jnp.inf)
            shares = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
            shares = shares / shares.sum(axis=-1, keepdims=True)
            heads.append(jnp.einsum("bst,btk->bsk", shares, v))
    kernel = weights["out"]["kernel"]
    joined = jnp.concatenate(heads, axis=-1)
    return jnp.einsum("bsn,nd->bsd", joined, kernel.reshape(-1, kernel.shape[-1])) + weights["out"].get("bias", 0.0)


def _projected(z: jax.Array, weights: Any, head: tuple[int, ...]) -> jax.Array:
    y = jnp.einsum("btd,dk->btk", z, weights["kernel"][(slice(None), *head)])
    return y + weights["bias"][head] if "bias" in weights else y


def _normed(heads: jax.Array, weights: Any, form: Form) -> jax.Array:
    return heads if weights is None else _rms_norm(heads, weights, form)


def _turned(heads: jax.Array, form: Form) -> jax.Array:
    """Turns pairs of a head [b, t, k] as complex numbers."""
    if form.positions != "rope":
        return heads
    half = int(form.head_size * form.rotary) // 2
    speeds = jnp.array([_speed(form.rope_theta ** (-i / half), form.rope_scaling) for i in range(half)])
    angles = jnp.arange(heads.shape[1])[:, None] * speeds
    turned = jax.lax.complex(heads[..., :half], heads[..., half : 2 * half]) * jnp.exp(1j * angles)
    return jnp.concatenate([turned.real, turned.imag, heads[..., 2 * half :]], axis=-1)


def _speed(speed: float, scaling: tuple[float, ...]) -> float:
    """Radians a position, after stretching: all of long waves, nothing of short ones, a mixture between."""
    if not scaling:
        return speed
    factor, low, high, length = scaling
    waves = length * speed / (2 * math.pi)  # that fit into the length trained on
    if waves > high:
        return speed
    if waves < low:
        return speed / factor
    kept = (waves - low) / (high - low)
    return kept * speed + (1 - kept) * speed / factor


@partial(jax.jit, static_argnums=2)
def _mlp(z: jax.Array, weights: Any, form: Form) -> jax.Array:
    def linear(x: jax.Array, name: str) -> jax.Array:
        return jnp.einsum("btd,de->bte", x, weights[name]["kernel"]) + weights[name].get("bias", 0.0)

    if form.activation == "swiglu":
        gate = linear(z, "gate")
        return linear(gate / (1 + jnp.exp(-gate)) * linear(z, "up"), "down")
    return linear(_activate(linear(z, "up"), form.activation), "down")


def _activate(x: jax.Array, activation: str) -> jax.Array:
    if activation == "gelu":
        return 0.5 * x * (1 + jax.scipy.special.erf(x / math.sqrt(2)))
    if activation == "gelu_tanh":
        return 0.5 * x * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / (1 + jnp.exp(-x))
