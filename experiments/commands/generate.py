"""`supernest generate`."""

import json
from pathlib import Path

import click

from experiments.commands.options import json_option, plugin_option
from experiments.user_input.paths import UserPath


@click.command()
@click.argument("subnet", type=UserPath())
@click.option("--prompt", required=True, help="Text to continue.")
@click.option(
    "--tokens", type=click.IntRange(min=1), default=100, show_default=True, help="Largest number of tokens to write."
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Temperature of the draw; 0 takes the likeliest token.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the drawn tokens.")
@plugin_option
@click.option(
    "--bos/--no-bos",
    default=None,
    help="Begin with the tokens that the tokenizer puts before a text, such as <s>.  [default: as in training]",
)
@click.option(
    "--draft",
    type=UserPath(),
    metavar="SUBNET",
    help="Smaller export with the same tokenizer. It proposes tokens, and SUBNET checks several of them at once. "
    "This changes the speed only: at temperature 0 the text is the one that SUBNET alone writes, and otherwise it has "
    "the same distribution.",
)
@click.option(
    "--draft-layers",
    type=click.IntRange(min=1),
    metavar="N",
    help="The first N layers of SUBNET itself are the draft. Train it with them as an exit (train.exits).",
)
@click.option(
    "--draft-tokens",
    type=click.IntRange(1, 100),
    help="Number of tokens that the draft proposes at a time.  [default: 4]",
)
@click.option(
    "--exit",
    "exits",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="N",
    help="A token takes the first N layers only if they are sure of it; may be repeated. This changes the text. Train "
    "the network with these exits (train.exits).",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True),
    help="Probability of the likeliest token from which an --exit is sure.  [default: 0.9]",
)
@json_option
def generate(
    subnet: Path, prompt: str, tokens: int, temperature: float, seed: int, bos: bool | None, draft: Path | None,
    draft_layers: int | None, draft_tokens: int | None, exits: tuple[int, ...], confidence: float | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Continue a text with an exported language model."""
    from experiments.subnets.generation import Draft, Exits, continued
    from search_spaces.errors import UserError

    helper = draft_layers if draft is None else draft
    if helper is None and draft_tokens is not None:
        raise UserError("--draft-tokens: of which draft? Name it: --draft SUBNET, or --draft-layers N")
    if not exits and confidence is not None:
        raise UserError("--confidence: of which exits? Name them: --exit N")
    if sum((draft is not None, draft_layers is not None, bool(exits))) > 1:
        raise UserError("--draft, --draft-layers, --exit: more than one of them. Give one.")
    found = continued(
        subnet, prompt, tokens, temperature, seed, bos,
        None if helper is None else Draft(helper, draft_tokens or 4),
        Exits(tuple(sorted(set(exits))), 0.9 if confidence is None else confidence) if exits else None,
    )  # fmt: skip
    if not as_json and found.draft is not None:
        click.echo(f"note: {found.draft.accepted} of {found.draft.proposed} proposed tokens were kept.", err=True)
    if not as_json and found.layers:
        click.echo(f"note: {sum(found.layers) / len(found.layers):.1f} layers a token.", err=True)
    click.echo(json.dumps(found.as_json()) if as_json else found.prompt + found.text)
