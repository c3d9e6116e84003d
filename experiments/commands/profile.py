"""`supernest profile`."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.commands.experiment_file import about, load
from experiments.commands.options import config_argument, json_option, quiet_option, set_option
from experiments.user_input.paths import UserPath, shown


@click.command()
@config_argument
@click.option(
    "--out",
    type=UserPath(),
    default="device.json",
    show_default=True,
    help="Device file to write; an unfinished one is continued.",
)
@click.option(
    "--batch-sizes",
    default="1,64",
    show_default=True,
    help="Numbers of examples a call, separated by commas; budgets take the first unless told otherwise.",
)
@click.option("--networks", default=100, show_default=True, help="Number of networks that the tables are fitted to.")
@click.option(
    "--held-out", default=50, show_default=True, help="Number of networks that predictions are compared with."
)
@click.option(
    "--repeats", default=20, show_default=True, help="Number of times that each network is measured; the median counts."
)
@set_option
@json_option
@quiet_option
def profile(
    config: Path, out: Path, batch_sizes: str, overrides: Sequence[str], as_json: bool, quiet: bool, **numbers: int
) -> None:
    """Measure latency and memory of a space's subnets on this device; the same command resumes.

    Standalone networks are compiled and measured. The result is a file that says what any subnet costs; name it in an
    experiment, on any machine, with device: FILE. With a section ray, the device is that of its workers.
    """
    from experiments.experiment import build_experiment
    from experiments.process.interrupt import stop_on_signals
    from experiments.profiling import stage as profiling
    from experiments.profiling.on_ray import meter
    from search_spaces.errors import UserError

    for text in overrides:
        if text.partition("=")[0].strip().split(".")[0] == "device":
            raise UserError(f"--set {shown(text)}: the device is what is measured. Leave it out; --out names the file.")
    protocol = profiling.Protocol(batch_sizes=profiling.batch_sizes(batch_sizes), **numbers)
    # What decides no network of the space is left out; the device may be what the file names before it is measured.
    others = ("device", "budgets", "sampler", "train", "search", "gradient", "rank")
    with about(config):
        experiment = build_experiment(load(config, (*overrides, "train={steps: 1}"), without=others))
        with stop_on_signals() as stop, meter(experiment, out, stop) as measuring:
            found = profiling.profile(experiment.net, out, protocol, stop, quiet, measuring)
    click.echo(json.dumps(profiling.summary(found, out)) if as_json else profiling.table(found, out))
