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
    "--draft-tokens",
    type=click.IntRange(1, 100),
    help="Number of tokens that --draft proposes at a time.  [default: 4]",
)
@json_option
def generate(
    subnet: Path, prompt: str, tokens: int, temperature: float, seed: int, bos: bool | None, draft: Path | None,
    draft_tokens: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Continue a text with an exported language model."""
    from experiments.subnets.generation import Draft, continued
    from search_spaces.errors import UserError

    if draft is None and draft_tokens is not None:
        raise UserError("--draft-tokens: of which draft? Name it: --draft SUBNET")
    helper = None if draft is None else Draft(draft) if draft_tokens is None else Draft(draft, draft_tokens)
    found = continued(subnet, prompt, tokens, temperature, seed, bos, helper)
    if not as_json and found.draft is not None:
        click.echo(f"note: {found.draft.accepted} of {found.draft.proposed} proposed tokens were kept.", err=True)
    click.echo(json.dumps(found.as_json()) if as_json else found.prompt + found.text)
