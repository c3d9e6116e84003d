"""Importance: how much each head, MLP unit, residual channel and layer of a language model matters on given tokens.

It comes from forward passes alone, layer by layer, so that memory need not hold more weights than one layer's. Logits
are linear in what the output projection reads, so their squares need its Gram matrix, not one number for each token of
the vocabulary.

References:
    Muralidharan et al. Compact Language Models via Pruning and Knowledge Distillation. NeurIPS 2024, arXiv:2407.14679
    (Minitron: magnitudes of activations, mean over tokens and L2 norm over sequences).
    Taghibakhshi et al. Nemotron Elastic: Towards Efficient Many-in-One Reasoning LLMs. 2025, arXiv:2511.16664
    (normalised error of the logits for layers).
    Differs: heads by the magnitude of what the output projection reads, as in NVIDIA's code; layers are scored in one
    pass, not removed one after the other; it is computed in fp32 whatever the weights are stored in.
"""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from search_spaces import UserError
from supernet.engine.stages import Context, values_of
from supernet.engine.supernet import Params
from supernet.families.attention import mixed
from supernet.families.language import LanguageSupernet, activated
from supernet.standalone.language import normalise

_ROWS = 1 << 12  # of the vocabulary at a time
_FIRST, _LAST = ("position", "token_type", "norm"), ("norm", "transform")


class Importance(NamedTuple):
    """Scores of the parts of the largest network; a larger one matters more.

    Attributes:
        channels: Importance of the channels of the residual stream.
        heads: By layer, key-value head, and query.
        units: Importance of the units of each layer's MLP.
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


class _Sums(NamedTuple):
    """Sums over sequences of squared mean magnitudes, and of squared logits and errors of logits."""

    head_input: np.ndarray
    read: np.ndarray
    mixed: np.ndarray
    units: np.ndarray
    errors: np.ndarray
    logits: np.ndarray


def importance(
    net: LanguageSupernet,
    params: Params,
    batches: Iterable[Int[Array | np.ndarray, "b t"]],
    layer: Callable[[int], Params] | None = None,
) -> Importance:
    """Scores of all parts over calibration tokens.

    Args:
        net: The supernet; its sharing must leave weights as they are.
        params: Its weights; with `layer`, those beside the layers are enough. Of `embedding` and `head` only some rows
            are asked for at a time, so that both may be read as they are indexed.
        batches: Tokens; at least one batch.
        layer: Reads the weights of one layer; those in `params` when None.

    Raises:
        UserError: No batch.
    """
    read = layer or (lambda i: jax.tree.map(lambda leaf: leaf[i], params["layers"]))
    embedding_and_head = {name: part for name, part in params.items() if name != net.stacked}
    gram, total = _gram(embedding_and_head, "embedding" if net.space.tied else "head"), None
    for tokens in batches:
        found = _sums(net, embedding_and_head, read, gram, np.asarray(tokens))
        total = found if total is None else _Sums(*(a + b for a, b in zip(total, found, strict=True)))
    if total is None:
        raise UserError("calibration: no tokens. Give at least one batch.")
    return Importance(
        np.sqrt(total.head_input) + np.sqrt(total.read).sum(axis=(0, 1)),
        np.sqrt(total.mixed.sum(axis=-1)),
        np.sqrt(total.units),
        total.errors / total.logits,
    )


def _fp32(tree: Params, names: Collection[str] = ("attention", "mlp")) -> Params:
    """Some of the weights in fp32: copies, where they are of another type, which should not live longer than needed."""
    wanted = {name: part for name, part in tree.items() if name in names}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), wanted)


def _gram(embedding_and_head: Params, table: str) -> jax.Array:
    """Products of the columns of the output projection float[d, d], with its bias as one more column if it has one."""
    names, total = [name for name in (table, "head_bias") if name in embedding_and_head], jnp.float32(0)
    for start in range(0, embedding_and_head[table].shape[0], _ROWS):
        part = _fp32({name: embedding_and_head[name][start : start + _ROWS] for name in names}, names)
        rows = jnp.column_stack([part[name] for name in names])
        total = total + jnp.einsum("vd,ve->de", rows, rows)
    return total


def _sums(
    net: LanguageSupernet,
    embedding_and_head: Params,
    read: Callable[[int], Params],
    gram: jax.Array,
    tokens: np.ndarray,
) -> _Sums:
    """The sums of one batch. Beside the whole network's stream there is one for each layer that was left out so far."""
    shape, squares, without = tokens.shape, [], []
    rows = jnp.asarray(embedding_and_head["embedding"][tokens.ravel()], jnp.float32)
    numbers = jnp.arange(tokens.size).reshape(shape)
    stream = net.embed({**_fp32(embedding_and_head, _FIRST), "embedding": rows}, numbers, Context(shape))
    for i in range(net.space.max_depth):
        weights = _fp32(read(i))
        without = [*(jax.block_until_ready(_after(net, shape, weights, other)) for other in without), stream]
        stream, *found = jax.block_until_ready(_measured(net, shape, weights, stream))
        squares.append([np.asarray(square) for square in found])
        del weights  # before the next ones are read
    last = _fp32(embedding_and_head, _LAST)
    features = _features(net, last, stream)
    logits = _squared_logits(gram, features)
    errors = [_squared_logits(gram, _features(net, last, other) - features) for other in without]
    normed = stream if net.space.post_norm else normalise(net.space, stream, last["norm"])
    read_by, mixed, units = (np.stack(rows) for rows in zip(*squares, strict=True))
    return _Sums(np.asarray(_square(shape, normed)), read_by, mixed, units, np.array(errors), np.array(logits))


