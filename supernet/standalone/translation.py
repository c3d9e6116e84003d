"""A plain encoder-decoder transformer, whose decoder layers attend to the last one, two or more encoder layers.

References:
    Vaswani et al. Attention Is All You Need. NeurIPS 2017, arXiv:1706.03762.
    Wang et al. HAT: Hardware-Aware Transformers for Efficient Natural Language Processing. ACL 2020, arXiv:2005.14187.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int

from supernet.layers.normalisation import layer_norm
from supernet.standalone import MODULES

_WAVELENGTH = 10000.0  # of the slowest position, over 2 pi
KeysValues = tuple[Float[Array, "b _s q"], Float[Array, "b _s q"]]
"""Keys and values of a layer, of all heads together."""
Cache = list[KeysValues]
"""Keys and values of each decoder layer's attention to the target."""


class Memory(NamedTuple):
    """Keys and values of source sentences, for the attention of decoder layers.

    Attributes:
        layers: Keys and values of each decoder layer.
        seen: For each layer, which of these are no padding.
    """

    layers: list[KeysValues]
    seen: list[Bool[Array, "b _s"]]


def frequencies(width: int) -> Float32[np.ndarray, " n"]:
    """Returns radians a position of the pairs of position channels, of which a narrower stream has the first."""
    pairs = -(-width // 2)
    return (_WAVELENGTH ** (-np.arange(pairs) / pairs)).astype(np.float32)


def positions(
    count: int, frequencies: Float32[np.ndarray, " n"], start: Int[Array, ""] | int = 0
) -> Float[Array, "t d"]:
    """Computes sine and cosine of the positions from `start`, in turn: [t, 2 * n].

    Args:
        count: Positions.
        frequencies: Radians a position, the fastest first.
        start: Number of the first one.
    """
    angles = (start + jnp.arange(count))[:, None] * frequencies
    waves = [jnp.sin(angles)[..., None], jnp.cos(angles)[..., None]]
    return jnp.concatenate(waves, axis=-1).reshape(count, 2 * len(frequencies))


def visible(source: Int[Array, "b t"], pad: int) -> Bool[Array, "b t"]:
    """Tells which source tokens are attended to: all but padding, and always the first."""
    return (source != pad) | (jnp.arange(source.shape[1]) == 0)


class Norm(nnx.Module):
    """LayerNorm over the last axis."""

    def __init__(self, width: int) -> None:
        self.scale, self.bias = nnx.Param(jnp.ones(width)), nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """float[..., d] to the same."""
        return layer_norm(x, {"scale": self.scale[...], "bias": self.bias[...]})


class Attention(nnx.Module):
    """Attention of a stream to a memory; the layer calls `norm`."""

    def __init__(self, width: int, memory: int, size: int, heads: int, *, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.norm = Norm(width)
        self.q, self.k = nnx.Linear(width, size, rngs=rngs), nnx.Linear(memory, size, rngs=rngs)
        self.v, self.out = nnx.Linear(memory, size, rngs=rngs), nnx.Linear(size, width, rngs=rngs)

    def read(self, memory: Float[Array, "b s e"]) -> KeysValues:
        """Returns the keys and values of a memory."""
        return self.k(memory), self.v(memory)

    def __call__(
        self, x: Float[Array, "b t d"], pair: KeysValues, seen: Bool[Array, "#b #t s"]
    ) -> Float[Array, "b t d"]:
        """Returns what is added to the stream."""
        q, k, v = (a.reshape(*a.shape[:2], self.heads, a.shape[2] // self.heads) for a in (self.q(x), *pair))
        scores = jnp.einsum("bthk,bshk->bhts", q, k) * q.shape[-1] ** -0.5
        p = jax.nn.softmax(jnp.where(seen[:, None], scores, -jnp.inf))
        mixed = jnp.einsum("bhts,bshk->bthk", p, v)
        return self.out(mixed.reshape(*x.shape[:2], self.q.out_features))


class MLP(nnx.Module):
    """Feed-forward sublayer; the layer calls `norm`."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.norm = Norm(width)
        self.up, self.down = nnx.Linear(width, hidden, rngs=rngs), nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Returns what is added to the stream."""
        return self.down(jax.nn.relu(self.up(x)))


class EncoderLayer(nnx.Module):
    """Attention of the source to itself, then an MLP."""

    def __init__(self, width: int, size: int, heads: int, hidden: int, post_norm: bool, *, rngs: nnx.Rngs) -> None:
        self.post_norm = post_norm
        self.attention = Attention(width, width, size, heads, rngs=rngs)
        self.mlp = MLP(width, hidden, rngs=rngs)

    def __call__(self, x: Float[Array, "b t d"], seen: Bool[Array, "b t"]) -> Float[Array, "b t d"]:
        """Returns the layer's output."""
        own = self.attention
        read = x if self.post_norm else own.norm(x)
        x = x + own(read, own.read(read), seen[:, None])
        x = own.norm(x) if self.post_norm else x
        return self.mlp.norm(x + self.mlp(x)) if self.post_norm else x + self.mlp(self.mlp.norm(x))


class DecoderLayer(nnx.Module):
    """Attention of the target to itself, then to the source, then an MLP.

    Args:
        width: Width of the target's stream.
        memory: Width of the source's stream.
        size: Size of queries, keys and values of all heads.
        heads: Heads of the attention to the target.
        cross_heads: Heads of the attention to the source.
        hidden: Units of the MLP.
        memories: Outputs of the encoder that it attends to.
        post_norm: Normalise behind each sublayer instead of before it.
    """

    def __init__(
        self, width: int, memory: int, size: int, heads: int, cross_heads: int, hidden: int, memories: int,
        post_norm: bool, *, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        self.memories, self.post_norm = memories, post_norm
        self.attention = Attention(width, width, size, heads, rngs=rngs)
        self.cross = Attention(width, memory, size, cross_heads, rngs=rngs)
        self.mlp = MLP(width, hidden, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b t d"],
        remembered: KeysValues,
        seen: Bool[Array, "b s"],
        before: Bool[Array, "t _u"],
        cache: KeysValues | None = None,
        start: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "b t d"], KeysValues]:
        """Returns the layer's output, and keys and values of the target.

        Args:
            x: Stream.
            remembered: Keys and values of the source.
            seen: Mask of the source positions that are not padding.
            before: Target positions that each given position sees.
            cache: Keys and values of all target positions, filled before `start`; None when nothing came before.
            start: Number of the first position given.
        """
        own = self.attention
        read = x if self.post_norm else own.norm(x)
        pair = own.read(read)
        if cache is not None:
            k, v = (jax.lax.dynamic_update_slice_in_dim(a, b, start, axis=1) for a, b in zip(cache, pair, strict=True))
            pair = k, v
        x = x + own(read, pair, before[None])
        x = own.norm(x) if self.post_norm else x
        x = x + self.cross(x if self.post_norm else self.cross.norm(x), remembered, seen[:, None])
        x = self.cross.norm(x) if self.post_norm else x
        return (self.mlp.norm(x + self.mlp(x)) if self.post_norm else x + self.mlp(self.mlp.norm(x))), pair


class Encoder(nnx.Module):
    """The layers that read the source, and the norm behind them."""

    def __init__(self, layers: Sequence[EncoderLayer], norm: Norm | None) -> None:
        self.layers = nnx.List(layers)
        self.norm = norm


class Decoder(nnx.Module):
    """The layers that write the target, and the norm behind them."""

    def __init__(self, layers: Sequence[DecoderLayer], norm: Norm | None) -> None:
        self.layers = nnx.List(layers)
        self.norm = norm


@MODULES.register("translation")
class TranslationModel(nnx.Module):
    """An encoder-decoder transformer.

    Args:
        encoder_width: Channels of the encoder's stream.
        decoder_width: Channels of the decoder's stream.
        encoder_mlp_width: Units of the MLP of each encoder layer.
        encoder_heads: Heads of each encoder layer.
        decoder_mlp_width: Units of the MLP of each decoder layer.
        decoder_heads: Heads of each decoder layer's attention to the target.
        cross_heads: Heads of each decoder layer's attention to the source.
        memories: Number of last outputs of the encoder that each decoder layer attends to.
        query_size: Size of queries, keys and values of all heads.
        vocabulary: Tokens.
        length: Longest sentence that it was trained on.
        pad: Token that fills source sentences up.
        post_norm: Normalise behind each sublayer instead of before it.
        shared_embeddings: One table for source, target and output.
        largest_width: Largest width of the supernet; scales embeddings and spaces positions.
        rngs: Random streams of fresh weights.
    """

    def __init__(
        self, encoder_width: int, decoder_width: int, encoder_mlp_width: Sequence[int], encoder_heads: Sequence[int],
        decoder_mlp_width: Sequence[int], decoder_heads: Sequence[int], cross_heads: Sequence[int],
        memories: Sequence[int], query_size: int, vocabulary: int, length: int, pad: int, post_norm: bool,
        shared_embeddings: bool, largest_width: int, *, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        self.length, self.pad, self.query_size = length, pad, query_size
        self.widths, self.largest_width = (encoder_width, decoder_width), largest_width
        fresh = nnx.initializers.normal(largest_width**-0.5)

        def table(width: int) -> nnx.Param:
            return nnx.Param(fresh(rngs.params(), (vocabulary, width)))

        self.embedding = table(max(self.widths)) if shared_embeddings else None
        self.source_embedding = None if shared_embeddings else table(encoder_width)
        self.target_embedding = None if shared_embeddings else table(decoder_width)
        self.head = None if shared_embeddings else table(decoder_width)
        first = [
            EncoderLayer(encoder_width, query_size, heads, hidden, post_norm, rngs=rngs)
            for heads, hidden in zip(encoder_heads, encoder_mlp_width, strict=True)
        ]
        second = [
            DecoderLayer(decoder_width, encoder_width, query_size, *sizes, post_norm, rngs=rngs)
            for sizes in zip(decoder_heads, cross_heads, decoder_mlp_width, memories, strict=True)
        ]
        self.encoder = Encoder(first, None if post_norm else Norm(encoder_width))
        self.decoder = Decoder(second, None if post_norm else Norm(decoder_width))

    def __call__(self, x: Int[Array, "b 2 t"]) -> Float[Array, "b t v"]:
        """Computes logits of each target token, from the source and those before it."""
        return self.decode(x[:, 1], self.remember(x[:, 0]))[0]

    def remember(self, source: Int[Array, "b t"]) -> Memory:
        """Returns what decoder layers attend to of source sentences, each with its end and padding behind it."""
        seen = visible(source, self.pad)
        x = self._embedded(source, self.source_embedding, self.widths[0], 0)
        outputs = [x]
        for layer in self.encoder.layers:
            x = layer(x, seen)
            outputs.append(x)
        if (norm := self.encoder.norm) is not None:
            outputs = [norm(one) for one in outputs]
        layers = []
        for layer in self.decoder.layers:
            layers.append(layer.cross.read(jnp.concatenate(outputs[::-1][: layer.memories], axis=1)))
        return Memory(layers, [jnp.concatenate([seen] * layer.memories, axis=1) for layer in self.decoder.layers])

    def empty_cache(self, batch: int, count: int) -> Cache:
        """Returns room for keys and values of so many target tokens."""
        empty = jnp.zeros((batch, count, self.query_size))
        return [(empty, empty) for _ in self.decoder.layers]

    def decode(
        self, target: Int[Array, "b t"], memory: Memory, cache: Cache | None = None, start: Int[Array, ""] | int = 0
    ) -> tuple[Float[Array, "b t v"], Cache]:
        """Returns logits of what follows each target token, and the cache with these tokens.

        Args:
            target: Tokens, of which the first of all is the end token.
            memory: Memory of the source sentences.
            cache: Keys and values of the tokens before these; None when nothing came before.
            start: Number of the first of these tokens.
        """
        y = self._embedded(target, self.target_embedding, self.widths[1], start)
        t = target.shape[1]
        room = t if cache is None else cache[0][0].shape[1]
        before, found = jnp.arange(room) <= (start + jnp.arange(t))[:, None], []
        for i, layer in enumerate(self.decoder.layers):
            own = None if cache is None else cache[i]
            y, pair = layer(y, memory.layers[i], memory.seen[i], before, own, start)
            found.append(pair)
        y = y if self.decoder.norm is None else self.decoder.norm(y)
        table = self.embedding if self.head is None else self.head
        assert table is not None
        return y @ table[...][:, : self.widths[1]].T, found

    def _embedded(
        self, tokens: Int[Array, "b t"], own: nnx.Param | None, width: int, start: Int[Array, ""] | int
    ) -> Float[Array, "b t d"]:
        table = self.embedding if own is None else own
        assert table is not None
        placed = positions(tokens.shape[1], frequencies(self.largest_width), start)[:, :width]
        return table[...][:, :width][tokens] * self.largest_width**0.5 + placed
