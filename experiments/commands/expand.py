"""`supernest expand`."""

import json
from pathlib import Path

import click

from experiments.commands.options import json_option, plugin_option
from experiments.user_input.paths import UserPath


@click.command()
@click.argument("parent", type=UserPath(), metavar="RUN")
@click.option("--depth", type=int, required=True, help="Number of layers of the new network, such as 8.")
@click.option(
    "--out", type=UserPath(),
    help="New experiment file to write.  [default: NAME_DEPTH_layers.yaml, NAME being that of the experiment]",
)  # fmt: skip
@plugin_option
@json_option
def expand(parent: Path, depth: int, out: Path | None, as_json: bool) -> None:
    """Make a network of any depth from the trained blocks of a run.

    RUN has sharing linear_expansion (TLEG) or stage_expansion (SWS). Writes an experiment file with plain weights,
    whose training starts from the layers that the blocks expand to.
    """
    from experiments.expanding.stage import expand as run

    expansion = run(parent, depth, out)
    click.echo(json.dumps(expansion.as_json()) if as_json else "\n".join(expansion.lines()))
