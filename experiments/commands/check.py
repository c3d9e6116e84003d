"""`supernest check`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.commands.experiment_file import errors_about_file, load
from experiments.commands.options import config_argument, json_option, set_option

if TYPE_CHECKING:
    from experiments.configuration.experiment_config import ExperimentConfig
    from experiments.pipeline.description import Description


@click.command()
@config_argument
@set_option
@click.option(
    "--time", "timed", is_flag=True,
    help="Also compile and time a few training steps, and print the minutes and memory that the run will take.",
)  # fmt: skip
@json_option
def check(config: Path, overrides: Sequence[str], timed: bool, as_json: bool) -> None:
    """Check an experiment and its data, and show what its search space holds and costs."""
    from experiments.configuration.several_spaces import load_spaces
    from experiments.pipeline.description import report_lines
    from experiments.several_spaces.budgets import about_space, with_absolute_budgets

    with errors_about_file(config):
        several = load_spaces(config, overrides)
        if several is None:
            description = _description(load(config, overrides), timed)
            click.echo(json.dumps(description.as_json()) if as_json else "\n".join(report_lines(description)))
            return
        found = {}
        for name, one in with_absolute_budgets(several).items():
            with about_space(name):
                found[name] = _description(one, timed)
    if as_json:
        click.echo(json.dumps({"spaces": {name: one.as_json() for name, one in found.items()}}))
    else:
        click.echo("\n\n".join("\n".join(report_lines(one)) for one in found.values()))


def _description(loaded: "ExperimentConfig", timed: bool) -> "Description":
    from experiments.pipeline.check import describe
    from experiments.pipeline.timing import timing

    description = describe(loaded)
    return replace(description, timing=timing(loaded)) if timed else description
