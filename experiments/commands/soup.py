"""`supernest soup`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.commands.experiment_file import errors_about_file, load
from experiments.commands.options import json_option, plugin_option, set_option
from experiments.user_input.paths import UserPath

if TYPE_CHECKING:
    from experiments.souping.choice import Method


@click.command()
@click.argument("inputs", type=UserPath(), nargs=-1, required=True, metavar="NETWORK|RUN...")
@click.option(
    "--out", type=UserPath(), required=True, help="New directory for the averaged networks, or for the averaged run."
)
@click.option(
    "--method", type=click.Choice(["greedy", "uniform"]), default="greedy", show_default=True,
    help="uniform averages all networks. greedy begins with the best and adds each network that improves the average "
    "on the validation split; with networks of several shapes, it adds a network only if no shape loses more than "
    "--tolerance.",
)  # fmt: skip
@click.option(
    "--tolerance", type=click.FloatRange(min=0, max=1000),
    help="For networks of several shapes: the most that a shape may lose on the validation split against its best "
    "network. 0.01 is one point of accuracy, or 0.01 nats.  [default: 0]",
)  # fmt: skip
@click.option(
    "--data", type=UserPath(), metavar="YAML",
    help="Experiment file that the networks were trained with.  [default: that of their run]",
)  # fmt: skip
@set_option
@plugin_option
@json_option
def soup(
    inputs: tuple[Path, ...], out: Path, method: str, tolerance: float | None, data: Path | None,
    overrides: Sequence[str], as_json: bool,
) -> None:  # fmt: skip
    """Average the weights of exported networks or of runs, and write the average as a network or a run.

    Networks of one shape give one network. Subnets of several shapes are averaged where their weights overlap, and
    each shape gives a network. All networks must descend from one run; supernest finetune --variants makes such
    networks. Only validation examples decide what is averaged, and batch statistics are calibrated again. Runs must
    have begun with the same weights; the new run can be searched and exported.
    """
    from experiments.process.interrupt import stop_on_signals
    from experiments.souping.settings import Souping, experiment_of
    from experiments.souping.stage import soup as run
    from experiments.storage.run_files import is_run
    from search_spaces.errors import UserError

    chosen: Method = "uniform" if method == "uniform" else "greedy"
    if any(is_run(path) for path in inputs):
        from experiments.souping.runs import soup_of_runs

        if data is not None or overrides or tolerance is not None:
            raise UserError("--data, --set, --tolerance: are for networks. Runs have settings of their own.")
        with stop_on_signals() as stop:
            of_runs = soup_of_runs(inputs, out, chosen, stop)
        click.echo(json.dumps(of_runs.as_json()) if as_json else "\n".join(of_runs.lines()))
        return
    data = data or experiment_of(inputs)
    settings = Souping(inputs, out, load(data, overrides), str(data), chosen, tolerance)
    with errors_about_file(data), stop_on_signals() as stop:
        made = run(settings, stop)
    click.echo(json.dumps(made.as_json()) if as_json else "\n".join(made.lines()))
