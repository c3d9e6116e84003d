"""Computes the loss of unigram and bigram models (token counts) on the text of an experiment.

Command: `python -m experiments.benchmarks.bigram experiments/plugins/tinyshakespeare_int8.yaml --json`

Both count tokens of the training split. The bigram model is smoothed towards the unigram frequencies, which count as
`strength` extra occurrences; the strength with the lowest validation loss is used. Losses are computed on the sequences
of the experiment, so they can be compared with those of its networks.
"""

from pathlib import Path

import click
import numpy as np
from jaxtyping import Float, Int

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.configuration.experiment_config import load_config
from experiments.data.sequences import Sequences, TextDataset
from search_spaces import UserError

STRENGTHS = tuple(2.0**k for k in range(-2, 10))
MOST_TOKENS = 10_000  # 0.8 GB for each table of float64


@click.command(cls=Benchmark)
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def main(config: Path, as_json: bool) -> None:
    """Runs the benchmark on the text of the experiment CONFIG."""
    loaded = load_config(config)
    data = loaded.data.load(loaded.seed)
    if not isinstance(data, TextDataset) or data.train.masking is not None:
        raise UserError(f"{config}: data: are no text whose tokens follow from those before. Give such an experiment.")
    if data.vocabulary > MOST_TOKENS:
        raise UserError(
            f"{config}: data: {data.vocabulary:,} tokens; a table of all pairs holds {MOST_TOKENS:,} at most. "
            "Give text of bytes or of a small vocabulary."
        )
    show(losses(data), as_json)


def losses(data: TextDataset) -> dict[str, float]:
    """Computes the losses of both models on validation and test text, in nats a token."""
    counts = bigrams(data.train, data.vocabulary)
    validation, test = (bigrams(split, data.vocabulary) for split in (data.validation, data.test))
    unigram = np.broadcast_to((counts.sum(axis=0) + 1) / (counts.sum() + data.vocabulary), counts.shape)
    strength = min(STRENGTHS, key=lambda strength: loss(smoothed(counts, strength), validation))
    bigram = smoothed(counts, strength)
    return {
        "unigram_validation_loss": loss(unigram, validation),
        "unigram_test_loss": loss(unigram, test),
        "bigram_validation_loss": loss(bigram, validation),
        "bigram_test_loss": loss(bigram, test),
        "strength": strength,
    }


def bigrams(split: Sequences, vocabulary: int) -> Int[np.ndarray, "v v"]:
    """Counts how often each token follows each other token in the sequences of a split."""
    x, labels = split.read(np.arange(len(split)))
    pairs = x.reshape(-1).astype(np.int64) * vocabulary + labels.reshape(-1)
    return np.bincount(pairs, minlength=vocabulary**2).reshape(vocabulary, vocabulary)


def smoothed(counts: Int[np.ndarray, "v v"], strength: float) -> Float[np.ndarray, "v v"]:
    """Computes the smoothed probabilities of the next token."""
    anyway = (counts.sum(axis=0) + 1) / (counts.sum() + len(counts))
    return (counts + strength * anyway) / (counts.sum(axis=1, keepdims=True) + strength)


def loss(probabilities: Float[np.ndarray, "v v"], counts: Int[np.ndarray, "v v"]) -> float:
    """Computes the mean negative log-likelihood of the next token."""
    return float(-(counts * np.log(probabilities)).sum() / counts.sum())


if __name__ == "__main__":
    main()
