"""The language peer: a GPT whose products take slices of the largest weights.

References:
    Black et al. GPT-NeoX-20B: An Open-Source Autoregressive Language Model. 2022, arXiv:2204.06745 (parallel residual,
    partly rotated heads).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from experiments.benchmarks.peers.tensors import Tensors, below, layer, leaf


class Peer:
    """An elastic GPT-NeoX: LayerNorm, biases, exact GELU, attention and MLP side by side.

    Args:
        weights: Our weights by path; layers are stacked on the first axis.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        stacked = below(weights, "layers/")
        self.embedding_and_head = {
            name: leaf(value) for name, value in weights.items() if not name.startswith(("layers/", "frequencies"))
        }
        self.layers = [_leaves(layer(stacked, i)) for i in range(len(stacked["mlp/up/bias"]))]
        self.parameters = [tensor for part in (self.embedding_and_head, *self.layers) for tensor in part.values()]
        self._frequencies = torch.from_numpy(weights["frequencies"])
        self._turns: tuple[torch.Tensor, torch.Tensor] | None = None

    def prepare(self, x: np.ndarray) -> torch.Tensor:
        """Returns tokens int[b, t] in the form that the network takes."""
        return torch.from_numpy(x).long()

    def __call__(self, tokens: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
        """Computes logits [b, t, vocabulary] of the subnet with this configuration."""
        (b, t), width, d = tokens.shape, config["width"], config["form"]["head_size"]
        x = F.embedding(tokens, self.embedding_and_head["embedding"][:, :width])
        for of, heads, hidden in zip(self.layers, config["kv_heads"], config["mlp_width"], strict=False):
            inner = heads * d
            kernel = of["attention/qkv/kernel"][:, :inner, :width].reshape(-1, width)
            y = F.linear(_norm(x, of, "attention/norm"), kernel, of["attention/qkv/bias"][:, :inner].reshape(-1))
            q, k, v = y.reshape(b, t, 3, heads, d).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(self._rotated(q), self._rotated(k), v, is_causal=True)
            attended = _linear(y.transpose(1, 2).reshape(b, t, inner), of, "attention/out", width)
            y = F.gelu(_linear(_norm(x, of, "mlp/norm"), of, "mlp/up", hidden))
            x = x + attended + _linear(y, of, "mlp/down", width)
        return F.linear(_norm(x, self.embedding_and_head, "norm"), self.embedding_and_head["head"][:, :width])

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        t, half = x.shape[-2], len(self._frequencies)
        if self._turns is None or len(self._turns[0]) != t:
            with torch.inference_mode(False):  # training steps use them too, whoever asks first
                angles = torch.arange(t)[:, None] * self._frequencies
                self._turns = angles.cos(), angles.sin()
        cos, sin = self._turns
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def _leaves(weights: Mapping[str, np.ndarray]) -> Tensors:
    attend = below(weights, "attention/")
    out = attend["out/kernel"]
    flat = {
        **{name: value for name, value in weights.items() if not name.startswith("attention/")},
        **{f"attention/{name}": value for name, value in attend.items() if name[:2] not in ("q/", "k/", "v/")},
        "attention/out/kernel": out.reshape(-1, out.shape[-1]),
    }
    kernels = [attend[f"{name}/kernel"].reshape(len(attend[f"{name}/kernel"]), -1).T for name in "qkv"]
    return {
        **{name: leaf(value.T if name.endswith("kernel") else value) for name, value in flat.items()},
        "attention/qkv/kernel": leaf(np.stack(kernels)),
        "attention/qkv/bias": leaf(np.stack([attend[f"{name}/bias"].reshape(-1) for name in "qkv"])),
    }


def _linear(x: torch.Tensor, of: Tensors, name: str, out: int) -> torch.Tensor:
    return F.linear(x, of[f"{name}/kernel"][:out, : x.shape[-1]], of[f"{name}/bias"][:out])


def _norm(x: torch.Tensor, of: Tensors, name: str) -> torch.Tensor:
    width = x.shape[-1]
    return F.layer_norm(x, (width,), of[f"{name}/scale"][:width], of[f"{name}/bias"][:width], 1e-5)
