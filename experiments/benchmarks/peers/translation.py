"""The translation peer: encoder and decoder whose products take slices of the largest weights.

References:
    Wang et al. HAT: Hardware-Aware Transformers for Efficient Natural Language Processing. ACL 2020, arXiv:2005.14187.
    Differs: norms come first, and PyTorch's fused attention replaces separate products, since it is faster.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from experiments.benchmarks.peers.tensors import Tensors, below, layer, leaf


class Peer:
    """An elastic encoder-decoder with norms before sublayers and one table of embeddings.

    Args:
        weights: Our weights by path; layers are stacked on the first axis.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.table = leaf(weights["embedding"])
        self.norms = [
            {name: leaf(weights[f"{side}/norm/{name}"]) for name in ("scale", "bias")}
            for side in ("encoder", "decoder")
        ]
        self.encoder, self.decoder = (_layers(below(weights, f"{side}/layers/")) for side in ("encoder", "decoder"))
        parts = (*self.norms, *self.encoder, *self.decoder)
        self.parameters = [self.table, *(tensor for part in parts for tensor in part.values())]
        pairs = -(-self.table.shape[1] // 2)
        self._frequencies = torch.from_numpy((10000.0 ** (-np.arange(pairs) / pairs)).astype(np.float32))
        self._waves: torch.Tensor | None = None

    def prepare(self, x: np.ndarray) -> torch.Tensor:
        """Returns tokens int[b, 2, t] in the form that the network takes."""
        return torch.from_numpy(x).long()

    def __call__(self, x: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
        """Computes logits [b, t, vocabulary] of the subnet with this configuration."""
        source, target = x[:, 0], x[:, 1]
        seen = (source != config["pad"]) | (torch.arange(source.shape[1]) == 0)
        y = self._embedded(source, config["encoder_width"])
        outputs = [y]
        for of, heads, hidden in zip(self.encoder, config["encoder_heads"], config["encoder_mlp_width"], strict=False):
            read = _norm(y, of, "attention/norm")
            y = y + _attention(read, read, of, "attention", heads, seen[:, None, None])
            y = y + _mlp(y, of, hidden)
            outputs.append(y)
        last = max(config["memories"])
        outputs = [_norm(one, self.norms[0], "") for one in outputs[::-1][:last]]
        y, sizes = (
            self._embedded(target, config["decoder_width"]),
            ("decoder_heads", "cross_heads", "decoder_mlp_width"),
        )
        layers = zip(self.decoder, *(config[name] for name in sizes), config["memories"], strict=False)
        for of, heads, cross_heads, hidden, memories in layers:
            read = _norm(y, of, "attention/norm")
            y = y + _attention(read, read, of, "attention", heads, None)
            memory, mask = torch.cat(outputs[:memories], dim=1), torch.cat([seen] * memories, dim=1)
            y = y + _attention(_norm(y, of, "cross/norm"), memory, of, "cross", cross_heads, mask[:, None, None])
            y = y + _mlp(y, of, hidden)
        return F.linear(_norm(y, self.norms[1], ""), self.table[:, : y.shape[-1]])

    def _embedded(self, tokens: torch.Tensor, width: int) -> torch.Tensor:
        t = tokens.shape[1]
        if self._waves is None or len(self._waves) != t:
            with torch.inference_mode(False):  # training steps use them too, whoever asks first
                angles = torch.arange(t)[:, None] * self._frequencies
                self._waves = torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(t, -1)
        return F.embedding(tokens, self.table[:, :width]) * self.table.shape[1] ** 0.5 + self._waves[:, :width]


def _layers(stacked: Mapping[str, np.ndarray]) -> list[Tensors]:
    return [_leaves(layer(stacked, i)) for i in range(len(stacked["mlp/up/bias"]))]


def _leaves(weights: Mapping[str, np.ndarray]) -> Tensors:
    """Returns tensors of a layer; projections of the same input are one product."""
    found = {name: value.T if name.endswith("kernel") else value for name, value in weights.items()}
    joins = [("attention/qkv", "attention", "qkv")]
    if "cross/q/kernel" in found:
        joins.append(("cross/kv", "cross", "kv"))
    for joined, name, parts in joins:
        for kind in ("kernel", "bias"):
            found[f"{joined}/{kind}"] = np.concatenate([found.pop(f"{name}/{part}/{kind}") for part in parts])
    return {name: leaf(value) for name, value in found.items()}


def _attention(
    x: torch.Tensor, memory: torch.Tensor, of: Tensors, name: str, heads: int, seen: torch.Tensor | None
) -> torch.Tensor:
    if name == "attention":
        q, k, v = _linear(x, of, "attention/qkv", None).chunk(3, dim=-1)
    else:
        q, (k, v) = _linear(x, of, "cross/q", None), _linear(memory, of, "cross/kv", None).chunk(2, dim=-1)
    q, k, v = (a.reshape(*a.shape[:2], heads, -1).transpose(1, 2) for a in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None)
    return _linear(y.transpose(1, 2).flatten(2), of, f"{name}/out", x.shape[-1])


def _mlp(x: torch.Tensor, of: Tensors, hidden: int) -> torch.Tensor:
    return _linear(F.relu(_linear(_norm(x, of, "mlp/norm"), of, "mlp/up", hidden)), of, "mlp/down", x.shape[-1])


def _linear(x: torch.Tensor, of: Tensors, name: str, out: int | None) -> torch.Tensor:
    return F.linear(x, of[f"{name}/kernel"][:out, : x.shape[-1]], of[f"{name}/bias"][:out])


def _norm(x: torch.Tensor, of: Tensors, name: str) -> torch.Tensor:
    width, start = x.shape[-1], f"{name}/" if name else ""
    return F.layer_norm(x, (width,), of[f"{start}scale"][:width], of[f"{start}bias"][:width], 1e-6)
