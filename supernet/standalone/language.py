"""A plain transformer language model, decoder or encoder, whose layers may differ in heads and MLP width.

References:
    Touvron et al. LLaMA: Open and Efficient Foundation Language Models. 2023, arXiv:2302.13971.
    Devlin et al. BERT: Pre-training of Deep Bidirectional Transformers. NAACL 2019, arXiv:1810.04805.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from search_spaces import LanguageForm
from supernet.layers.normalisation import Share, layer_norm, rms_norm
from supernet.layers.passes import wide
from supernet.layers.rotary import rotate
from supernet.standalone import MODULES

KeysValues = tuple[Float[Array, "b _s _g k"], Float[Array, "b _s _g k"]]
"""Keys and values of a layer, by sequence, token, key-value head and entry of the head."""
Cache = list[KeysValues]
"""Keys and values of each layer."""

_INIT = nnx.initializers.normal(0.02)  # of embeddings; kernels scale with what they read, so they hold at any width


def _gelu(x: jax.Array) -> jax.Array:
    """Through erf, whose gradient takes a third of the time of that of JAX's own, through erfc, on a CPU."""
    return x * (0.5 * (1 + jax.lax.erf(wide(x) * 0.5**0.5))).astype(x.dtype)


ACTIVATIONS: dict[str, Callable[[Float[Array, "*n"]], Float[Array, "*n"]]] = {
    "swiglu": jax.nn.silu,
    "gelu": _gelu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


def normalise(
    form: LanguageForm, x: Float[Array, "*n d"], params: Mapping[str, Float[Array, " d"]], share: Share = None
) -> Float[Array, "*n d"]:
    """Computes the form's norm over the last axis with entries weighted by `share`; equally when None."""
    return (layer_norm if form.norm == "layer" else rms_norm)(x, dict(params), form.norm_epsilon, share)


class Norm(nnx.Module):
    """The form's norm.

    Args:
        form: Form of the network.
        width: Size of the axis that is normalised.
    """

    def __init__(self, form: LanguageForm, width: int) -> None:
        self.form = form
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width)) if form.norm == "layer" else None

    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """float[..., d] to the same."""
        params = {"scale": self.scale[...]}
        return normalise(self.form, x, params if self.bias is None else {**params, "bias": self.bias[...]})


class HeadNorm(nnx.Module):
    """RMSNorm of queries or keys over a head."""

    def __init__(self, form: LanguageForm) -> None:
        self.epsilon = form.norm_epsilon
        self.scale = nnx.Param(jnp.ones(form.head_size))

    def __call__(self, x: Float[Array, "*n k"]) -> Float[Array, "*n k"]:
        """float[..., k] to the same."""
        return rms_norm(x, {"scale": self.scale[...]}, self.epsilon)


