"""`supernest generate`."""

import json
from pathlib import Path

import click

from experiments.commands.options import json_option, plugin_option
from experiments.user_input.paths import UserPath


@click.command()
@click.argument("subnet", type=UserPath())
@click.option("--prompt", required=True, help="Text to go on from.")
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
@json_option
def generate(
    subnet: Path, prompt: str, tokens: int, temperature: float, seed: int, bos: bool | None, as_json: bool
) -> None:
    """Continue a text with an exported language model."""
    from experiments.subnets.generation import continued

    found = continued(subnet, prompt, tokens, temperature, seed, bos)
    click.echo(json.dumps(found) if as_json else found["prompt"] + found["text"])
