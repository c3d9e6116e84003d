"""The elastic vision transformer: attention and MLP as stages, patches before them and a classifier behind.

References:
    Chen et al. AutoFormer: Searching Transformers for Visual Recognition. ICCV 2021, arXiv:2107.00651.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from search_spaces import ViTSpace
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import SUPERNETS, Params
from supernet.families.attention import attend, mixed
from supernet.layers.linear import linear
from supernet.layers.normalisation import layer_norm
from supernet.standalone.vit import patches


@SUPERNETS.register("vit")
class ViTSupernet(ElasticNetwork):
    """Supernet of vision transformers, whose projection of queries, keys and values is one.

    The stream is [b * t, d]; of the fused projection, queries are [b, heads, 1, t, head_dim], keys and values
    [b, heads, t, head_dim].
    """

    space: ViTSpace

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        """See `ElasticNetwork.stages`."""
        t, d = self.space.tokens, self.space.head_dim

        def project(params: Params, inputs: tuple, context: Context) -> tuple:
            x = layer_norm(inputs[0], params["norm1"], share=context.shares.get("width"))
            qkv = {name: leaf.reshape(*leaf.shape[:-2], -1) for name, leaf in params["attention"]["qkv"].items()}
            y = linear(x, qkv).reshape(-1, t, qkv["bias"].size // d, d)
            q, k, v = jnp.split(y.swapaxes(1, 2), 3, axis=1)
            return q[:, :, None], k, v

        def mix(params: Params, inputs: tuple, context: Context) -> jax.Array:
            x, projected, p = inputs
            return x + linear(mixed(projected, p).reshape(x.shape[0], -1), params["attention"]["out"])

        def expand(params: Params, inputs: tuple, context: Context) -> jax.Array:
            return linear(layer_norm(inputs[0], params["norm2"], share=context.shares.get("width")), params["fc1"])

        def contract(params: Params, inputs: tuple, context: Context) -> jax.Array:
            return inputs[0] + linear(nnx.gelu(inputs[1]), params["fc2"])

        return {
            "attention": (Stage(project), attend(), Stage(mix)),
            "mlp": (Stage(expand), Stage(contract)),
        }

    def embed(self, params: Params, x: Float[Array, "b h w c"], context: Context) -> Float[Array, "rows d"]:
        """See `ElasticNetwork.embed`."""
        flat = patches(x, self.space.patch_size).reshape(-1, self.space.patch_dim)
        tokens = linear(flat, params["patch"]).reshape(x.shape[0], -1, params["position"].shape[-1])
        if self.space.class_token:
            first = jnp.broadcast_to(params["class_token"], (x.shape[0], 1, tokens.shape[-1]))
            tokens = jnp.concatenate([first, tokens], axis=1)
        return (tokens + params["position"]).reshape(-1, tokens.shape[-1])

    def head(self, params: Params, x: Float[Array, "rows d"], context: Context) -> Float[Array, "b c"]:
        """See `ElasticNetwork.head`."""
        x = x.reshape(-1, self.space.tokens, x.shape[-1])
        # The normalisation is per token: the class token alone needs it where it is all that is read.
        x = x[:, :1] if self.space.class_token else x
        return linear(layer_norm(x, params["norm"], share=context.shares.get("width")).mean(axis=1), params["head"])