class Attention(nnx.Module):
    """Self-attention whose keys and values serve several queries each; the layer calls `norm`.

    Args:
        form: Form of the network.
        width: Stream width.
        kv_heads: Key-value heads.
        queries: Query heads that share one of them.
        layers: Number of layers of the network; scales fresh weights.
    """

    def __init__(
        self, form: LanguageForm, width: int, kv_heads: int, queries: int, layers: int, *, rngs: nnx.Rngs
    ) -> None:
        self.form, self.kv_heads, self.queries = form, kv_heads, queries
        inner, keys = kv_heads * queries * form.head_size, kv_heads * form.head_size
        self.norm = Norm(form, width)
        self.q = nnx.Linear(width, inner, use_bias=form.qkv_bias, rngs=rngs)
        self.k = nnx.Linear(width, keys, use_bias=form.qkv_bias, rngs=rngs)
        self.v = nnx.Linear(width, keys, use_bias=form.qkv_bias, rngs=rngs)
        self.q_norm = HeadNorm(form) if form.qk_norm else None
        self.k_norm = HeadNorm(form) if form.qk_norm else None
        self.out = nnx.Linear(inner, width, use_bias=form.out_bias, kernel_init=_onto_stream(layers), rngs=rngs)

    def __call__(
        self, x: Float[Array, "b t d"], positions: Int[Array, " t"], cache: KeysValues | None, grows: bool = False
    ) -> tuple[Float[Array, "b t d"], KeysValues]:
        """Returns what is added to the stream float[b, t, d], and the keys and values seen so far.

        Args:
            x: Normalised stream.
            positions: int[t], ascending by 1.
            cache: Keys and values of all positions, filled before those given; None when nothing came before.
            grows: The cache holds the positions before those given alone.
        """
        form, (b, t, _) = self.form, x.shape
        q = self.q(x).reshape(b, t, self.kv_heads, self.queries, form.head_size).transpose(0, 2, 3, 1, 4)
        q = q if self.q_norm is None else self.q_norm(q)
        q = rotate(q, positions, form.frequencies) if form.positions == "rope" else q
        k, v = self.remember(x, positions, cache, grows)
        scores = jnp.einsum("bgnqk,btgk->bgnqt", q, k) * form.head_size**-0.5
        if form.causal:
            scores = jnp.where(jnp.arange(k.shape[1]) <= positions[:, None], scores, -jnp.inf)
        mixed = jnp.einsum("bgnqt,btgk->bqgnk", jax.nn.softmax(scores), v)
        return self.out(mixed.reshape(b, t, -1)), (k, v)

    def remember(
        self, x: Float[Array, "b t d"], positions: Int[Array, " t"], cache: KeysValues | None, grows: bool = False
    ) -> KeysValues:
        """Returns the keys and values seen so far, with those of `x`; arguments as those of a call."""
        form, (b, t, _) = self.form, x.shape
        k = self.k(x).reshape(b, t, self.kv_heads, form.head_size)
        v = self.v(x).reshape(b, t, self.kv_heads, form.head_size)
        k = k if self.k_norm is None else self.k_norm(k)
        if form.positions == "rope":
            k = rotate(k.swapaxes(1, 2), positions, form.frequencies).swapaxes(1, 2)
        if cache is None:
            return k, v
        if grows:
            return jnp.concatenate([cache[0], k], axis=1), jnp.concatenate([cache[1], v], axis=1)
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, new, positions[0], axis=1)
            for old, new in zip(cache, (k, v), strict=True)
        )
        return keys, values


class MLP(nnx.Module):
    """Feed-forward sublayer; the layer calls `norm`."""

    def __init__(self, form: LanguageForm, width: int, hidden: int, layers: int, *, rngs: nnx.Rngs) -> None:
        self.activation = form.activation
        self.norm = Norm(form, width)
        gated = form.activation == "swiglu"
        self.gate = nnx.Linear(width, hidden, use_bias=form.mlp_bias, rngs=rngs) if gated else None
        self.up = nnx.Linear(width, hidden, use_bias=form.mlp_bias, rngs=rngs)
        self.down = nnx.Linear(hidden, width, use_bias=form.mlp_bias, kernel_init=_onto_stream(layers), rngs=rngs)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Returns what is added to the stream, float[b, t, d]; `x` is the normalised stream."""
        act, up = ACTIVATIONS[self.activation], self.up(x)
        return self.down(act(up) if self.gate is None else act(self.gate(x)) * up)


class Layer(nnx.Module):
    """Attention and MLP, added to the stream."""

    def __init__(self, form: LanguageForm, width: int, sizes: Sequence[int], layers: int, *, rngs: nnx.Rngs) -> None:
        kv_heads, queries, hidden = sizes
        self.form = form
        self.attention = Attention(form, width, kv_heads, queries, layers, rngs=rngs)
        self.mlp = MLP(form, width, hidden, layers, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b t d"], positions: Int[Array, " t"], cache: KeysValues | None, grows: bool = False
    ) -> tuple[Float[Array, "b t d"], KeysValues]:
        """float[b, t, d] to the same; further as `Attention`."""
        attention, mlp = self.attention, self.mlp
        if self.form.post_norm:
            mixed, cache = attention(x, positions, cache, grows)
            x = attention.norm(x + mixed)
            return mlp.norm(x + mlp(x)), cache
        mixed, cache = attention(attention.norm(x), positions, cache, grows)
        return x + mixed + mlp(mlp.norm(x if self.form.parallel else x + mixed)), cache

    def remember(self, x: Float[Array, "b t d"], positions: Int[Array, " t"], cache: KeysValues) -> KeysValues:
        """Returns the cache with the keys and values of a stream that passes by; the layer itself is not computed."""
        return self.attention.remember(x if self.form.post_norm else self.attention.norm(x), positions, cache)


class Transform(nnx.Module):
    """Layer of BERT's prediction head before the output projection."""

    def __init__(self, form: LanguageForm, width: int, *, rngs: nnx.Rngs) -> None:
        self.activation = form.activation
        self.dense = nnx.Linear(width, width, rngs=rngs)
        self.norm = Norm(form, width)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """float[b, t, d] to the same."""
        return self.norm(ACTIVATIONS[self.activation](self.dense(x)))


