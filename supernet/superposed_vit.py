"""The superposed vision transformer: one pass at full size for a mixture of widths, heads, MLP widths and depths.

References:
    Sukthanker, Krishnakumar, Safari, Hutter. Weight-Entanglement Meets Gradient-Based Neural Architecture Search.
    AutoML-Conf 2024, arXiv:2312.10440. See `supernet.superposed` for what differs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from supernet.supernet import Params
from supernet.superposed import (
    SUPERPOSED,
    Relaxed,
    SuperposedSupernet,
    masked,
    prefixes,
    stopping_points,
    superposed_layer_norm,
)
from supernet.switch import Context
from supernet.vit import ViTSupernet


@SUPERPOSED.register("vit")
class SuperposedViT(ViTSupernet, SuperposedSupernet):
    """Width masks the residual stream's axis of every weight; heads and MLP width the inner axes, layer by layer."""

    def superpose(self, params: Params, relaxed: Relaxed) -> Params:
        """See `SuperposedSupernet.superpose`. The MLP's width follows from ratio and stream width together."""
        space, weight = self.space, self.by_choice(relaxed)
        widths = prefixes(space.width, space.width[-1])
        sizes = [[space.hidden(width, ratio) for ratio in space.mlp_ratio] for width in space.width]
        hiddens = prefixes(np.array(sizes), space.hidden(space.width[-1], space.mlp_ratio[-1]))

        on = weight["width"] @ widths
        heads = jnp.repeat(weight["heads"] @ prefixes(space.heads, space.heads[-1]), space.head_dim, axis=-1)
        by_width = jnp.einsum("lr,crh->lch", weight["mlp_ratio"], hiddens) * weight["width"][:, None]
        hidden, both = by_width.sum(axis=1), jnp.einsum("lch,cd->ldh", by_width, widths)

        layers, attention = params["layers"], params["layers"]["attention"]
        fc1, fc2 = layers["fc1"], layers["fc2"]
        return {
            **{
                name: masked(params[name], on)
                for name in ("patch", "position", "class_token", "norm")
                if name in params
            },
            "head": {**params["head"], "kernel": params["head"]["kernel"] * on[:, None]},
            "layers": {
                "norm1": masked(layers["norm1"], on),
                "norm2": masked(layers["norm2"], on),
                "attention": {
                    "qkv": {
                        "kernel": masked(attention["qkv"]["kernel"], on[:, None, None], heads[:, None, None]),
                        "bias": masked(attention["qkv"]["bias"], heads[:, None]),
                    },
                    "out": {
                        "kernel": masked(attention["out"]["kernel"], heads[..., None], on),
                        "bias": masked(attention["out"]["bias"], on),
                    },
                },
                "fc1": {"kernel": fc1["kernel"] * both, "bias": fc1["bias"] * hidden},
                "fc2": {"kernel": fc2["kernel"] * both.swapaxes(1, 2), "bias": fc2["bias"] * on},
            },
        }

    def apply_superposed(self, params: Params, relaxed: Relaxed, x: jax.Array) -> jax.Array:
        """See `SuperposedSupernet.apply_superposed`; the stream goes on from a mixture of where it may stop."""
        space, weight = self.space, self.by_choice(relaxed)
        params = self.superpose(params, relaxed)
        on = weight["width"] @ prefixes(space.width, space.width[-1])
        b, t, heads = len(x), space.tokens, space.heads[-1]
        _, attend, mix = self._attention(b)

        def layer(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
            (stream, stopped), (weights, stop) = carry, inputs
            qkv = weights["attention"]["qkv"]
            y = superposed_layer_norm(stream, weights["norm1"], on)
            y = y @ qkv["kernel"].reshape(len(on), -1) + qkv["bias"].reshape(-1)
            y = y.reshape(b, t, 3, heads, space.head_dim).transpose(2, 0, 3, 1, 4)
            p = attend.forward(weights, (stream, y), heads, Context())
            stream = mix.forward(weights, (stream, y, p), heads, Context())

            y = superposed_layer_norm(stream, weights["norm2"], on)
            y = nnx.gelu(y @ weights["fc1"]["kernel"] + weights["fc1"]["bias"])
            stream = stream + (y @ weights["fc2"]["kernel"] + weights["fc2"]["bias"])
            return (stream, stopped + stop * stream), None

        stream = self._embed(params, x)
        stops = stopping_points(weight["depth"], space.depth)
        (_, stream), _ = jax.lax.scan(layer, (stream, jnp.zeros_like(stream)), (params["layers"], stops))

        stream = stream.reshape(b, t, -1)
        stream = superposed_layer_norm(stream[:, :1] if space.class_token else stream, params["norm"], on)
        return stream.mean(axis=1) @ params["head"]["kernel"] + params["head"]["bias"]
