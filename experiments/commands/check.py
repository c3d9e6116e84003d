"""`supernest check`."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.commands.experiment_file import about, load
from experiments.commands.options import config_argument, json_option, set_option


@click.command()
@config_argument
@set_option
@json_option
def check(config: Path, overrides: Sequence[str], as_json: bool) -> None:
    """Check an experiment and its data, and show what its search space holds and costs."""
    from experiments.pipeline.check import describe, lines

    with about(config):
        description = describe(load(config, overrides))
    click.echo(json.dumps(description) if as_json else "\n".join(lines(description)))
