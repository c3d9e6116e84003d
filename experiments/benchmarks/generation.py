"""Tokens a second of greedy decoding, with and without a draft, or with exits.

Command: `supernest run experiments/benchmarks/panels/drafts.yaml --set data.path=TEXT --out RUN`, then
`python -m experiments.benchmarks.generation RUN/subnets/full --draft RUN/subnets/draft --text TEXT --json`;
`--draft-layers 2` in place of `--draft` for the first layers of the network itself, `--exits 2,4` for tokens that leave
early.

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
from search_spaces import UserError
from supernet.export.early_exit import generate_early
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


@dataclass(frozen=True)
class EarlyRow:
    """Figures for a confidence from which tokens leave early.

    Attributes:
        confidence: Least probability with which an exit is taken.
        tokens_per_s: Tokens a second with exits.
        speedup: Time without exits over time with them.
        layers: Mean number of layers a token.
        agreement: Share of tokens that are those of the whole network given what was written before them.
    """

    confidence: float
    tokens_per_s: float
    speedup: float
    layers: float
    agreement: float


def measured_early(
    target: LanguageModel, prompts: jax.Array, count: int, exits: tuple[int, ...], confidence: float, rounds: int
) -> EarlyRow:
    """Measures a confidence; arguments as those of `measured` and `generate_early`."""
    early = [generate_early(target, prompt, count, exits, confidence) for prompt in prompts]
    texts = [jnp.concatenate([prompt, one.tokens]) for prompt, one in zip(prompts, early, strict=True)]
    likeliest = [np.argmax(target(text[None])[0, -count - 1 : -1], axis=-1) for text in texts]
    without, with_exits = alternate(
        (
            lambda: [generate(target, prompt[None], count) for prompt in prompts],
            lambda: [generate_early(target, prompt, count, exits, confidence).tokens for prompt in prompts],
        ),
        rounds,
    )
    return EarlyRow(
        confidence, count * len(prompts) / with_exits, without / with_exits,
        float(np.mean([one.layers for one in early])),
        float(np.mean([one.tokens == best for one, best in zip(early, likeliest, strict=True)])),
    )  # fmt: skip


@click.command(cls=Benchmark)
@click.argument("subnet", type=click.Path(path_type=Path, exists=True))
@click.option("--draft", type=click.Path(path_type=Path, exists=True), help="Exported subnet that proposes tokens.")
@click.option("--draft-layers", type=int, help="Number of first layers of SUBNET that propose tokens.")
@click.option("--exits", help="Numbers of layers after which tokens may leave, separated by commas.")
@click.option(
    "--confidence", default="0.5,0.7,0.9", show_default=True, help="Confidences of --exits, separated by commas."
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
    subnet: Path, draft: Path | None, draft_layers: int | None, exits: str | None, confidence: str, text: Path,
    proposed: str, prompts: int, length: int, tokens: int, rounds: int, as_json: bool,
) -> None:  # fmt: skip
    """Runs the benchmark."""
    _, target, tokenizer = language_model(subnet)
    split = Text(str(text), length, tokenizer).load(0, 0.05).test
    given, _ = split.read(np.linspace(0, len(split) - 1, prompts).astype(int))
    pieces = jnp.asarray(given, jnp.int32)
    found: dict[str, float | list[dict[str, float]]] = {}
    helper = language_model(draft)[1] if draft else target.first(draft_layers) if draft_layers else None
    if helper is not None:
        rows = [measured(target, helper, pieces, tokens, number, rounds) for number in map(int, proposed.split(","))]
        found |= {"tokens_per_s": rows[0][0], "with_draft": [asdict(row) for _, row in rows]}
    if exits:
        layers = tuple(map(int, exits.split(",")))
        sure = map(float, confidence.split(","))
        found["with_exits"] = [asdict(measured_early(target, pieces, tokens, layers, one, rounds)) for one in sure]
    if not found:
        raise UserError("nothing to measure. Give --draft, --draft-layers or --exits.")
    show(found, as_json)


if __name__ == "__main__":
    main()
