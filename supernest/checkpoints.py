"""Checkpoints of transformers in Python: a language model becomes a supernet that an experiment starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any


def import_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    calibrate: Sequence[str | Path] = (),
    sequences: int = 32,
    context: int | None = None,
    dtype: str | None = None,
) -> Mapping[str, Any]:
    """Turns a language model of transformers into a supernet, as `supernest import` does.

    Args:
        checkpoint: Directory with config.json and safetensors, or a name on the Hugging Face hub.
        out: Directory to write; must not exist. It is what `start` of an experiment names.
        calibrate: Texts by which heads, MLP units, channels and layers are ordered by what matters.
        sequences: Number of sequences of these texts that are used.
        context: Number of tokens of a sequence; the longest of the model when None, at most 1024.
        dtype: Type of the weights: float32, bfloat16 or float16; as stored when None.

    Returns:
        The directory, the model type, whether it is ordered, and sizes.

    Raises:
        UserError: The checkpoint cannot be imported; nothing is written then.
    """
    from experiments.pretrained.import_command import import_to

    texts = [Path(text) for text in calibrate]
    return asdict(import_to(str(checkpoint), Path(out), texts, sequences, context, dtype))
