"""The elastic translation model: encoder and decoder as stacks of stages, attention to several encoder layers between.

References:
    Wang et al. HAT: Hardware-Aware Transformers for Efficient Natural Language Processing. ACL 2020, arXiv:2005.14187.
    Differs: embeddings are scaled by the root of the largest width, whatever the width of a network; positions are
    pairs of sine and cosine, of which narrower streams have the fastest.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from search_spaces import Architecture, TranslationSpace
from search_spaces.sealed_json import JsonObject
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import SUPERNETS, Params
from supernet.families.attention import attend, attend_in_heads, in_heads, mixed
from supernet.layers.linear import linear
from supernet.layers.normalisation import layer_norm
from supernet.standalone.translation import frequencies, positions, visible

Stream = dict[str, Float[Array, "..."]]


@SUPERNETS.register("translation")
class TranslationSupernet(ElasticNetwork):
    """Inputs are int32[b, 2, t]: source sentences, and what of the target is before each of its tokens.

    The stream is a dict: `source` [b * t, d], `target` [b * t, e], and where decoder layers may attend to several
    encoder layers `earlier` [n, b * t, d], outputs of those before the last one, the later ones first. Logits are
    float32[b, t, v].
    """

    space: TranslationSpace

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        """See `ElasticNetwork.stages`."""
        return {
            "encoder_attention": self._attention("encoder", "source", records=bool(self.space.earlier)),
            "encoder_mlp": self._mlp("encoder", "source"),
            "encoder_norm": (Stage(self._remembered),),
            "decoder_attention": self._attention("decoder", "target"),
            "cross_attention": self._attention("cross", "target", memory=True),
            "decoder_mlp": self._mlp("decoder", "target"),
        }

    def config(self, architecture: Architecture) -> JsonObject:
        """See `Supernet.config`: the architecture's choices, and settings of the space."""
        chosen = {name: value for name, value in architecture.description.items() if not name.endswith("_depth")}
        names = (
            "query_size", "vocabulary", "length", "pad", "post_norm", "shared_embeddings", "largest_width",
        )  # fmt: skip
        return {**chosen, **{name: getattr(self.space, name) for name in names}}

    def _attention(self, name: str, stream: str, memory: bool = False, records: bool = False) -> tuple[Stage, ...]:
        """Attention of a stream to itself, or to the memory.

        Args:
            name: Name of the sublayer.
            stream: Index of the stream's entry that attends.
            memory: To the outputs of the last encoder layers.
            records: What the layer reads becomes the latest of the earlier outputs.
        """
        axis = f"{'encoder' if stream == 'source' else 'decoder'}_width"
        causal = stream == "target" and not memory

        def heads(context: Context) -> int:
            return context.values[f"{name}_heads"]

        def layers(context: Context) -> int:
            return context.values["memories"] if memory else 1

        def seen(context: Context) -> Bool[Array, "b s"]:
            assert context.input is not None
            return jnp.concatenate([visible(context.input[:, 0], self.space.pad)] * layers(context), axis=1)

        def project(params: Params, inputs: tuple, context: Context) -> tuple:
            b, _, t = context.shape
            x = self._read(inputs[0][stream], params, axis, context)
            read = _memory(inputs[0], layers(context), b, t) if memory else x
            parts = (x, t, "q"), (read, layers(context) * t, "k"), (read, layers(context) * t, "v")
            return tuple(linear(a, params[part]).reshape(b, rows, self.space.query_size) for a, rows, part in parts)

        def mix(params: Params, inputs: tuple, context: Context) -> Any:
            x, projected, p = inputs
            y = mixed(in_heads(projected, heads(context)), p).reshape(-1, self.space.query_size)
            y = x[stream] + linear(y, params["out"])
            return y if self.space.post_norm else handed(x, y)

        def handed(x: Stream, y: jax.Array) -> Stream:
            found = {**x, stream: y}
            if records:
                found["earlier"] = jnp.concatenate([x[stream][None], x["earlier"][:-1]])
            return found

        def settle(params: Params, inputs: tuple, context: Context) -> Stream:
            return handed(inputs[0], self._norm(inputs[-1], params, axis, context))

        attended = attend(causal, None if causal else seen)
        chain = Stage(project), attend_in_heads(attended, heads), Stage(mix)
        return (*chain, Stage(settle)) if self.space.post_norm else chain

    def _mlp(self, side: str, stream: str) -> tuple[Stage, ...]:
        axis = f"{side}_width"

        def expand(params: Params, inputs: tuple, context: Context) -> jax.Array:
            return linear(self._read(inputs[0][stream], params, axis, context), params["up"])

        def contract(params: Params, inputs: tuple, context: Context) -> Any:
            y = inputs[0][stream] + linear(jax.nn.relu(inputs[1]), params["down"])
            return y if self.space.post_norm else {**inputs[0], stream: y}

        def settle(params: Params, inputs: tuple, context: Context) -> Stream:
            return {**inputs[0], stream: self._norm(inputs[-1], params, axis, context)}

        chain = Stage(expand), Stage(contract)
        return (*chain, Stage(settle)) if self.space.post_norm else chain

    def _remembered(self, params: Params, inputs: tuple, context: Context) -> Stream:
        """The outputs of encoder layers, normalised."""
        normed = {name: leaf for name, leaf in inputs[0].items() if name != "target"}
        normed = {name: self._norm(leaf, params, "encoder_width", context) for name, leaf in normed.items()}
        return {**inputs[0], **normed}

    def embed(self, params: Params, x: Int[Array, "b 2 t"], context: Context) -> Stream:
        """See `ElasticNetwork.embed`."""
        own = "source_embedding", "target_embedding"
        first, second = ("embedding", "embedding") if self.space.shared_embeddings else own

        def embedded(side: int, table: jax.Array, width: str) -> jax.Array:
            # Where widths are masked, all channels are there: what reads the stream leaves those out.
            table = table[:, : context.values.get(width)]
            scaled = table[x[:, side]] * self.space.largest_width**0.5
            placed = scaled + positions(x.shape[2], frequencies(self.space.largest_width))[:, : table.shape[1]]
            return placed.reshape(-1, table.shape[1])

        source = embedded(0, params[first], "encoder_width")
        stream = {"source": source, "target": embedded(1, params[second], "decoder_width")}
        if self.space.earlier:
            stream["earlier"] = jnp.zeros((self.space.earlier, *source.shape), source.dtype)
        return stream

    def head(self, params: Params, x: Stream, context: Context) -> Float[Array, "b t c"]:
        """See `ElasticNetwork.head`."""
        y, (b, _, t) = x["target"], context.shape
        if not self.space.post_norm:
            y = self._norm(y, params["decoder"], "decoder_width", context)
        table = params["embedding" if self.space.shared_embeddings else "head"][:, : y.shape[-1]]
        return (y @ table.T).reshape(b, t, -1)

    def _read(self, x: jax.Array, params: Params, axis: str, context: Context) -> jax.Array:
        """The part of its input that a sublayer computes with."""
        return x if self.space.post_norm else self._norm(x, params, axis, context)

    def _norm(self, x: jax.Array, params: Params, axis: str, context: Context) -> jax.Array:
        return layer_norm(x, params["norm"], share=context.shares.get(axis))


def _memory(stream: Stream, layers: int, b: int, t: int) -> Float[Array, "rows d"]:
    """The outputs of the last encoder layers, whose tokens follow each other: [b * layers * t, d]."""
    last = stream["source"]
    if layers == 1:
        return last
    outputs = jnp.concatenate([last[None], stream["earlier"][: layers - 1]]).reshape(layers, b, t, -1)
    return outputs.swapaxes(0, 1).reshape(b * layers * t, outputs.shape[-1])
