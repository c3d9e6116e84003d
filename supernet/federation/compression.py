"""Convolutional compression: a weight matrix of the server, convolved to the smaller one of a client, and dilated back.

A matrix of D_in by D_out becomes one of d_in by d_out by a filter of (D_in - d_in + 1) by (D_out - d_out + 1), with
stride 1 and without padding. A transposed convolution with such a filter has the shape of the server again. A filter
is its direction times a learned gain. Each layer, and each projection of attention, has filters of its own; before
them, the matrices of a layer are mixed by a learned map whose residual start is no mixture. A vector has a filter of
one axis. A fresh filter is a delta at the first entry: its compression is the slice that a supernet gives the client.

References:
    Shen et al., "FedConv: A Learning-on-Model Paradigm for Heterogeneous Federated Clients", 2025, arXiv:2502.20639.
Differs: theirs are networks of convolutions, with a filter for each position of a kernel; fresh filters are no deltas;
weights pass a leaky function always, here where `activation` says so.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from supernet.federation.shapes import FlatWeights, WeightShapes

Filter = dict[str, Float[Array, "..."]]
"""`kernel` [f, a, b], `gain` [f, 1, 1] and, where a layer has several matrices, `mixture` [l, t, t]."""
Filters = dict[str, Filter]
"""Path of each weight that is smaller at the client to its filter."""
Activation = Literal["none", "leaky"]
_POSITIVE, _NEGATIVE = 0.85, 0.001


def fresh_filters(shapes: Mapping[str, WeightShapes]) -> Filters:
    """Returns filters whose compression is the slice of the first entries, and whose dilation puts it back there."""
    return {path: _fresh(of) for path, of in shapes.items() if of.smaller}


def _fresh(of: WeightShapes) -> Filter:
    kernel = jnp.zeros((of.filters, *of.kernel), jnp.float32).at[:, 0, 0].set(1.0)
    made: Filter = {"kernel": kernel, "gain": jnp.ones((of.filters, 1, 1), jnp.float32)}
    if of.taps:
        taps = of.filters // of.layers
        made["mixture"] = jnp.zeros((of.layers, taps, taps), jnp.float32)
    return made


def compressed(
    shapes: Mapping[str, WeightShapes], filters: Filters, server: FlatWeights, activation: Activation = "none"
) -> dict[str, Float[Array, "..."]]:
    """Compresses the weights of the server's network to those of a client's.

    Args:
        shapes: Shapes of all weights in both.
        filters: Filters of the client's size; weights without one keep their shape and value.
        server: Weights of the server's network.
        activation: `leaky` passes compressed weights through 0.85 w above 0 and 0.001 w below, as published.
    """
    return {
        path: _activated(_compress(of, filters[path], server[path]), activation) if of.smaller
        else of.sliced(server[path])
        for path, of in shapes.items()
    }  # fmt: skip


def dilated(
    shapes: Mapping[str, WeightShapes], filters: Filters, client: FlatWeights
) -> dict[str, Float[Array, "..."]]:
    """Dilates weights of a client's network to the axes of the server's; linear in the weights.

    Args:
        shapes: Shapes of all weights in both.
        filters: Filters of the client's size.
        client: Weights of the client's network.

    Returns:
        Path to weight: as long as the server's on every axis but that of layers, which is the client's.
    """
    return {
        path: _dilate(of, filters[path], client[path]) if of.smaller else client[path] for path, of in shapes.items()
    }


def sliced(shapes: Mapping[str, WeightShapes], server: FlatWeights) -> dict[str, Float[Array, "..."]]:
    """Cuts the weights of a client's network from the server's: the first entries of each axis."""
    return {path: of.sliced(server[path]) for path, of in shapes.items()}


def _activated(weight: Float[Array, "..."], activation: Activation) -> Float[Array, "..."]:
    if activation == "none":
        return weight
    return jnp.where(weight > 0, _POSITIVE * weight, _NEGATIVE * weight)


def _direction(of_filter: Filter) -> Float[Array, "f a b"]:
    """Filters as they are applied: of length `gain`."""
    kernel = of_filter["kernel"]
    return kernel * (of_filter["gain"] / jnp.sqrt(jnp.sum(kernel**2, axis=(1, 2), keepdims=True)))


def _on_planes(
    of: WeightShapes, weight: Float[Array, "..."], change: Callable[[Float[Array, "f a b"]], Float[Array, "f c d"]]
) -> Float[Array, "..."]:
    """Applies a change to the matrices of a weight, which lie on the first axis for it."""
    first = (*range(of.layered), *of.taps)
    order = (*first, *of.plane)
    moved = jnp.transpose(weight, order)
    leading, plane = moved.shape[: len(first)], moved.shape[len(first) :]
    changed = change(moved.reshape(-1, *plane, *([1] * (2 - len(plane)))))
    back = changed.reshape(*leading, *changed.shape[1 : 1 + len(plane)])
    return jnp.transpose(back, [order.index(axis) for axis in range(len(order))])


def _mixed(planes: Float[Array, "f a b"], mixture: Float[Array, "l t t"]) -> Float[Array, "f a b"]:
    grouped = planes.reshape(*mixture.shape[:2], *planes.shape[1:])
    return (grouped + jnp.einsum("lst,ltab->lsab", mixture, grouped)).reshape(planes.shape)


def _compress(of: WeightShapes, by: Filter, weight: Float[Array, "..."]) -> Float[Array, "..."]:
    def change(planes: Float[Array, "f a b"]) -> Float[Array, "f c d"]:
        mixed = _mixed(planes, by["mixture"]) if "mixture" in by else planes
        return _correlated(mixed, _direction(by), (0, 0))

    return _on_planes(of, weight[: of.layers] if of.layered else weight, change)


def _dilate(of: WeightShapes, by: Filter, weight: Float[Array, "..."]) -> Float[Array, "..."]:
    rows, columns = of.kernel

    def change(planes: Float[Array, "f c d"]) -> Float[Array, "f a b"]:
        wide = _correlated(planes, _direction(by)[:, ::-1, ::-1], (rows - 1, columns - 1))
        return _mixed(wide, by["mixture"].swapaxes(1, 2)) if "mixture" in by else wide

    return _on_planes(of, weight, change)


def _correlated(
    planes: Float[Array, "f a b"], kernels: Float[Array, "f m n"], padding: tuple[int, int]
) -> Float[Array, "f c d"]:
    """Slides the filter of each matrix over it."""
    rows, columns = padding
    return jax.lax.conv_general_dilated(
        planes[None], kernels[:, None], (1, 1), ((rows, rows), (columns, columns)), feature_group_count=len(planes),
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )[0]  # fmt: skip
