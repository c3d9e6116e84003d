"""A vision transformer whose layers may differ in heads and MLP width. It needs PyTorch alone.

Modules and parameters have the names of timm's VisionTransformer. In the directory of this file:

    import json
    from network import Network, prepare
    from safetensors.torch import load_file

    config = json.load(open("config.json"))
    network = Network(**config["architecture"]).eval()
    network.load_state_dict(load_file("model.safetensors"))
    logits = network(prepare(pictures, **config["preprocessing"]))  # pictures: uint8[b, height, width, channels]
    config["labels"][logits[0].argmax()]
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


def prepare(
    pictures: torch.Tensor,
    image_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bilinear",
) -> torch.Tensor:
    """Makes the network's input of pictures: scaled to 0..1, normalised, resized with antialiasing.

    Args:
        pictures: uint8[b, h, w, c].
        image_size: Height and width of the result.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        interpolation: `bilinear` or `bicubic`.

    Returns:
        float32[b, c, height, width].
    """
    centre, scale = torch.tensor(mean, device=pictures.device), torch.tensor(std, device=pictures.device)
    x = ((pictures.float() / 255 - centre) / scale).permute(0, 3, 1, 2)
    if tuple(x.shape[2:]) == tuple(image_size):
        return x
    return functional.interpolate(x, tuple(image_size), mode=interpolation, antialias=True)


class PatchEmbed(nn.Module):
    """Patches as tokens."""

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps float32[b, c, h, w] to float32[b, patches, width]."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values come of one product."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(width, 3 * heads * head_dim)
        self.proj = nn.Linear(heads * head_dim, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps float32[b, tokens, width] to the same."""
        b, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(b, t, self.heads * self.head_dim))


class Mlp(nn.Module):
    """Two linear layers with GELU, in its form through tanh, between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps float32[b, tokens, width] to the same."""
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and added to the stream."""

    def __init__(self, width: int, heads: int, head_dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), Attention(width, heads, head_dim)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), Mlp(width, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps float32[b, tokens, width] to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Network(nn.Module):
    """Vision transformer.

    Args:
        width: Stream width.
        heads: Heads of each layer; its length is the depth.
        hidden: MLP width of each layer.
        head_dim: Size of a head.
        patch_size: Pixels on a side of a patch.
        tokens: Length of the sequence, the class token included.
        channels: Channels of the picture.
        classes: Number of classes.
        class_token: Classify from an additional token; otherwise from the mean of the patches.
    """

    def __init__(
        self,
        width: int,
        heads: Sequence[int],
        hidden: Sequence[int],
        head_dim: int,
        patch_size: int,
        tokens: int,
        channels: int,
        classes: int,
        class_token: bool,
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.patch_embed = PatchEmbed(channels, width, patch_size)
        self.blocks = nn.Sequential(*(Block(width, h, head_dim, m) for h, m in zip(heads, hidden, strict=True)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps the result of `prepare`, float32[b, c, height, width], to logits, float32[b, classes]."""
        x = self.patch_embed(x)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = self.norm(self.blocks(x + self.pos_embed))
        return self.head(x.mean(dim=1) if self.cls_token is None else x[:, 0])