@partial(jax.jit, static_argnums=0)
def _features(net: LanguageSupernet, embedding_and_head: Params, stream: jax.Array) -> jax.Array:
    """What the output projection reads, and 1 for its bias if it has one."""
    return jnp.pad(
        net.features(embedding_and_head, stream, Context()),
        ((0, 0), (0, int(net.space.head_transform))),
        constant_values=1,
    )


def _squared_logits(gram: jax.Array, features: jax.Array) -> float:
    """Sum of the squares of the logits of features float[b * t, d]; of their differences, for differences of these."""
    return float(np.asarray(jnp.sum((features @ gram) * features, axis=-1), np.float64).sum())


def _square(shape: tuple[int, ...], x: jax.Array) -> jax.Array:
    """Sum over sequences of the squared mean magnitude over tokens; float[b * t, ...] to float[n]."""
    magnitude = jnp.mean(jnp.abs(x.reshape(*shape, -1)), axis=1)
    return jnp.sum(magnitude * magnitude, axis=0)


def _sublayers(
    net: LanguageSupernet, shape: tuple[int, ...], weights: Params, stream: jax.Array
) -> tuple[tuple, tuple]:
    """All that attention and MLP of one layer compute at full size."""
    x = (stream, stream) if net.space.parallel else stream
    mixing = values_of(net.stages["attention"], weights["attention"], x, Context(shape))
    return mixing, values_of(net.stages["mlp"], weights["mlp"], mixing[-1], Context(shape))


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _after(net: LanguageSupernet, shape: tuple[int, ...], weights: Params, stream: jax.Array) -> jax.Array:
    """The stream behind a layer."""
    y = _sublayers(net, shape, weights, stream)[1][-1]
    return y[0] if net.space.parallel else y


@partial(jax.jit, static_argnums=(0, 1))
def _measured(
    net: LanguageSupernet, shape: tuple[int, ...], weights: Params, stream: jax.Array
) -> tuple[jax.Array, ...]:
    """Returns the stream behind a layer, and squares of what is read in it.

    Squares are those of what its sublayers read [2, d], of what its output projection reads [g, q, k], and of its
    units [m].
    """
    mixing, expanding = _sublayers(net, shape, weights, stream)
    inputs = {"attention": mixing[0], "mlp": expanding[0]}
    read = [_square(shape, net.read(weights[name], x, Context())) for name, x in inputs.items()]
    heads = _square(shape, mixed(*mixing[1:3])).reshape(weights["attention"]["out"]["kernel"].shape[:-1])
    y = expanding[-1]
    units = _square(shape, activated(net.space, expanding[1]))
    return y[0] if net.space.parallel else y, jnp.stack(read), heads, units
