"""Perplexity of language models on a text, with logits computed by the library `transformers` in fp32.

Command: `python -m experiments.benchmarks.perplexity CHECKPOINT... --text TEXT --context 64 --json`, for directories
that `transformers` loads, such as those of `supernest export --format transformers`. The text is cut into sequences as
the test split of the data source `text` is, so that `supernest evaluate` on it gives the same figures.
"""

from pathlib import Path

import click
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.data.text import Text

_BATCH = 8


def perplexity(checkpoint: Path, text: Path, context: int) -> dict[str, float]:
    """Returns perplexity, loss in nats a token, tokens and parameters (tied ones once)."""
    import torch
    from transformers import AutoModelForCausalLM

    source = Text(str(text), context, str(checkpoint), validation_path=str(text), test_path=str(text))
    split = source.load(0, 0.1).test
    x, labels = split.read(np.arange(len(split)))
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    total = 0.0
    with torch.no_grad():
        for at in range(0, len(x), _BATCH):
            logits = model(torch.from_numpy(x[at : at + _BATCH].astype(np.int64))).logits
            wanted = torch.from_numpy(labels[at : at + _BATCH].astype(np.int64)).flatten()
            total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted, reduction="sum").item()
    loss = total / labels.size
    params = sum(leaf.numel() for leaf in model.parameters())
    return {"perplexity": float(np.exp(loss)), "loss": loss, "tokens": labels.size, "params": params}


@click.command(cls=Benchmark)
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--text", type=click.Path(path_type=Path, exists=True), required=True, help="Text file to evaluate on.")
@click.option("--context", default=64, show_default=True, help="Sequence length in tokens.")
@json_option
def main(checkpoints: tuple[Path, ...], text: Path, context: int, as_json: bool) -> None:
    """Computes the perplexity of CHECKPOINT directories on a text."""
    show({str(checkpoint): perplexity(checkpoint, text, context) for checkpoint in checkpoints}, as_json)


if __name__ == "__main__":
    main()
