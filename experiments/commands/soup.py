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
    "--out", type=UserPath(), required=True, help="Directory of the soup, a new one; of runs, a run directory."
)
@click.option(
    "--method", type=click.Choice(["greedy", "uniform"]), default="greedy", show_default=True,
    help="Networks that are taken: all (uniform), or the best and each that improves the mean on the validation split; "
    "of several shapes, each with which no shape loses more than --tolerance.",
)  # fmt: skip
@click.option(
    "--tolerance", type=click.FloatRange(min=0, max=1000),
    help="Largest loss of a shape on the validation split against its best network, for networks of several shapes: "
    "0.01 is one point of accuracy, or 0.01 nats.  [default: 0]",
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
    """Average the weights of exported networks, and export the average; or those of runs, into a new run.

    Networks of one shape give one network; subnets of several shapes of one run are averaged where they overlap, and
    give a network each. All must descend from one run. Only validation examples decide; batch statistics are
    calibrated anew. Networks to average are made by supernest finetune --variants. Runs must have begun with the same
    weights; the new run can be searched and exported.
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
