"""`supernest check`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from experiments.commands.experiment_file import errors_about_file, load
from experiments.commands.options import config_argument, json_option, set_option


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
    from experiments.pipeline.check import describe
    from experiments.pipeline.description import report_lines
    from experiments.pipeline.timing import timing

    with errors_about_file(config):
        loaded = load(config, overrides)
        description = describe(loaded)
        if timed:
            description = replace(description, timing=timing(loaded))
    click.echo(json.dumps(description.as_json()) if as_json else "\n".join(report_lines(description)))
