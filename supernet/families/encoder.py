"""The elastic encoder: layers as BERT's; behind them classes of a text, or the last layer's queries, keys and values.

References:
    Devlin et al. BERT: Pre-training of Deep Bidirectional Transformers. NAACL 2019, arXiv:1810.04805.
    Xu et al. Few-shot Task-agnostic Neural Architecture Search for Distilling Large Language Models. NeurIPS 2022.
    Ganesan et al. SuperShaper. 2021, arXiv:2110.04711 (bottlenecks).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from search_spaces import EncoderSpace
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import SUPERNETS, Params
from supernet.families.attention import attend, mixed
from supernet.layers.linear import linear
from supernet.layers.normalisation import layer_norm
from supernet.standalone.language import ACTIVATIONS
from supernet.standalone.translation import visible
from supernet.tasks.relations import relation_heads

Stream = dict[str, Float[Array, "..."]]


@SUPERNETS.register("encoder")
class EncoderSupernet(ElasticNetwork):
    """Inputs are int32[b, t]; logits float32[b, classes], or relation heads float32[b, t, 3 * heads * size].

    The stream is a dict: `states` [b * t, d], and without classes `relations`, the relation heads of the last layer so
    far, filled up with zeros to the size of the largest network. Within a layer with a bottleneck, states are narrower,
    and filled up with zeros.
    """

    space: EncoderSpace

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        """See `ElasticNetwork.stages`."""
        space, size = self.space, self.space.head_size

        def project(params: Params, inputs: tuple, context: Context) -> tuple:
            b, t = context.shape

            def heads(name: str) -> jax.Array:
                kernel, bias = params[name]["kernel"], params[name]["bias"]
                flat = {"kernel": kernel.reshape(len(kernel), -1), "bias": bias.reshape(-1)}
                return linear(_states(inputs[0], len(kernel)), flat).reshape(b, t, -1, size).swapaxes(1, 2)

            return heads("q")[:, :, None], heads("k"), heads("v")

        def mix(params: Params, inputs: tuple, context: Context) -> jax.Array:
            stream, projected, p = inputs
            kernel = params["out"]["kernel"]
            out = {**params["out"], "kernel": kernel.reshape(-1, kernel.shape[-1])}
            y = linear(mixed(projected, p).reshape(-1, len(out["kernel"])), out)
            return _states(stream, y.shape[-1]) + y

        def expand(params: Params, inputs: tuple, context: Context) -> jax.Array:
            return linear(_states(inputs[0], len(params["up"]["kernel"])), params["up"])

        def contract(params: Params, inputs: tuple, context: Context) -> jax.Array:
            y = linear(ACTIVATIONS["gelu"](inputs[1]), params["down"])
            return _states(inputs[0], y.shape[-1]) + y

        def settle(params: Params, inputs: tuple, context: Context) -> Stream:
            return _with_states(inputs[0], self._norm(inputs[-1], params["norm"], context))

        def settle_attention(params: Params, inputs: tuple, context: Context) -> Stream:
            stream = settle(params, inputs, context)
            return stream if space.classes else {**stream, "relations": self._relations(inputs[1], context)}

        def resize(name: str) -> Stage:
            """Projects the states between the stream's width and a layer's."""

            def forward(params: Params, inputs: tuple, context: Context) -> Stream:
                own = params[name]
                return _with_states(inputs[0], linear(_states(inputs[0], len(own["kernel"])), own))

            return Stage(forward)

        seen = attend(visible=lambda context: visible(_tokens(context), space.pad))
        return {
            "attention": (Stage(project), seen, Stage(mix), Stage(settle_attention)),
            "mlp": (Stage(expand), Stage(contract), Stage(settle)),
            **({} if space.bottleneck is None else {name: (resize(name),) for name in ("narrow", "widen")}),
        }

    def embed(self, params: Params, x: Int[Array, "b t"], context: Context) -> Stream:
        """See `ElasticNetwork.embed`."""
        y = params["embedding"][x] + params["position"][: x.shape[1]]
        stream = {"states": self._norm(y.reshape(-1, y.shape[-1]), params["norm"], context)}
        if not self.space.classes:
            relations = 3 * self.space.relation_heads * self.space.relation_size
            stream["relations"] = jnp.zeros((*x.shape, relations), y.dtype)
        return stream

    def head(self, params: Params, x: Stream, context: Context) -> Float[Array, "b *t c"]:
        """See `ElasticNetwork.head`."""
        if not self.space.classes:
            return x["relations"]
        counted = visible(_tokens(context), self.space.pad)[:, :, None].astype(x["states"].dtype)
        states = x["states"].reshape(*context.shape, -1)
        return linear(jnp.sum(counted * states, axis=1) / jnp.sum(counted, axis=1), params["head"])

    def _norm(self, x: jax.Array, params: Params, context: Context) -> jax.Array:
        shares = context.shares
        return layer_norm(x, params, self.space.norm_epsilon, shares.get("width", shares.get("bottleneck")))

    def _relations(self, projected: tuple, context: Context) -> Float[Array, "b t c"]:
        """Shares queries, keys and values out to relation heads; a mixture where numbers of heads are mixed."""
        space = self.space
        q, k, v = (a.swapaxes(1, 2) for a in (projected[0][:, :, 0], *projected[1:]))

        def of(heads: int) -> jax.Array:
            parts = (a[:, :, :heads].reshape(*context.shape, heads * space.head_size) for a in (q, k, v))
            return relation_heads(tuple(parts), space.relation_heads, space.relation_size)

        share = context.shares.get("heads")
        if share is None:
            return of(q.shape[2])
        # The first head is in all sizes. A size weighs as much as its last head has more than the one behind it.
        on = jnp.append(share / share[0], 0.0)
        parts = [(on[heads - 1] - on[heads]) * of(heads) for heads in space.heads]
        return sum(parts[1:], parts[0])


def _states(stream: Stream, width: int) -> Float[Array, "n d"]:
    """Returns the first `width` channels of the states; those behind them, if any, are zeros."""
    states = stream["states"]
    return states if states.shape[-1] == width else states[:, :width]


def _with_states(stream: Stream, states: Float[Array, "n d"]) -> Stream:
    """Returns the stream with other states, filled up with zeros to the width of those before."""
    missing = stream["states"].shape[-1] - states.shape[-1]
    return {**stream, "states": jnp.pad(states, ((0, 0), (0, missing))) if missing else states}


def _tokens(context: Context) -> Int[Array, "b t"]:
    assert context.input is not None
    return context.input
