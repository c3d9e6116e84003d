"""A plain vision transformer: pre-norm blocks whose heads and MLP widths may differ from layer to layer.

References:
    Dosovitskiy et al. An Image is Worth 16x16 Words. ICLR 2021, arXiv:2010.11929.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from supernet.standalone import MODULES

_INIT = nnx.initializers.truncated_normal(0.02)  # positions and class token
_KERNEL = nnx.initializers.xavier_uniform()  # as in big_vision: holds at any width


class Attention(nnx.Module):
    """Multi-head self-attention with one fused projection.

    Args:
        width: Stream width.
        heads: Number of heads.
        head_dim: Size of a head.
    """

    def __init__(self, width: int, heads: int, head_dim: int, *, rngs: nnx.Rngs) -> None:
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nnx.Linear(width, 3 * heads * head_dim, kernel_init=_KERNEL, rngs=rngs)
        self.out = nnx.Linear(heads * head_dim, width, kernel_init=_KERNEL, rngs=rngs)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """float32[b, t, d] to the same."""
        b, t, _ = x.shape
        q, k, v = jnp.moveaxis(self.qkv(x).reshape(b, t, 3, self.heads, self.head_dim), 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * self.head_dim**-0.5
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
        return self.out(mixed.reshape(b, t, self.heads * self.head_dim))


class Block(nnx.Module):
    """Attention and MLP, each behind a LayerNorm and added to the stream."""

    def __init__(self, width: int, heads: int, head_dim: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.norm1 = nnx.LayerNorm(width, use_fast_variance=False, rngs=rngs)
        self.attention = Attention(width, heads, head_dim, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, use_fast_variance=False, rngs=rngs)
        self.fc1 = nnx.Linear(width, hidden, kernel_init=_KERNEL, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, kernel_init=_KERNEL, rngs=rngs)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """float32[b, t, d] to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(nnx.gelu(self.fc1(self.norm2(x))))


@MODULES.register("vit")
class ViT(nnx.Module):
    """Vision transformer.

    Args:
        width: Stream width.
        heads: Heads of each layer; its length is the depth.
        hidden: MLP width of each layer.
        head_dim: Size of a head.
        patch_size: Pixels on a side of a patch.
        image_size: Pixels on a side of the image.
        channels: Channels of the image.
        classes: Outputs.
        class_token: Classify from an additional token; otherwise from the mean of the patches.
    """

    def __init__(
        self,
        width: int,
        heads: Sequence[int],
        hidden: Sequence[int],
        head_dim: int,
        patch_size: int,
        image_size: int,
        channels: int,
        classes: int,
        class_token: bool,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.patch_size = patch_size
        tokens = (image_size // patch_size) ** 2 + class_token
        self.patch = nnx.Linear(patch_size**2 * channels, width, kernel_init=_KERNEL, rngs=rngs)
        self.position = nnx.Param(_INIT(rngs.params(), (tokens, width)))
        self.class_token = nnx.Param(_INIT(rngs.params(), (width,))) if class_token else None
        self.layers = nnx.List([Block(width, h, head_dim, m, rngs=rngs) for h, m in zip(heads, hidden, strict=True)])
        self.norm = nnx.LayerNorm(width, use_fast_variance=False, rngs=rngs)
        self.head = nnx.Linear(width, classes, kernel_init=_KERNEL, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        """Images float32[b, h, w, c] to logits float32[b, classes]."""
        x = self.patch(patches(x, self.patch_size))
        if self.class_token is not None:
            x = jnp.concatenate([jnp.broadcast_to(self.class_token[...], (x.shape[0], 1, x.shape[-1])), x], axis=1)
        x = x + self.position[...]
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.class_token is not None else x.mean(axis=1))


def patches(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b t d"]:
    """Cuts images [b, h, w, c] into flat patches [b, (h / size) * (w / size), size * size * c]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // size, size, w // size, size, c).swapaxes(2, 3)
    return x.reshape(b, (h // size) * (w // size), size * size * c)
