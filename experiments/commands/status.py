"""`supernest status`."""

import json
from pathlib import Path

import click

from experiments.commands.options import json_option
from experiments.user_input.paths import UserPath


@click.command()
@click.argument("run", type=UserPath())
@json_option
def status(run: Path, as_json: bool) -> None:
    """Show the progress of a run and whether a process is working on it."""
    from experiments.reporting.status import shown, status_of

    found = status_of(run)
    click.echo(json.dumps(found.as_json()) if as_json else shown(found))
