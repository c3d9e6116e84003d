"""Textbook MobileNetV3 with Once-for-All's choices.

References:
    Howard et al. Searching for MobileNetV3. ICCV 2019, arXiv:1905.02244 (blocks, activations and head).
    Sandler et al. MobileNetV2: Inverted Residuals and Linear Bottlenecks. CVPR 2018, arXiv:1801.04381.
    Hu, Shen, Sun. Squeeze-and-Excitation Networks. CVPR 2018, arXiv:1709.01507.
    Ioffe, Szegedy. Batch Normalization. ICML 2015, arXiv:1502.03167.
    Cai, Gan, Wang, Zhang, Han. Once-for-All. ICLR 2020, arXiv:1908.09791 (which entries of the shared weights a subnet
    has: the first channels and blocks, the centre of a kernel; here without kernel transforms).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def prepare(x: jax.Array, architecture: dict[str, Any]) -> jax.Array:
    """See `Reference.prepare`: resizes by a triangle as wide as the coarser grid's pixels (antialiased bilinear)."""
    down, across = (_triangles(side, architecture["resolution"]) for side in x.shape[1:3])
    return jnp.einsum("oh,bhwc,pw->bopc", down, x, across)


def _triangles(pixels: int, wanted: int) -> np.ndarray:
    scale = pixels / wanted
    centres = (np.arange(wanted)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(pixels) + 0.5 - centres) / max(scale, 1))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def cut(params: Any, architecture: dict[str, Any], settings: Any) -> Any:
    """See `Reference.cut`."""
    by_stage = len(settings.widths) > 1
    kernels, expands = (
        architecture[name] if by_stage else [architecture[name]] for name in ("kernel", "expand")
    )  # fmt: skip
    blocks, width = [], _channels(settings.first_width * settings.width_multiplier)
    for stage, (of_kernel, of_expand) in enumerate(zip(kernels, expands, strict=True)):
        shared = params[f"stage_{stage}"]
        for i, (kernel, expand) in enumerate(zip(of_kernel, of_expand, strict=True)):
            of_block = jax.tree.map(lambda leaf, i=i: leaf[i - 1], shared["rest"]) if i else shared["entry"]
            hidden = _channels(width * expand)
            blocks.append(_cut_block(of_block, hidden, kernel, settings.squeeze_excite[stage]))
            width = _channels(settings.widths[stage] * settings.width_multiplier)
    ends = ("stem", "stem_norm", "first", "final", "final_norm", "feature", "classifier")
    return {**{name: params[name] for name in ends}, "blocks": blocks}


