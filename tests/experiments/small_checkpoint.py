"""Small random checkpoints, as transformers would have saved them, and a text to train on."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.pretrained.formats import export_checkpoint
from search_spaces import LanguageSpace
from supernet.engine.supernet import build_supernet

TEXT = "".join(f"{number} and {number + 1} make {2 * number + 1}.\n" for number in range(400))
_LEARNED = {
    "positions": "learned", "norm": "layer", "qkv_bias": True, "out_bias": True, "mlp_bias": True, "queries": (1,),
    "kv_heads": (4,),
}  # fmt: skip
_FORMS: dict[str, dict[str, Any]] = {
    "llama": {"tied": False, "kv_heads": (2,), "queries": (2,)},
    "gpt2": {**_LEARNED, "norm_epsilon": 1e-5, "activation": "gelu_tanh"},
    "bert": {
        **_LEARNED, "norm_epsilon": 1e-12, "activation": "gelu", "causal": False, "post_norm": True, "token_types": 2,
        "head_transform": True,
    },
}  # fmt: skip


def write_checkpoint_of(model_type: str, directory: Path, shard_bytes: int = 10**9, **settings: Any) -> None:
    """Writes a checkpoint with fresh weights that all matter.

    Args:
        model_type: `llama`, `gpt2` or `bert`.
        directory: Must not exist.
        shard_bytes: The most that a file holds.
        settings: Fields of the space whose one network it is; by default 4 layers, 32 wide, with tokens for bytes.
    """
    sizes = {"width": (32,), "depth": (4,), "mlp_width": (64,), "vocabulary": 258, "context": 32, "head_size": 8}
    space = LanguageSpace(**{**sizes, "uniform": True, **_FORMS[model_type], **settings})
    net = build_supernet(space)
    leaves, structure = jax.tree.flatten(net.init(jax.random.key(0)))
    noise = np.random.default_rng(1)
    noisy = [leaf + 0.05 * noise.standard_normal(leaf.shape, np.float32) for leaf in leaves]
    params = jax.tree.unflatten(structure, noisy)
    export_checkpoint(net, params, space.largest, directory, model_type, shard_bytes=shard_bytes)
