"""Textbook DARTS network.

References:
    Liu, Simonyan, Yang. DARTS: Differentiable Architecture Search. ICLR 2019, arXiv:1806.09055 (operations, cells).
    Ioffe, Szegedy. Batch Normalization. ICML 2015, arXiv:1502.03167.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def prepare(x: jax.Array, architecture: dict[str, Any]) -> jax.Array:
    """See `Reference.prepare`."""
    return x


def _reduces(cell: int, cells: int) -> bool:
    return cell == cells // 3 or cell == 2 * cells // 3


def _edges(architecture: dict[str, Any], kind: str, nodes: int) -> list[tuple[int, int, str]]:
    """Node, input and operation of each edge."""
    found, operations = [], iter(architecture[f"{kind}_operations"])
    for node in range(2, 2 + nodes):
        pair = "0+1" if node == 2 else architecture[f"{kind}_{node}_inputs"]
        found += [(node, int(source), next(operations)) for source in pair.split("+")]
    return found


def cut(params: Any, architecture: dict[str, Any], settings: Any) -> Any:
    """See `Reference.cut`. Stacks have an edge for each two nodes, inputs first."""
    weights = {name: params[name] for name in ("stem", "stem_norm", "classifier")}
    nodes = settings.nodes
    every = [(t, s) for t in range(2, 2 + nodes) for s in range(t)]
    from_inputs, between = [e for e in every if e[1] < 2], [e for e in every if e[1] >= 2]
    for cell in range(settings.cells):
        reduces = _reduces(cell, settings.cells)
        own = {name: leaf for name, leaf in params[f"cell_{cell}"].items() if name not in ("edges", "strided")}
        own["operations"] = []
        for node, source, operation in _edges(architecture, "reduction" if reduces else "normal", nodes):
            if reduces and source < 2:
                stack, order = params[f"cell_{cell}"]["strided"]["edges"], from_inputs
            else:
                stack = params[f"cell_{cell}"].get("edges", {})
                order = between if reduces else [*from_inputs, *between]
            at = order.index((node, source))
            held = stack.get(operation, {})
            own["operations"].append(jax.tree.map(lambda leaf, at=at: leaf[at], held))
        weights[f"cell_{cell}"] = own
    return weights


def forward(
    weights: Any, x: jax.Array, architecture: dict[str, Any], settings: Any, constant_statistics: bool = False
) -> jax.Array:
    """See `Reference.forward`."""
    constant = constant_statistics
    kernel = weights["stem"]["kernel"]
    stem = _norm(_convolved(x, kernel.reshape(3, 3, *kernel.shape[1:])), weights["stem_norm"], constant)
    before, x = stem, stem
    for cell in range(settings.cells):
        own, reduces = weights[f"cell_{cell}"], _reduces(cell, settings.cells)
        if "first_even" in own:
            first = _halved(before, own["first_even"], own["first_odd"])
        else:
            first = jnp.maximum(before, 0) @ own["first"]["kernel"]
        second = jnp.maximum(x, 0) @ own["second"]["kernel"]
        nodes = [_norm(first, own["first_norm"], constant), _norm(second, own["second_norm"], constant)]
        edges = zip(
            _edges(architecture, "reduction" if reduces else "normal", settings.nodes), own["operations"], strict=True
        )
        for (node, source, operation), of_edge in edges:
            y = _operation(operation, of_edge, nodes[source], 2 if reduces and source < 2 else 1, constant)
            nodes[node:] = [nodes[node] + y if node < len(nodes) else y]
        before, x = x, jnp.concatenate(nodes[2:], axis=-1)
    return x.mean(axis=(1, 2)) @ weights["classifier"]["kernel"] + weights["classifier"]["bias"]


def _operation(name: str, own: Any, x: jax.Array, stride: int, constant: bool) -> jax.Array:
    match name:
        case "skip_connect" if stride == 1:
            return x
        case "skip_connect":
            return _norm(_halved(x, own["skip_even"], own["skip_odd"]), own["skip_norm"], constant)
        case "max_pool_3x3":
            return _window(x, -jnp.inf, jax.lax.max, stride)
        case "avg_pool_3x3":
            return _window(x, 0.0, jax.lax.add, stride) / _window(jnp.ones_like(x), 0.0, jax.lax.add, stride)
        case "sep_conv_3x3" | "sep_conv_5x5":
            for part, step in (("first", stride), ("second", 1)):
                x = _depthwise(jnp.maximum(x, 0), own[f"{part}_depthwise"]["kernel"], step, 1)
                x = _norm(x @ own[part]["kernel"], own[f"{part}_norm"], constant)
            return x
    x = _depthwise(jnp.maximum(x, 0), own["dilated_depthwise"]["kernel"], stride, 2)
    return _norm(x @ own["dilated"]["kernel"], own["dilated_norm"], constant)


def _halved(x: jax.Array, even: Any, odd: Any) -> jax.Array:
    x = jnp.maximum(x, 0)
    return jnp.concatenate([x[:, ::2, ::2] @ even["kernel"], x[:, 1::2, 1::2] @ odd["kernel"]], axis=-1)


@partial(jax.jit, static_argnums=(2, 3))
def _depthwise(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    side = round(kernel.shape[0] ** 0.5)
    edge = (side // 2 * dilation,) * 2
    return jax.lax.conv_general_dilated(
        x, kernel.reshape(side, side, 1, -1), (stride, stride), [edge, edge], rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1],
    )  # fmt: skip


@jax.jit
def _convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@partial(jax.jit, static_argnums=(1, 2, 3))
def _window(x: jax.Array, start: float, combine: Any, stride: int) -> jax.Array:
    return jax.lax.reduce_window(
        x, np.float32(start), combine, (1, 3, 3, 1), (1, stride, stride, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )


def _norm(x: jax.Array, weights: Any, constant: bool) -> jax.Array:
    mean = x.mean(axis=(0, 1, 2))
    variance = ((x - mean) ** 2).mean(axis=(0, 1, 2))
    if constant:
        mean, variance = jax.lax.stop_gradient((mean, variance))
    return (x - mean) / jnp.sqrt(variance + 1e-5) * weights["scale"] + weights["bias"]