def _cut_block(shared: Any, hidden: int, kernel: int, squeezes: bool) -> Any:
    edge = (shared["depthwise"]["kernel"].shape[0] - kernel) // 2
    centre = slice(edge, edge + kernel)
    weights = {
        "expand": {"kernel": shared["expand"]["kernel"][:, :hidden]},
        "expand_norm": {name: leaf[:hidden] for name, leaf in shared["expand_norm"].items()},
        "depthwise": {"kernel": shared["depthwise"]["kernel"][centre, centre, :hidden]},
        "depthwise_norm": {name: leaf[:hidden] for name, leaf in shared["depthwise_norm"].items()},
        "project": {"kernel": shared["project"]["kernel"][:hidden]},
        "project_norm": shared["project_norm"],
    }
    if squeezes:
        squeezed = _channels(hidden // 4)
        reduce, widen = shared["squeeze_excite"]["reduce"], shared["squeeze_excite"]["widen"]
        weights["squeeze_excite"] = {
            "reduce": {"kernel": reduce["kernel"][:hidden, :squeezed], "bias": reduce["bias"][:squeezed]},
            "widen": {"kernel": widen["kernel"][:squeezed, :hidden], "bias": widen["bias"][:hidden]},
        }
    return weights


def _channels(width: float) -> int:
    """Rounds to a multiple of 8 that is not more than 10 % below, as both MobileNet papers' code does."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


def forward(
    weights: Any, x: jax.Array, architecture: dict[str, Any], settings: Any, constant_statistics: bool = False
) -> jax.Array:
    """See `Reference.forward`."""
    by_stage = len(settings.widths) > 1
    depths = [len(blocks) for blocks in (architecture["kernel"] if by_stage else [architecture["kernel"]])]
    constant, channels = constant_statistics, x.shape[-1]
    stem = weights["stem"]["kernel"].reshape(3, 3, channels, -1)  # rows hold taps first, then channels
    x = _convolved(x, stem, weights["stem_norm"], settings.stem_stride, "hard_swish", constant)
    x = _block(x, weights["first"], settings.first_stride, "relu", constant)
    blocks = iter(weights["blocks"])
    for stage, depth in enumerate(depths):
        for i in range(depth):
            stride = 1 if i else settings.strides[stage]
            x = _block(x, next(blocks), stride, settings.activations[stage], constant)
    x = _pointwise(x, weights["final"], weights["final_norm"], "hard_swish", constant)
    return _classified(x, weights["feature"], weights["classifier"])


def _block(x: jax.Array, weights: Any, stride: int, activation: str, constant: bool) -> jax.Array:
    y = x
    if "expand" in weights:
        y = _pointwise(y, weights["expand"], weights["expand_norm"], activation, constant)
    kernel = weights["depthwise"]["kernel"][:, :, None]
    y = _convolved(y, kernel, weights["depthwise_norm"], stride, activation, constant)
    if "squeeze_excite" in weights:
        y = _squeeze_excite(y, weights["squeeze_excite"])
    y = _pointwise(y, weights["project"], weights["project_norm"], None, constant)
    return x + y if x.shape == y.shape and stride == 1 else y


# Compiled in these pieces only because their shapes recur.
@partial(jax.jit, static_argnums=(3, 4))
def _pointwise(x: jax.Array, weights: Any, norm: Any, activation: str | None, constant: bool) -> jax.Array:
    return _activate(_batch_norm(jnp.einsum("bhwi,io->bhwo", x, weights["kernel"]), norm, constant), activation)


@partial(jax.jit, static_argnums=(3, 4, 5))
def _convolved(
    x: jax.Array, kernel: jax.Array, norm: Any, stride: int, activation: str, constant: bool
) -> jax.Array:  # fmt: skip
    """Convolution with a kernel [k, k, channels a group, channels], padded by half the kernel."""
    edge = kernel.shape[0] // 2
    y = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(edge, edge)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )  # fmt: skip
    return _activate(_batch_norm(y, norm, constant), activation)


@jax.jit
def _squeeze_excite(x: jax.Array, weights: Any) -> jax.Array:
    reduce, widen = weights["reduce"], weights["widen"]
    z = jnp.maximum(x.mean(axis=(1, 2)) @ reduce["kernel"] + reduce["bias"], 0)
    return x * (_relu6(z @ widen["kernel"] + widen["bias"] + 3) / 6)[:, None, None]


@jax.jit
def _classified(x: jax.Array, feature: Any, classifier: Any) -> jax.Array:
    features = _activate(x.mean(axis=(1, 2)) @ feature["kernel"], "hard_swish")
    return features @ classifier["kernel"] + classifier["bias"]


def _batch_norm(x: jax.Array, weights: Any, constant: bool) -> jax.Array:
    mean = x.mean(axis=(0, 1, 2))
    variance = ((x - mean) ** 2).mean(axis=(0, 1, 2))
    if constant:
        mean, variance = jax.lax.stop_gradient((mean, variance))
    return (x - mean) / jnp.sqrt(variance + 1e-5) * weights["scale"] + weights["bias"]


def _activate(x: jax.Array, activation: str | None) -> jax.Array:
    if activation == "hard_swish":
        return x * _relu6(x + 3) / 6
    return jnp.maximum(x, 0) if activation == "relu" else x


def _relu6(x: jax.Array) -> jax.Array:
    return jnp.minimum(jnp.maximum(x, 0), 6)
