"""Tokens a second of greedy decoding, with and without a draft.

Command: `supernest run experiments/benchmarks/panels/drafts.yaml --set data.path=TEXT --out RUN`, then
`python -m experiments.benchmarks.generation RUN/subnets/full --draft RUN/subnets/draft --text TEXT --json`.

Both continue the same pieces of the text, in turn in one process. The speed-up is the ratio of the median times.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import click
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.timing import alternate
from experiments.commands.options import json_option
from experiments.data.text import Text
from experiments.subnets.generation import language_model
from supernet.export.generate import generate
from supernet.export.speculative import speculate
from supernet.standalone.language import LanguageModel


@dataclass(frozen=True)
class Row:
    """Figures for a number of proposed tokens.

    Attributes:
        proposed: Tokens that the draft proposes a round.
        tokens_per_s: Tokens a second with the draft.
        speedup: Time without the draft over time with it.
        accepted: Share of proposed tokens that were accepted.
        same: Whether all texts equal those of the target alone.
    """

    proposed: int
    tokens_per_s: float
    speedup: float
    accepted: float
    same: bool


def measured(
    target: LanguageModel, draft: LanguageModel, prompts: jax.Array, count: int, proposed: int, rounds: int
) -> tuple[float, Row]:
    """Measures tokens a second without the draft, and the figures with it.

    Args:
        target: The model that generates the text.
        draft: The model that proposes tokens.
        prompts: int[n, t], continued one after the other.
        count: Number of tokens generated for each prompt.
        proposed: Tokens that the draft proposes a round.
        rounds: Alternating rounds, of which the median counts.
    """
    alone = [generate(target, prompt[None], count)[0] for prompt in prompts]
    helped = [speculate(target, draft, prompt, count, proposed) for prompt in prompts]
    without, with_draft = alternate(
        (
            lambda: [generate(target, prompt[None], count) for prompt in prompts],
            lambda: [speculate(target, draft, prompt, count, proposed).tokens for prompt in prompts],
        ),
        rounds,
    )
    written = count * len(prompts)
    same = all(np.array_equal(one.tokens, text) for one, text in zip(helped, alone, strict=True))
    accepted = sum(one.accepted for one in helped) / (proposed * sum(one.rounds for one in helped))
    return written / without, Row(proposed, written / with_draft, without / with_draft, accepted, same)


@click.command(cls=Benchmark)
@click.argument("subnet", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--draft", type=click.Path(path_type=Path, exists=True), required=True, help="Exported subnet that proposes tokens."
)
@click.option(
    "--text",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Text file that the prompts are cut from.",
)
@click.option(
    "--proposed", default="2,4,8", show_default=True, help="Numbers of tokens proposed in a round, separated by commas."
)
@click.option("--prompts", default=8, show_default=True, help="Number of prompts.")
@click.option("--length", default=32, show_default=True, help="Length of each prompt in tokens.")
@click.option("--tokens", default=96, show_default=True, help="Number of tokens generated for each prompt.")
@click.option("--rounds", default=5, show_default=True, help="Number of alternating rounds; the median counts.")
@json_option
def main(
    subnet: Path, draft: Path, text: Path, proposed: str, prompts: int, length: int, tokens: int, rounds: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Runs the benchmark."""
    _, target, tokenizer = language_model(subnet)
    _, helper, _ = language_model(draft)
    split = Text(str(text), length, tokenizer).load(0, 0.05).test
    given, _ = split.read(np.linspace(0, len(split) - 1, prompts).astype(int))
    pieces = jnp.asarray(given, jnp.int32)
    found = [measured(target, helper, pieces, tokens, number, rounds) for number in map(int, proposed.split(","))]
    show({"tokens_per_s": found[0][0], "with_draft": [asdict(row) for _, row in found]}, as_json)


if __name__ == "__main__":
    main()
