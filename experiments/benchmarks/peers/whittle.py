"""Language peer that others maintain: whittle's GPT, with our weights.

It needs other package versions than ours, so it runs in its own environment (`--python`):

    python -m venv whittle && whittle/bin/pip install torch==2.13.0 numpy lightning torchmetrics jsonargparse \
        safetensors psutil
    whittle/bin/pip install --no-deps whittle==0.6.0 litgpt==0.5.12

References:
    Sukthanker et al. whittle 0.6.0: two-stage neural architecture search for large language models (Apache-2.0).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from litgpt import Config  # pyright: ignore[reportMissingImports]
from whittle.models.gpt import GPT  # pyright: ignore[reportMissingImports]

from experiments.benchmarks.peers.language import Peer as Plain


class Peer:
    """whittle's supernet.

    Args:
        weights: Our weights by path.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        plain = Plain(weights)
        vocabulary, width = plain.embedding_and_head["embedding"].shape
        inner = plain.layers[0]["attention/qkv/kernel"].shape[1]
        heads = weights["layers/attention/k/kernel"].shape[2]
        config = Config(
            name="peer", block_size=128, vocab_size=vocabulary, padded_vocab_size=vocabulary, n_layer=len(plain.layers),
            n_head=heads, n_embd=width, head_size=inner // heads, intermediate_size=len(plain.layers[0]["mlp/up/bias"]),
            rotary_percentage=0.25, parallel_residual=True, bias=True, norm_class_name="LayerNorm", norm_eps=1e-5,
            mlp_class_name="GptNeoxMLP",
        )  # fmt: skip
        self._net = GPT(config)
        self._net.max_seq_length = 128
        ours = {
            "lm_head.weight": plain.embedding_and_head["head"],
            "transformer.wte.weight": plain.embedding_and_head["embedding"],
            **_norm("transformer.ln_f", plain.embedding_and_head, "norm"),
        }
        for i, layer in enumerate(plain.layers):
            to = f"transformer.h.{i}"
            ours |= {
                **_norm(f"{to}.norm_1", layer, "attention/norm"),
                **_norm(f"{to}.norm_2", layer, "mlp/norm"),
                f"{to}.attn.qkv.weight": layer["attention/qkv/kernel"].reshape(-1, width),
                f"{to}.attn.qkv.bias": layer["attention/qkv/bias"].reshape(-1),
                **_linear(f"{to}.attn.proj", layer, "attention/out"),
                **_linear(f"{to}.mlp.fc", layer, "mlp/up"),
                **_linear(f"{to}.mlp.proj", layer, "mlp/down"),
            }
        self._net.load_state_dict(ours, strict=True)
        self.parameters = list(self._net.parameters())
        self.prepare = plain.prepare

    def __call__(self, tokens: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
        """Computes logits [b, t, vocabulary] of the subnet with this configuration."""
        heads = config["kv_heads"][0]
        self._net.set_sub_network(
            sub_network_n_embd=config["width"], sub_network_intermediate_size=config["mlp_width"][0],
            sub_network_num_heads=heads, sub_network_n_layers=len(config["kv_heads"]), sub_network_query_groups=heads,
            sub_network_head_size=config["form"]["head_size"],
        )  # fmt: skip
        return self._net(tokens)


def _linear(to: str, layer: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {f"{to}.weight": layer[f"{name}/kernel"], f"{to}.bias": layer[f"{name}/bias"]}


def _norm(to: str, layer: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {f"{to}.weight": layer[f"{name}/scale"], f"{to}.bias": layer[f"{name}/bias"]}
