"""`supernest translate`."""

import json
from pathlib import Path

import click

from experiments.commands.options import json_option, plugin_option
from experiments.user_input.paths import UserPath


@click.command()
@click.argument("subnet", type=UserPath())
@click.argument("text", type=UserPath())
@click.option(
    "--reference", type=UserPath(), metavar="FILE",
    help="Translations by people, one for each line of TEXT. BLEU against them is printed (sacreBLEU).",
)  # fmt: skip
@click.option(
    "--beam", type=click.IntRange(1, 100), default=4, show_default=True,
    help="Width of the beam search; 1 takes the likeliest token each time.",
)  # fmt: skip
@click.option(
    "--length-penalty", type=click.FloatRange(0, 10), default=0.6, show_default=True,
    help="Power of the length by which log-probabilities are divided; larger prefers longer translations.",
)  # fmt: skip
@plugin_option
@json_option
def translate(
    subnet: Path, text: Path, reference: Path | None, beam: int, length_penalty: float, as_json: bool
) -> None:  # fmt: skip
    """Translate each line of a file with an exported translation network.

    Translations are printed line by line. TEXT may be compressed (.gz, .xz).
    """
    from experiments.subnets.translation import translated

    found = translated(subnet, text, reference, beam, length_penalty)
    click.echo(json.dumps(found.as_json(), ensure_ascii=False) if as_json else "\n".join(found.lines))
    if found.bleu is not None and not as_json:
        click.echo(f"BLEU {found.bleu.score:.2f} ({found.bleu.signature})", err=True)
