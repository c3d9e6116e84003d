"""A small random Llama checkpoint, as transformers would have saved it, and a text to train on."""

from pathlib import Path

import jax

from experiments.checkpoint_import import export_checkpoint
from search_spaces import LanguageSpace
from supernet.supernet import build_supernet

TEXT = "".join(f"{number} and {number + 1} make {2 * number + 1}.\n" for number in range(400))


def write_llama(
    directory: Path,
    width: int = 32,
    depth: int = 4,
    mlp_width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    vocabulary: int = 258,
    shard_bytes: int = 10**9,
) -> None:
    """Writes it, with fresh weights that all matter.

    Args:
        directory: Must not exist.
        width: Of the stream.
        depth: Layers.
        mlp_width: Of each MLP.
        heads: Query heads; they divide the width.
        kv_heads: Key-value heads; they divide the heads.
        vocabulary: Tokens; 258 for bytes.
        shard_bytes: The most that a file holds.
    """
    space = LanguageSpace(
        width=(width,), depth=(depth,), kv_heads=(kv_heads,), queries=(heads // kv_heads,), mlp_width=(mlp_width,),
        uniform=True, vocabulary=vocabulary, context=32, head_size=width // heads, tied=False,
    )  # fmt: skip
    net = build_supernet(space)
    leaves, structure = jax.tree.flatten(jax.jit(net.init)(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [leaf + 0.05 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(structure, noisy)
    export_checkpoint(net, params, space.largest, directory, "llama", shard_bytes=shard_bytes)
