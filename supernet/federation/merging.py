"""Merging of clients' networks of several sizes into the server's: by learned weights, or by who owns an entry.

References:
    Shen et al., "FedConv: A Learning-on-Model Paradigm for Heterogeneous Federated Clients", 2025, arXiv:2502.20639.
    Diao, Ding, Tarokh, "HeteroFL: Computation and Communication Efficient Federated Learning for Heterogeneous
    Clients", ICLR 2021, arXiv:2010.01264 (slices, each entry averaged over its owners).
Differs: what a client changed can be dilated instead of its weights, so that the server keeps what no client sent.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from supernet.federation.compression import Filters, dilated
from supernet.federation.shapes import FlatWeights, WeightShapes

Dilation = Literal["updates", "weights"]


class Returned(NamedTuple):
    """Replies of all clients of one size; clients that were not asked have zeros.

    Attributes:
        weights: Path to weights of each client, [n, ...].
        before: Path to the weights that were sent to them, [...].
        sent: Layers that each client returned, bool[n, l] of the client's layers; values outside the layers come from
            each client that returned a layer.
    """

    weights: FlatWeights
    before: FlatWeights
    sent: Bool[Array, "n l"]

    def owns(self, of: WeightShapes) -> Bool[Array, "n l"]:
        """Returns which clients returned a weight, by layer (one for a weight outside the layers)."""
        return self.sent if of.layered else self.sent.any(axis=1, keepdims=True)


Logits = dict[str, Float[Array, "n l"]]
"""Path to what the merge weights of each client of a size follow from, by layer."""


def coefficients(
    logits: Sequence[Float[Array, "_ _"]], owns: Sequence[Bool[Array, "_ _"]], layers: int
) -> list[Float[Array, "_ _"]]:
    """Returns the merge weights of one weight: a softmax over all clients, of all sizes, that returned a layer.

    Args:
        logits: Logits of each size.
        owns: Layers that each client returned, for each size.
        layers: Layers of the server; a size with fewer has the first ones.

    Returns:
        For each size the merge weight of each client, which sum to 1 in each layer that some client returned, and are 0
        in others.
    """
    logits = [jnp.pad(one, ((0, 0), (0, layers - one.shape[1]))) for one in logits]
    there = jnp.concatenate([jnp.pad(one, ((0, 0), (0, layers - one.shape[1]))) for one in owns])
    together = jnp.where(there, jnp.concatenate(logits), -jnp.inf)
    highest = jnp.max(together, axis=0, keepdims=True)
    powers = jnp.where(there, jnp.exp(together - jnp.where(jnp.isfinite(highest), highest, 0)), 0)
    total = jnp.sum(powers, axis=0, keepdims=True)
    shares = powers / jnp.where(total > 0, total, 1)
    ends = [sum(len(one) for one in logits[:number]) for number in range(len(logits) + 1)]
    return [
        shares[first:end, : one.shape[1]] for first, end, one in zip(ends[:-1], ends[1:], owns, strict=True)
    ]  # fmt: skip


def merged(
    server: FlatWeights,
    shapes: Sequence[Mapping[str, WeightShapes]],
    filters: Sequence[Filters],
    logits: Sequence[Logits],
    returned: Sequence[Returned],
    dilation: Dilation,
) -> dict[str, Float[Array, "..."]]:
    """Merges what clients have returned by learned dilation and learned weights.

    Args:
        server: Weights that the round began with.
        shapes: Shapes of each size.
        filters: Filters of each size's dilation.
        logits: Logits of each size's clients.
        returned: By clients of each size.
        dilation: `weights` dilates the weights that came back, as published; `updates` what they differ by from those
            that were sent, and adds that to the server's.

    Returns:
        The server's weights; those of layers that no client returned are as they were.
    """
    parts: list[dict[str, jax.Array]] = [{} for _ in shapes]
    covered: dict[str, jax.Array] = {}
    for path, own in server.items():
        layers = own.shape[0] if shapes[0][path].layered else 1
        owns = [each.owns(of[path]) for each, of in zip(returned, shapes, strict=True)]
        weights = coefficients([one[path] for one in logits], owns, layers)
        covered[path] = jnp.any(jnp.concatenate([jnp.pad(o, ((0, 0), (0, layers - o.shape[1]))) for o in owns]), axis=0)
        for part, share, each in zip(parts, weights, returned, strict=True):
            value = each.weights[path] - (each.before[path] if dilation == "updates" else 0)
            part[path] = jnp.sum(_along(share, value, shapes[0][path].layered) * value, axis=0)
    wide = [dilated(of, by, part) for of, by, part in zip(shapes, filters, parts, strict=True)]
    found = {}
    for path, own in server.items():
        total = sum((_deep(one[path], own) for one in wide), jnp.zeros_like(own))
        if dilation == "updates":
            found[path] = own + total
        else:
            kept = covered[path].reshape(-1, *([1] * (own.ndim - 1))) if shapes[0][path].layered else covered[path][0]
            found[path] = jnp.where(kept, total, own)
    return found


def merged_by_owner(
    server: FlatWeights,
    shapes: Sequence[Mapping[str, WeightShapes]],
    counts: Sequence[Float[Array, " _"]],
    returned: Sequence[Returned],
) -> dict[str, Float[Array, "..."]]:
    """Merges slices: each entry is the mean over the clients that returned it, weighted by their examples.

    Args:
        server: Weights that the round began with; entries that no client returned keep theirs.
        shapes: Shapes of each size.
        counts: Number of examples of each client, of each size.
        returned: By clients of each size.
    """
    found = {}
    for path, own in server.items():
        total, weight = jnp.zeros_like(own), jnp.zeros_like(own)
        for of, count, each in zip(shapes, counts, returned, strict=True):
            value, share = each.weights[path], each.owns(of[path]) * count[:, None]
            factor = _along(share, value, of[path].layered)
            inside = tuple(slice(0, length) for length in of[path].client)
            total = total.at[inside].add(jnp.sum(factor * value, axis=0))
            weight = weight.at[inside].add(jnp.sum(jnp.broadcast_to(factor, value.shape), axis=0))
        found[path] = jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), own)
    return found


def fresh_logits(shapes: Mapping[str, WeightShapes], counts: Sequence[int]) -> Logits:
    """Returns logits whose merge weights are shares of examples, as in federated averaging.

    Args:
        shapes: Shapes of one size.
        counts: Number of examples of each client of this size.
    """
    start = jnp.log(jnp.asarray(counts, jnp.float32))[:, None]
    return {path: jnp.broadcast_to(start, (len(counts), of.layers)) for path, of in shapes.items()}


def _along(share: Float[Array, "n l"], value: Float[Array, "n ..."], layered: bool) -> Float[Array, "n ..."]:
    """Shares by client and layer in the axes of weights."""
    return share.reshape(*share.shape[: 1 + layered], *([1] * (value.ndim - 1 - layered)))


def _deep(weight: Float[Array, "..."], server: Float[Array, "..."]) -> Float[Array, "..."]:
    """Adds layers of zeros behind those of a client."""
    return jnp.pad(weight, ((0, server.shape[0] - weight.shape[0]), *([(0, 0)] * (server.ndim - 1))))
