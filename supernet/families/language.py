"""The elastic language model: attention and MLP as stages, embeddings before them and an output projection behind.

References:
    Chen et al. AutoFormer: Searching Transformers for Visual Recognition. ICCV 2021, arXiv:2107.00651 (entanglement).
    Taghibakhshi et al. Nemotron Elastic: Towards Efficient Many-in-One Reasoning LLMs. 2025, arXiv:2511.16664.
    Differs: what is sampled is computed alone, where that masks; no router.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from search_spaces import LanguageSpace
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import SUPERNETS, Params
from supernet.families.attention import attend, mixed
from supernet.layers.linear import linear
from supernet.layers.normalisation import rms_norm
from supernet.layers.passes import wide
from supernet.layers.rotary import rotate
from supernet.standalone.language import ACTIVATIONS, normalise


@SUPERNETS.register("language")
class LanguageSupernet(ElasticNetwork):
    """The stream is [b * t, d], logits float32[b, t, v]; t need not be the space's `context`.

    The axes of heads are split into [kv heads, queries, head size], so that fewer of each are a prefix.
    """

    has_precisions = True
    space: LanguageSpace

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        """See `ElasticNetwork.stages`."""
        space, size = self.space, self.space.head_size
        inwards = ("gate", "up") if space.activation == "swiglu" else ("up",)

        def project(params: Params, inputs: tuple, context: Context) -> tuple:
            (b, t), (groups, queries, _) = context.shape, params["q"]["kernel"].shape[1:]
            parts = (params["q"], -3), (params["k"], -2), (params["v"], -2)
            heads = [{n: leaf.reshape(*leaf.shape[:at], -1) for n, leaf in part.items()} for part, at in parts]
            fused = {name: jnp.concatenate([part[name] for part in heads], axis=-1) for name in heads[0]}
            y = linear(self.read(params, inputs[0], context), fused).reshape(b, t, groups * (queries + 2), size)
            q, k, v = jnp.split(y.swapaxes(1, 2), [groups * queries, groups * (queries + 1)], axis=1)
            if space.qk_norm:
                q, k = (rms_norm(a, params[f"{n}_norm"], space.norm_epsilon) for a, n in ((q, "q"), (k, "k")))
            if space.positions == "rope":
                q, k = (rotate(a, jnp.arange(t), space.frequencies) for a in (q, k))
            return q.reshape(b, groups, queries, t, size), k, v

        def mix(params: Params, inputs: tuple, context: Context) -> Any:
            x, projected, p = inputs
            kernel = params["out"]["kernel"]
            out = {**params["out"], "kernel": kernel.reshape(-1, kernel.shape[-1])}
            return self._added(x, linear(mixed(projected, p).reshape(-1, len(out["kernel"])), out))

        def expand(params: Params, inputs: tuple, context: Context) -> tuple[jax.Array, ...]:
            x = self.read(params, inputs[0], context)
            return tuple(linear(x, params[name]) for name in inwards)

        def contract(params: Params, inputs: tuple, context: Context) -> Any:
            return self._added(inputs[0], linear(activated(space, inputs[1]), params["down"]))

        def settle(params: Params, inputs: tuple, context: Context) -> jax.Array:
            return self._norm(inputs[-1], params["norm"], context)

        last = (Stage(settle),) if space.post_norm else ()
        return {
            "attention": (Stage(project), attend(space.causal), Stage(mix), *last),
            "mlp": (Stage(expand), Stage(contract), *last),
        }

    def embed(self, params: Params, x: Int[Array, "b t"], context: Context) -> Float[Array, "b*t d"]:
        """See `ElasticNetwork.embed`."""
        y = params["embedding"][x]
        if "position" in params:
            y = y + params["position"][: x.shape[1]]
        if "token_type" in params:
            y = y + params["token_type"][0]
        y = y.reshape(-1, y.shape[-1])
        return self._norm(y, params["norm"], context) if self.space.post_norm else y

    def head(self, params: Params, x: Float[Array, "rows d"], context: Context) -> Float[Array, "b t c"]:
        """See `ElasticNetwork.head`."""
        x = self.features(params, x, context)
        table = params["embedding" if self.space.tied else "head"]
        logits = jnp.matmul(x, table.astype(x.dtype).T, preferred_element_type=table.dtype)
        return (logits + params["head_bias"] if "head_bias" in params else logits).reshape(*context.shape, -1)

    # ---------------------------------------------------------------- pieces, for the importance of what they read

    def features(self, params: Params, x: Float[Array, "rows d"], context: Context) -> Float[Array, "rows d"]:
        """Computes the input of the output projection, float[b * t, d], from the stream after the last layer."""
        space = self.space
        x = x if space.post_norm else self._norm(x, params["norm"], context)
        if space.head_transform:
            dense = wide(linear(self.passes.product(x), params["transform"]["dense"]))
            x = self._norm(ACTIVATIONS[space.activation](dense), params["transform"]["norm"], context)
        return self.passes.product(x)

    def read(self, params: Params, x: Any, context: Context) -> Float[Array, "rows d"]:
        """Returns the normalised part of the input that a sublayer reads."""
        source = x[1] if self.space.parallel else x
        source = source if self.space.post_norm else self._norm(source, params["norm"], context)
        return self.passes.product(source)

    def _norm(self, x: jax.Array, params: Params, context: Context) -> jax.Array:
        return normalise(self.space, x, params, context.shares.get("width"))

    def _added(self, x: Any, update: jax.Array) -> Any:
        return (x[0] + update, x[1]) if self.space.parallel else x + update


def activated(space: LanguageSpace, units: tuple[Float[Array, "*n m"], ...]) -> Float[Array, "*n m"]:
    """Computes the units of an MLP after the activation; of two products, the first gates the second."""
    first, *gated = units
    y = ACTIVATIONS[space.activation](first)
    return y * gated[0] if gated else y
