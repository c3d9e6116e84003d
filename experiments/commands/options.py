"""Arguments and options that several commands have."""

from collections.abc import Callable

import click

from experiments.paths import UserPath

config_argument = click.argument("config", type=UserPath())
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting: --set train.steps=500."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress bars.")


def stage_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator of a command that runs stages of an experiment: configuration, run directory, and the options above."""
    out = click.option("--out", type=UserPath(), help="Run directory, new or resumed.  [default: runs/NAME]")
    for decorate in (quiet_option, json_option, set_option, out, config_argument):
        command = decorate(command)
    return command
