"""Arguments and options that several commands have."""

from collections.abc import Callable, Sequence

import click

from experiments.user_input.paths import UserPath


def _import_plugins(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> None:
    if given:
        from experiments.configuration.plugins import import_plugin

        for plugin in given:
            import_plugin(plugin)


config_argument = click.argument("config", type=UserPath())
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting of the experiment, such as train.steps=500. May be repeated.",
)
plugin_option = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE|MODULE", callback=_import_plugins, expose_value=False,
    help="Plug-in to import first: a Python file or a module. May be repeated.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress bars.")


def stage_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator of a command that runs stages of an experiment: configuration, run directory, and the options above."""
    out = click.option(
        "--out",
        type=UserPath(),
        help="Run directory: a new one, or one to resume.  [default: runs/NAME of the experiment]",
    )
    for decorate in (quiet_option, json_option, set_option, out, config_argument):
        command = decorate(command)
    return command
