"""Order by importance: heads, MLP units and channels are permuted so that prefixes hold what matters, layers ranked.

Importance comes from forward passes over calibration tokens alone. The permutation leaves the function unchanged; the
ranking of layers is an order for the space (`keep: ranked`).

References:
    Muralidharan et al. Compact Language Models via Pruning and Knowledge Distillation. NeurIPS 2024, arXiv:2407.14679
    (Minitron: magnitudes of activations, mean over tokens and L2 norm over sequences).
    Taghibakhshi et al. Nemotron Elastic: Towards Efficient Many-in-One Reasoning LLMs. 2025, arXiv:2511.16664
    (normalised error of the logits for layers).
    Differs: heads by the magnitude of what the output projection reads, as in NVIDIA's code; key-value heads move with
    all their queries, and queries within their group; layers are scored in one pass, not removed one after the other.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from search_spaces import UserError
from supernet.language import LanguageSupernet, along_stream
from supernet.standalone.language import ACTIVATIONS, normalise
from supernet.supernet import Params
from supernet.switch import Context, Stage


class Importance(NamedTuple):
    """How much each part of the largest network matters; larger is more.

    Attributes:
        channels: Of the residual stream.
        heads: By layer, key-value head, and query.
        units: Of each layer's MLP.
        layers: Squared error of the logits without the layer, over the square of the logits.
    """

    channels: Float[np.ndarray, " d"]
    heads: Float[np.ndarray, "l g q"]
    units: Float[np.ndarray, "l m"]
    layers: Float[np.ndarray, " l"]

    @property
    def layer_order(self) -> tuple[int, ...]:
        """All layers, the most important first: what a space with `keep: ranked` takes."""
        return tuple(int(layer) for layer in np.argsort(-self.layers, kind="stable"))


def importance(net: LanguageSupernet, params: Params, batches: Iterable[Int[Array, "b t"]]) -> Importance:
    """Scores of all parts over calibration tokens.

    Args:
        net: The supernet; its sharing must leave weights as they are.
        params: Its weights.
        batches: Tokens; at least one batch.

    Raises:
        UserError: No batch.
    """
    total: Any = None
    for tokens in batches:
        found = _squares(net, params, tokens), _errors(net, params, tokens)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    if total is None:
        raise UserError("calibration: no tokens. Give at least one batch.")
    (ends, channels, heads, units), (off, whole) = total
    norms = np.sqrt(np.asarray(ends)) + np.sqrt(np.asarray(channels)).sum(axis=(0, 1))
    sizes = np.sqrt(np.asarray(heads).sum(axis=-1))
    return Importance(norms, sizes, np.sqrt(np.asarray(units)), np.asarray(off / whole))


def reordered(params: Params, scores: Importance) -> Params:
    """The same network with its channels, heads and units in descending order of importance."""
    channels = np.argsort(-scores.channels, kind="stable")
    params = along_stream(params, lambda leaf, axis: jnp.take(leaf, channels, axis=axis))
    groups = np.argsort(-np.linalg.norm(scores.heads, axis=-1), axis=-1, kind="stable")
    heads = np.take_along_axis(scores.heads, groups[..., None], axis=1)
    queries = np.argsort(-heads, axis=-1, kind="stable")
    units = np.argsort(-scores.units, axis=-1, kind="stable")

    attention, mlp = params["layers"]["attention"], params["layers"]["mlp"]
    out, down = attention["out"], mlp["down"]
    attention = {
        **attention,
        "q": _by_layer(_by_layer(attention["q"], groups, -3), queries, -2),
        "k": _by_layer(attention["k"], groups, -2),
        "v": _by_layer(attention["v"], groups, -2),
        "out": {**out, "kernel": _by_layer(_by_layer(out["kernel"], groups, -4), queries, -3)},
    }
    inwards = {name: _by_layer(mlp[name], units, -1) for name in ("gate", "up") if name in mlp}
    mlp = {**mlp, **inwards, "down": {**down, "kernel": _by_layer(down["kernel"], units, -2)}}
    return {**params, "layers": {"attention": attention, "mlp": mlp}}


def _by_layer(tree: Any, order: np.ndarray, axis: int) -> Any:
    """Every leaf with each layer's own order along an axis, counted from the end.

    Args:
        tree: Leaves [l, ...].
        order: Int[l, ..., n]; what lies between are the axes before that one.
        axis: A negative number.
    """

    def take(leaf: jax.Array) -> jax.Array:
        shape = [len(order)] + [1] * (leaf.ndim - 1)
        last = leaf.ndim + axis
        shape[last - order.ndim + 2 : last + 1] = order.shape[1:]
        return jnp.take_along_axis(leaf, jnp.asarray(order).reshape(shape), axis=axis)

    return jax.tree.map(take, tree)


def _chain(stages: tuple[Stage, ...], params: Params, x: Any, size: Any) -> tuple:
    """The input and the outputs of all stages."""
    values = (x,)
    for stage in stages:
        values += (stage.forward(params, values, size, Context()),)
    return values


@partial(jax.jit, static_argnums=0)
def _squares(net: LanguageSupernet, params: Params, tokens: jax.Array) -> tuple[jax.Array, ...]:
    """Sums over sequences of squared mean magnitudes: of what the logits read [d], of what sublayers read [l, 2, d],
    of what the output projections read [l, g, n, k], and of the units [l, m]."""
    space, shape = net.space, tokens.shape
    attend, mlp = net.attention(*shape), net.mlp()
    act = ACTIVATIONS[space.activation]

    def square(x: jax.Array) -> jax.Array:
        magnitude = jnp.mean(jnp.abs(x.reshape(*shape, *x.shape[-1:])), axis=1)
        return jnp.sum(magnitude * magnitude, axis=0)

    def layer(stream: jax.Array, weights: Params) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        y = (stream, stream) if space.parallel else stream
        sizes = space.kv_heads[-1], space.queries[-1]
        mixing = _chain(attend, weights["attention"], y, sizes)
        (_, _, v), p = mixing[1:3]
        mixed = jnp.einsum("bgnst,bgtk->bsgnk", p, v)
        expanding = _chain(mlp, weights["mlp"], mixing[-1], space.mlp_width[-1])
        first, *gated = expanding[1]
        units = act(first) * gated[0] if gated else act(first)
        read = [square(net.read(weights[name], x)) for name, x in (("attention", y), ("mlp", mixing[-1]))]
        heads = square(mixed.reshape(*shape, -1)).reshape(*sizes, -1)
        y = expanding[-1]
        return y[0] if space.parallel else y, (jnp.stack(read), heads, square(units))

    stream, (channels, heads, units) = jax.lax.scan(layer, net.embed(params, tokens), params["layers"])
    ends = stream if space.post_norm else normalise(space, stream, params["norm"])
    return square(ends), channels, heads, units


@partial(jax.jit, static_argnums=0)
def _errors(net: LanguageSupernet, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Squared errors of the logits without each layer [l], and the square of the logits."""
    space = net.space
    heads = jnp.full(space.max_depth, len(space.kv_heads) * len(space.queries) - 1)
    hidden = jnp.full(space.max_depth, len(space.mlp_width) - 1)
    whole = net.forward(params, heads, hidden, tokens)

    def error(layer: jax.Array) -> jax.Array:
        without = net.forward(params, heads.at[layer].set(-1), hidden.at[layer].set(-1), tokens)
        return jnp.sum(jnp.square(without - whole))

    return jax.lax.map(error, jnp.arange(space.max_depth)), jnp.sum(jnp.square(whole))
