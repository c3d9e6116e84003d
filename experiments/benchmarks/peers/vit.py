"""ViT peer: each product slices the largest weights to the sampled network.

References:
    Chen et al. AutoFormer: Searching Transformers for Visual Recognition. ICCV 2021, arXiv:2107.00651.
    Differs: PyTorch's fused attention replaces separate products, since it is faster.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from experiments.benchmarks.peers.tensors import Tensors, below, layer, leaf


class Peer:
    """An elastic vision transformer.

    Args:
        weights: Our weights by path; layers are stacked on the first axis.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        stacked = below(weights, "layers/")
        self.embedding_and_head = _leaves(
            {name: value for name, value in weights.items() if not name.startswith("layers/")}
        )
        self.layers = [_leaves(layer(stacked, i)) for i in range(len(stacked["norm1/scale"]))]
        self.parameters = [tensor for part in (self.embedding_and_head, *self.layers) for tensor in part.values()]

    def prepare(self, x: np.ndarray) -> torch.Tensor:
        """Returns images float32[b, h, w, c] in the form that the network takes."""
        return torch.from_numpy(x)

    def __call__(self, x: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
        """Computes logits [b, classes] of the subnet with this configuration."""
        b, size, _, channels = x.shape
        p, width, d = config["patch_size"], config["width"], config["head_dim"]
        x = (
            x.reshape(b, size // p, p, size // p, p, channels)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(b, -1, p * p * channels)
        )
        x = _linear(x, self.embedding_and_head, "patch", width)
        if "class_token" in self.embedding_and_head:
            x = torch.cat([self.embedding_and_head["class_token"][..., :width].expand(b, 1, width), x], dim=1)
        x = x + self.embedding_and_head["position"][..., :width]
        t = x.shape[1]
        for of, heads, hidden in zip(self.layers, config["heads"], config["hidden"], strict=False):
            inner = heads * d
            kernel = of["attention/qkv/kernel"][:, :inner, :width].reshape(-1, width)
            y = F.linear(_norm(x, of, "norm1"), kernel, of["attention/qkv/bias"][:, :inner].reshape(-1))
            q, k, v = y.reshape(b, t, 3, heads, d).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, inner)
            x = x + _linear(y, of, "attention/out", width)
            y = F.gelu(_linear(_norm(x, of, "norm2"), of, "fc1", hidden), approximate="tanh")
            x = x + _linear(y, of, "fc2", width)
        x = _norm(x, self.embedding_and_head, "norm")
        x = x[:, 0] if "class_token" in self.embedding_and_head else x.mean(dim=1)
        return _linear(x, self.embedding_and_head, "head", len(self.embedding_and_head["head/bias"]))


def _leaves(weights: Mapping[str, np.ndarray]) -> Tensors:
    return {
        name: leaf(np.moveaxis(value, 0, -1) if name.endswith("kernel") else value) for name, value in weights.items()
    }


def _linear(x: torch.Tensor, of: Tensors, name: str, out: int) -> torch.Tensor:
    return F.linear(x, of[f"{name}/kernel"][:out, : x.shape[-1]], of[f"{name}/bias"][:out])


def _norm(x: torch.Tensor, of: Tensors, name: str) -> torch.Tensor:
    width = x.shape[-1]
    return F.layer_norm(x, (width,), of[f"{name}/scale"][:width], of[f"{name}/bias"][:width], 1e-6)
