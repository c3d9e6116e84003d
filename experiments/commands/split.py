"""`supernest split`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.commands.options import json_option, plugin_option, quiet_option
from experiments.user_input.paths import UserPath

if TYPE_CHECKING:
    from experiments.splitting.choice import Method


@click.command()
@click.argument("parent", type=UserPath(), metavar="RUN")
@click.option("--out", type=UserPath(), required=True, help="New experiment file to write for the sub-supernets.")
@click.option(
    "--by", type=click.Choice(["gradients", "random", "exhaustive"]), default="gradients", show_default=True,
    help="Choice of what is split: values whose gradients agree stay together (GM-NAS); a random gene into random "
    "groups; or a random gene into a group for each value (few-shot NAS).",
)  # fmt: skip
@click.option("--groups", type=click.IntRange(min=2), help="Number of groups; not used by exhaustive.  [default: 2]")
@click.option("--choice", metavar="NAME", help="Choice to split, such as kernel.  [default: the best]")
@click.option(
    "--position", type=click.IntRange(min=0), help="Index of the gene within the choice, from 0.  [default: the best]"
)
@click.option(
    "--draws", type=click.IntRange(min=1, max=10**6),
    help="Number of batches and architectures at which gradients are compared.  [default: 25]",
)  # fmt: skip
@plugin_option
@quiet_option
@json_option
def split(
    parent: Path, out: Path, by: "Method", groups: int | None, choice: str | None, position: int | None,
    draws: int | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Divide a trained supernet into sub-supernets that share no weights with one another.

    Writes an experiment file that continues their training from the weights of RUN. Each sub-supernet has some of the
    values of one choice. A run that is already split can be split again.
    """
    from experiments.process.interrupt import stop_on_signals
    from experiments.splitting.choice import Splitting, choose_split, refuse_existing, write_experiment
    from search_spaces.errors import UserError

    refuse_existing(out)
    for option, given, methods in (
        ("--groups", groups, ("gradients", "random")),
        ("--draws", draws, ("gradients",)),
    ):
        if given is not None and by not in methods:
            raise UserError(f"{option}: is for --by {' or '.join(methods)}. Leave it out.")
    settings = Splitting(parent, by, groups or 2, choice, position, draws or 25)
    with stop_on_signals() as stop:
        found, experiment = choose_split(settings, stop, quiet)
    write_experiment(experiment, parent, found.split, out)
    click.echo(json.dumps(found.as_json()) if as_json else "\n".join([*found.lines(), str(out)]))
