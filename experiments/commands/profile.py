"""`supernest profile`."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.commands.experiment_file import errors_about_file, load
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
    help="Batch sizes to measure, separated by commas. Budgets refer to the first one unless they are told another.",
)
@click.option(
    "--networks", default=100, show_default=True, help="Number of networks that the predictions are fitted to."
)
@click.option(
    "--held-out", default=50, show_default=True, help="Number of other networks that the predictions are tested on."
)
@click.option(
    "--repeats",
    default=20,
    show_default=True,
    help="Number of measurements of each network; the median counts.",
)
@click.option(
    "--quick", is_flag=True,
    help="Measure about a fifth: batches of 1, 40 networks and 20 held-out ones, unless the options above are given. "
    "Without --quick, the same command measures the rest. A device file with more measurements is left as it is.",
)  # fmt: skip
@click.option(
    "--runtime",
    default="jax",
    show_default=True,
    help="Runtime that runs the networks: jax, onnxruntime (extra onnx) or litert (extra litert). With --measured, any "
    "name.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N",
    help="Number of threads that onnxruntime or litert uses, or that --measured used.  [default: the cores of this "
    "process]",
)  # fmt: skip
@click.option(
    "--spec",
    type=UserPath(),
    metavar="FILE",
    help="Measure nothing: write the networks as ONNX files into a folder beside FILE, and a list of them to FILE.",
)
@click.option(
    "--measured", type=UserPath(), metavar="FILE",
    help="Measure nothing: read the times of the networks of --spec from FILE, which is CSV or JSON with id and "
    "milliseconds.",
)  # fmt: skip
@click.option("--device", metavar="NAME", help="Name of the device on which --measured was taken, such as 'Pixel 8'.")
@click.option("--runtime-version", metavar="VERSION", help="Version of the runtime with which --measured was taken.")
@set_option
@json_option
@quiet_option
@click.pass_context
def profile(
    context: click.Context, config: Path, out: Path, batch_sizes: str, quick: bool, runtime: str, threads: int | None,
    spec: Path | None, measured: Path | None, device: str | None, runtime_version: str | None,
    overrides: Sequence[str], as_json: bool, quiet: bool, **numbers: int,
) -> None:  # fmt: skip
    """Measure latency and memory of a space's subnets on this device; the same command resumes.

    Networks are built for the runtime and timed. The device file that is written predicts the costs of any subnet of
    the space: name it in an experiment on any machine, with device: FILE. Where the experiment has a section ray, the
    device is that of its workers. A device without Python, such as a phone, takes two commands: --spec writes the
    networks to time there, and --spec with --measured reads their times and writes the device file.
    """
    from experiments.experiment import build_experiment
    from experiments.process.interrupt import stop_on_signals
    from experiments.profiling import stage as profiling
    from experiments.profiling.on_ray import meter
    from experiments.profiling.protocol import QUICK, Protocol
    from experiments.profiling.protocol import batch_sizes as sizes_of
    from experiments.records import RuntimeFacts
    from search_spaces.errors import UserError

    for text in overrides:
        if text.partition("=")[0].strip().split(".")[0] == "device":
            raise UserError(f"--set {shown(text)}: the device is what is measured. Leave it out; --out names the file.")
    _check_together(context, spec, measured)
    wanted = {"batch_sizes": sizes_of(batch_sizes), **numbers}
    if quick:
        given = _given(context)
        wanted |= {name: getattr(QUICK, name) for name in ("batch_sizes", "networks", "held_out") if name not in given}
    protocol = Protocol(**wanted)
    # What decides no network of the space is left out; the device may be what the file names before it is measured.
    others = ("device", "budgets", "sampler", "train", "search", "gradient", "rank")
    with errors_about_file(config):
        experiment = build_experiment(load(config, (*overrides, "train={steps: 1}"), without=others))
        if spec is not None:
            from experiments.profiling.elsewhere import take_back, write_spec

            if measured is None:
                with stop_on_signals() as stop:
                    listed = write_spec(experiment.net, experiment.data, spec, protocol, stop, quiet)
                told = {"file": str(spec), "networks": listed}
                text = f"{listed} networks to time, in {spec.with_suffix('')}\n{spec}"
                click.echo(json.dumps(told) if as_json else text)
                return
            assert device is not None
            facts = RuntimeFacts(runtime, runtime_version, threads)
            found = take_back(experiment.space, spec, measured, out, device, facts)
        else:
            with stop_on_signals() as stop, meter(experiment, out, stop, runtime, threads) as measuring:
                found = profiling.profile(experiment.net, out, protocol, stop, quiet, measuring)
    click.echo(json.dumps(profiling.summary(found)) if as_json else profiling.table(found))


def _given(context: click.Context) -> set[str]:
    """Returns the options that are on the command line."""
    return {
        name for name in context.params if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }


def _check_together(context: click.Context, spec: Path | None, measured: Path | None) -> None:
    """Refuses options that do not go together."""
    from search_spaces.errors import UserError

    given = _given(context)

    def refuse(names: Sequence[str], why: str) -> None:
        for name in names:
            if name in given:
                raise UserError(f"--{name.replace('_', '-')}: {why}")

    if measured is not None:
        if spec is None:
            raise UserError("--measured: of which networks? Give their list: --spec FILE")
        for name in ("device", "runtime"):
            if name not in given:
                raise UserError(f"--measured: says nothing of the {name}. Name it: --{name} NAME")
        refuse(("batch_sizes", "networks", "held_out", "repeats", "quick"), "the list of --spec says it. Leave it out.")
        return
    refuse(("device", "runtime_version"), "goes with --measured only. Leave it out.")
    if spec is not None:
        refuse(("out", "runtime", "threads"), "goes with --measured, or without --spec. Leave it out.")
