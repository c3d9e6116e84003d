"""Textbook vision transformer.

References:
    Dosovitskiy et al. An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale. ICLR 2021,
    arXiv:2010.11929 (equations 1 to 4).
    Ba, Kiros, Hinton. Layer Normalization. 2016, arXiv:1607.06450.
    Hendrycks, Gimpel. Gaussian Error Linear Units. 2016, arXiv:1606.08415 (the approximation by tanh).
    Chen et al. AutoFormer: Searching Transformers for Visual Recognition. ICCV 2021, arXiv:2107.00651 (which entries of
    the shared weights a subnet has: the first ones).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def prepare(x: jax.Array, architecture: dict[str, Any]) -> jax.Array:
    """See `Reference.prepare`: nothing to do."""
    del architecture
    return x


def cut(params: Any, architecture: dict[str, Any], settings: Any) -> Any:
    """See `Reference.cut`."""
    width = architecture["width"]
    layers = []
    for i in range(architecture["depth"]):
        shared = params["layers"]
        inner = architecture["heads"][i] * settings.head_dim
        hidden = int(width * architecture["mlp_ratio"][i])
        qkv, out, fc1, fc2 = *(shared["attention"][name] for name in ("qkv", "out")), shared["fc1"], shared["fc2"]
        layers.append({
            "norm1": {name: leaf[i, :width] for name, leaf in shared["norm1"].items()},
            "q": {"kernel": qkv["kernel"][i, :width, 0, :inner], "bias": qkv["bias"][i, 0, :inner]},
            "k": {"kernel": qkv["kernel"][i, :width, 1, :inner], "bias": qkv["bias"][i, 1, :inner]},
            "v": {"kernel": qkv["kernel"][i, :width, 2, :inner], "bias": qkv["bias"][i, 2, :inner]},
            "out": {"kernel": out["kernel"][i, :inner, :width], "bias": out["bias"][i, :width]},
            "norm2": {name: leaf[i, :width] for name, leaf in shared["norm2"].items()},
            "fc1": {"kernel": fc1["kernel"][i, :width, :hidden], "bias": fc1["bias"][i, :hidden]},
            "fc2": {"kernel": fc2["kernel"][i, :hidden, :width], "bias": fc2["bias"][i, :width]},
        })  # fmt: skip
    weights = {
        "patch": {name: leaf[..., :width] for name, leaf in params["patch"].items()},
        "position": params["position"][:, :width],
        "layers": layers,
        "norm": {name: leaf[:width] for name, leaf in params["norm"].items()},
        "head": {"kernel": params["head"]["kernel"][:width], "bias": params["head"]["bias"]},
    }
    if settings.class_token:
        weights["class_token"] = params["class_token"][:width]
    return weights


def forward(
    weights: Any, x: jax.Array, architecture: dict[str, Any], settings: Any, constant_statistics: bool = False
) -> jax.Array:
    """See `Reference.forward`."""
    del architecture, constant_statistics
    tokens = _patches(x, settings.patch_size)
    z = _embedded(tokens, {name: weights[name] for name in _BEFORE if name in weights})
    for layer in weights["layers"]:
        z = _with_attention(z, {name: layer[name] for name in ("norm1", "q", "k", "v", "out")}, settings.head_dim)
        z = _with_mlp(z, {name: layer[name] for name in ("norm2", "fc1", "fc2")})
    return _logits(z, weights["norm"], weights["head"], settings.class_token)


_BEFORE = ("patch", "position", "class_token")


# Compiled by sublayer only because a sublayer's shapes recur: eager, or compiled whole, it takes ten times as long.
@jax.jit
def _embedded(tokens: jax.Array, weights: Any) -> jax.Array:
    """Equation 1."""
    z = _linear(tokens, weights["patch"])
    if "class_token" in weights:
        first = jnp.broadcast_to(weights["class_token"], (len(z), 1, z.shape[-1]))
        z = jnp.concatenate([first, z], axis=1)
    return z + weights["position"]


@partial(jax.jit, static_argnums=2)
def _with_attention(z: jax.Array, layer: Any, head_size: int) -> jax.Array:
    """Equation 2, with appendix A: each head on its own."""
    x = _layer_norm(z, layer["norm1"])
    q, k, v = (_linear(x, layer[name]) for name in "qkv")
    mixed = []
    for start in range(0, q.shape[-1], head_size):
        own = slice(start, start + head_size)
        scores = jnp.matmul(q[..., own], k[..., own].swapaxes(1, 2)) / jnp.sqrt(head_size)
        shares = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = shares / shares.sum(axis=-1, keepdims=True)
        mixed.append(jnp.matmul(shares, v[..., own]))
    return z + _linear(jnp.concatenate(mixed, axis=-1), layer["out"])


@jax.jit
def _with_mlp(z: jax.Array, layer: Any) -> jax.Array:
    """Equation 3."""
    hidden = _gelu(_linear(_layer_norm(z, layer["norm2"]), layer["fc1"]))
    return z + _linear(hidden, layer["fc2"])


@partial(jax.jit, static_argnums=3)
def _logits(z: jax.Array, norm: Any, head: Any, class_token: bool) -> jax.Array:
    """Equation 4, and the classifier."""
    z = _layer_norm(z, norm)
    return _linear(z[:, 0] if class_token else z.mean(axis=1), head)


def _patches(x: jax.Array, size: int) -> jax.Array:
    rows, columns = x.shape[1] // size, x.shape[2] // size
    found = [
        x[:, size * i : size * (i + 1), size * j : size * (j + 1)].reshape(len(x), -1)
        for i in range(rows)
        for j in range(columns)
    ]
    return jnp.stack(found, axis=1)


def _linear(x: jax.Array, weights: Any) -> jax.Array:
    return jnp.matmul(x, weights["kernel"]) + weights["bias"]


def _layer_norm(x: jax.Array, weights: Any) -> jax.Array:
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-6) * weights["scale"] + weights["bias"]


def _gelu(x: jax.Array) -> jax.Array:
    return 0.5 * x * (1 + jnp.tanh((2 / jnp.pi) ** 0.5 * (x + 0.044715 * x**3)))
