"""Textbook NAS-Bench-201 network.

References:
    Dong, Yang. NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search. ICLR 2020,
    arXiv:2001.00326 (cells, operations, skeleton).
    He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016, arXiv:1512.03385 (the blocks between).
    Ioffe, Szegedy. Batch Normalization. ICML 2015, arXiv:1502.03167.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

READS = {1: (0,), 2: (0, 1), 3: (0, 1, 2)}


def prepare(x: jax.Array, architecture: dict[str, Any]) -> jax.Array:
    """See `Reference.prepare`."""
    return x


def cut(params: Any, architecture: dict[str, Any], settings: Any) -> Any:
    """See `Reference.cut`."""
    weights = {name: params[name] for name in ("stem", "stem_norm", "final_norm", "classifier")}
    for stage in range(settings.stages):
        if stage:
            weights[f"reduction_{stage}"] = params[f"reduction_{stage}"]
        shared = params[f"stage_{stage}"].get("cells", {})
        weights[f"stage_{stage}"] = [
            {
                edge: jax.tree.map(lambda leaf, cell=cell: leaf[cell], shared[edge][operation])
                for edge, operation in architecture.items()
                if operation.startswith("conv")
            }
            for cell in range(settings.cells)
        ]
    return weights


def forward(
    weights: Any, x: jax.Array, architecture: dict[str, Any], settings: Any, constant_statistics: bool = False
) -> jax.Array:
    """See `Reference.forward`."""
    constant = constant_statistics
    x = _norm(_convolved(x, weights["stem"]["kernel"], 1), weights["stem_norm"], constant)
    for stage in range(settings.stages):
        if stage:
            block = weights[f"reduction_{stage}"]
            y = _norm(_convolved(jnp.maximum(x, 0), block["first"]["kernel"], 2), block["first_norm"], constant)
            y = _norm(_convolved(jnp.maximum(y, 0), block["second"]["kernel"], 1), block["second_norm"], constant)
            x = jnp.einsum("bhwi,io->bhwo", _halved(x), block["shortcut"]["kernel"]) + y
        for cell in weights[f"stage_{stage}"]:
            x = _cell(x, cell, architecture, constant)
    x = jnp.maximum(_norm(x, weights["final_norm"], constant), 0).mean(axis=(1, 2))
    return x @ weights["classifier"]["kernel"] + weights["classifier"]["bias"]


def _cell(x: jax.Array, weights: Any, architecture: dict[str, Any], constant: bool) -> jax.Array:
    nodes = [x]
    for target, sources in READS.items():
        node = jnp.zeros_like(x)
        for source in sources:
            edge = f"edge_{target}_{source}"
            match architecture[edge]:
                case "skip":
                    node += nodes[source]
                case "pool_3x3":
                    node += _pooled(nodes[source])
                case "conv_1x1" | "conv_3x3":
                    own = weights[edge]
                    y = _convolved(jnp.maximum(nodes[source], 0), own["conv"]["kernel"], 1)
                    node += _norm(y, own["conv_norm"], constant)
        nodes.append(node)
    return nodes[3]


@partial(jax.jit, static_argnums=2)
def _convolved(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolution with a kernel whose first axis has the 1 or 9 taps, padded by half of it."""
    side = round(kernel.shape[0] ** 0.5)
    kernel = kernel.reshape(side, side, *kernel.shape[1:])
    edge = side // 2, side // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [edge, edge], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _norm(x: jax.Array, weights: Any, constant: bool) -> jax.Array:
    mean = x.mean(axis=(0, 1, 2))
    variance = ((x - mean) ** 2).mean(axis=(0, 1, 2))
    if constant:
        mean, variance = jax.lax.stop_gradient((mean, variance))
    return (x - mean) / jnp.sqrt(variance + 1e-5) * weights["scale"] + weights["bias"]


def _pooled(x: jax.Array) -> jax.Array:
    """Sums of windows of ones over x, over those over ones: the mean of what lies inside the image."""
    window = partial(
        jax.lax.reduce_window, init_value=0.0, computation=jax.lax.add, window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 1, 1, 1), padding="SAME",
    )  # fmt: skip
    return window(x) / window(jnp.ones_like(x))


def _halved(x: jax.Array) -> jax.Array:
    rows, columns = (np.arange(0, side, 2) for side in x.shape[1:3])
    down = (x[:, rows] + x[:, np.minimum(rows + 1, x.shape[1] - 1)]) / 2
    return (down[:, :, columns] + down[:, :, np.minimum(columns + 1, x.shape[2] - 1)]) / 2