@MODULES.register("language")
class LanguageModel(nnx.Module):
    """Transformer language model.

    Args:
        width: Stream width.
        kv_heads: Key-value heads of each layer; its length is the depth.
        queries: Query heads a key-value head, of each layer.
        mlp_width: MLP width of each layer.
        form: Fields of `LanguageForm`.
    """

    def __init__(
        self,
        width: int,
        kv_heads: Sequence[int],
        queries: Sequence[int],
        mlp_width: Sequence[int],
        form: Mapping[str, Any],
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.form = LanguageForm(**form)
        self.embedding = nnx.Param(_INIT(rngs.params(), (self.form.vocabulary, width)))
        self.position = self._table(self.form.positions == "learned", self.form.length, width, rngs)
        self.token_type = self._table(self.form.token_types > 0, self.form.token_types, width, rngs)
        sizes = list(zip(kv_heads, queries, mlp_width, strict=True))
        self.layers = nnx.List([Layer(self.form, width, size, len(sizes), rngs=rngs) for size in sizes])
        self.norm = Norm(self.form, width)
        self.transform = Transform(self.form, width, rngs=rngs) if self.form.head_transform else None
        self.head = self._table(not self.form.tied, self.form.vocabulary, width, rngs)
        self.head_bias = nnx.Param(jnp.zeros(self.form.vocabulary)) if self.form.head_transform else None

    @staticmethod
    def _table(wanted: bool, rows: int, width: int, rngs: nnx.Rngs) -> nnx.Param | None:
        return nnx.Param(_INIT(rngs.params(), (rows, width))) if wanted else None

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t c"]:
        """Tokens int32[b, t] to logits float32[b, t, v]."""
        return self.decode(tokens)[0]

    def decode(
        self, tokens: Int[Array, "b t"], cache: Cache | None = None, start: Int[Array, ""] | int | None = 0
    ) -> tuple[Float[Array, "b t c"], Cache]:
        """Logits of tokens that follow those whose keys and values are cached, and the cache with theirs.

        Args:
            tokens: int32[b, t].
            cache: Cache of `empty_cache`, or of an earlier call; None when nothing came before and nothing will follow.
            start: Number of tokens that came before; None where the cache holds these and no room for more: it grows.
        """
        grows = start is None
        held = 0 if cache is None else cache[0][0].shape[1]
        positions = (held if start is None else start) + jnp.arange(tokens.shape[1])
        x = self.embed(tokens, positions)
        seen: Cache = []
        for i, layer in enumerate(self.layers):
            x, pair = layer(x, positions, None if cache is None else cache[i], grows)
            seen.append(pair)
        return self.predict(x), seen

    def embed(self, tokens: Int[Array, "b t"], positions: Int[Array, " t"]) -> Float[Array, "b t d"]:
        """Returns the stream before the first layer."""
        x = self.embedding[...][tokens]
        if self.position is not None:
            x = x + self.position[...][positions]
        if self.token_type is not None:
            x = x + self.token_type[...][0]
        return self.norm(x) if self.form.post_norm else x

    def predict(self, x: Float[Array, "b t d"]) -> Float[Array, "b t c"]:
        """Returns the logits of the stream after the last layer."""
        x = x if self.form.post_norm else self.norm(x)
        x = x if self.transform is None else self.transform(x)
        logits = x @ (self.embedding if self.head is None else self.head)[...].T
        return logits if self.head_bias is None else logits + self.head_bias[...]

    def first(self, layers: int) -> "LanguageModel":
        """Returns the network of the first layers, with the same weights, norm and output matrix."""
        shallow = nnx.merge(*nnx.split(self))
        shallow.layers = nnx.List(list(shallow.layers)[:layers])
        return shallow

    def empty_cache(self, batch: int, length: int) -> Cache:
        """Allocates keys and values for `length` tokens of `batch` sequences."""
        dtype, size = self.embedding.dtype, self.form.head_size
        shapes = [(batch, length, layer.attention.kv_heads, size) for layer in self.layers]
        return [(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for shape in shapes]


def _onto_stream(layers: int) -> Callable[..., jax.Array]:
    """Init of what is added to the stream, so that its variance does not grow with depth (as GPT-2's)."""
    return nnx.initializers.variance_scaling(0.5 / layers, "fan_in", "truncated_normal")
