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
    from experiments.several_spaces.overview import members, status_of_spaces

    if (runs := members(run)) is not None:
        of_spaces = status_of_spaces(run, runs)
        click.echo(json.dumps(of_spaces.as_json()) if as_json else "\n".join(of_spaces.lines()))
        return
    found = status_of(run)
    click.echo(json.dumps(found.as_json()) if as_json else shown(found))
