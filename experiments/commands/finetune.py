"""`supernest finetune`."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.commands.experiment_file import errors_about_file, load
from experiments.commands.options import json_option, plugin_option, quiet_option, set_option
from experiments.user_input.paths import UserPath


@click.command()
@click.argument("subnet", type=UserPath())
@click.option(
    "--out", type=UserPath(), required=True,
    help="New directory for the exported network; with --variants, for a directory of each variant.",
)  # fmt: skip
@click.option(
    "--data", type=UserPath(), metavar="YAML",
    help="Experiment file that gives the data and the settings of training; its space must be the network's.  "
    "[default: that of the network's run]",
)  # fmt: skip
@click.option(
    "--teacher", type=UserPath(), metavar="RUN|SUBNET",
    help="Teacher for distillation: an exported network, or a run, whose largest subnet is the teacher.  [default: "
    "labels alone]",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(min=1), help="Number of training steps.  [default: a tenth of the experiment's]"
)
@click.option(
    "--learning-rate", type=click.FloatRange(min=0, min_open=True, max=1000),
    help="Peak learning rate.  [default: a tenth of the experiment's]",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**31 - 1),
    help="Seed of the order of the examples and of their augmentation; the held-out examples stay the same.  [default: "
    "the experiment's]",
)  # fmt: skip
@click.option(
    "--variants", type=UserPath(), metavar="YAML",
    help="Train several variants instead, in parallel on the workers of the experiment's section ray. The file is a "
    "list of entries such as - {name: slow, seed: 1, steps: 500, learning_rate: 0.0001, data.augmentation.flip: true}",
)  # fmt: skip
@set_option
@plugin_option
@quiet_option
@json_option
def finetune(
    subnet: Path, out: Path, data: Path | None, teacher: Path | None, steps: int | None, learning_rate: float | None,
    seed: int | None, variants: Path | None, overrides: Sequence[str], quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train an exported subnet further, and export the result; the same command resumes.

    Optimiser, batch size and other settings of training are those of the experiment. Inputs are normalised as in the
    network's first training, and batch statistics are calibrated again. The gain on the validation and the test split
    is printed with 95 % intervals, and written to the new report.json. supernest soup averages variants.
    """
    from experiments.finetuning.settings import Finetuning
    from experiments.finetuning.stage import finetune as run
    from experiments.finetuning.stage import report_lines, savings_line
    from experiments.process.interrupt import stop_on_signals
    from experiments.storage.run_files import is_run
    from search_spaces.errors import UserError

    own = subnet.absolute().parent.parent
    if data is None and not is_run(own):
        raise UserError(f"--data: missing, as {subnet} lies in no run. Give the experiment file that it is from.")
    data = data or own / "config.yaml"
    if variants is not None and seed is not None:
        raise UserError("--seed: goes with one finetuning. With --variants, give a seed to each of the list.")
    settings = Finetuning(subnet, out, load(data, overrides), str(data), steps, learning_rate, teacher, seed)
    if variants is not None:
        from experiments.finetuning.variants import finetune_variants, read_variants

        listed = read_variants(variants, settings)
        with errors_about_file(data), stop_on_signals() as stop:
            several = finetune_variants(listed, stop, quiet)
        found = [(variant.settings.out, one) for variant, one in zip(listed, several, strict=True)]
    else:
        with errors_about_file(data), stop_on_signals() as stop:
            found = [(out, run(settings, stop, quiet))]
    if as_json:
        told = [{"directory": str(directory), **one.as_json()} for directory, one in found]
        click.echo(json.dumps(told[0] if variants is None else told))
    else:
        lines = [line for directory, one in found for line in report_lines(one, directory)]
        saved = savings_line([one for _, one in found]) if variants is not None else None
        click.echo("\n".join(lines if saved is None else [*lines, saved]))
