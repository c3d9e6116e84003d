"""`supernest evaluate`."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.commands.experiment_file import errors_about_file, load
from experiments.commands.options import json_option, plugin_option, set_option
from experiments.user_input.paths import UserPath


@click.command()
@click.argument("subnet", type=UserPath())
@click.option("--data", metavar="YAML|SOURCE", help="Experiment file, or name of a data source.")
@click.option(
    "--tasks", multiple=True, metavar="FILE|NAME",
    help="In place of --data: task of lm-evaluation-harness for a language model (extra lm-eval), by its YAML file or "
    "its name there (repeatable).",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Most examples of each task.  [default: all]")
@click.option(
    "--shots", type=click.IntRange(0), metavar="N",
    help="Number of solved examples before each of a task.  [default: as the task says]",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(["test", "validation", "train"]), default="test", show_default=True,
    help="Split of the data to measure on.",
)  # fmt: skip
@click.option(
    "--size",
    metavar="BYTES",
    help="Most bytes of weights to read from a nested export, such as 250000 or 250kB.  [default: all]",
)
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME",
    help="Further figure, such as bleu of translations (repeatable).  [default: evaluation.metrics of the experiment]",
)  # fmt: skip
@set_option
@plugin_option
@json_option
def evaluate(
    subnet: Path, data: str | None, tasks: Sequence[str], limit: int | None, shots: int | None, split: str,
    size: str | None, metrics: Sequence[str], overrides: Sequence[str], as_json: bool,
) -> None:  # fmt: skip
    """Measure an exported subnet on data, without the supernet.

    Where --data names a data source, --set gives its settings: --data idx --set path=DIRECTORY. Files of --tasks name
    their data relative to themselves.
    """
    from search_spaces.errors import UserError

    if (data is None) == (not tasks):
        raise UserError("evaluate: on what? Give --data or --tasks, one of them.")
    if tasks:
        for name, given in {"--size": size, "--metric": metrics, "--set": overrides}.items():
            if given:
                raise UserError(f"{name}: goes with --data only. Leave it out.")
        _evaluate_tasks(subnet, tasks, limit, shots, as_json)
        return
    for name, given in {"--limit": limit, "--shots": shots}.items():
        if given is not None:
            raise UserError(f"{name}: goes with --tasks only. Leave it out.")
    assert data is not None
    from experiments.configuration.experiment_config import load_data_section

    if size is not None:
        from supernet.export.nested import parse_size

        parse_size(size)
    asked_by = "--metric"
    if Path(data).suffix in (".yaml", ".yml"):
        config = load(Path(data), overrides)
        section, seed = config.data, config.seed
        if not metrics:
            metrics, asked_by = config.evaluation.metrics, f"{data}: evaluation.metrics"
    else:
        section, seed = load_data_section(overrides, data), 0
    from experiments.pipeline import run as pipeline

    with errors_about_file(Path(data)) if Path(data).suffix else contextlib.nullcontext():
        examples, names, unit = section.load_split(seed, split)
    tokenizer = getattr(section.build(), "tokenizer", None)
    result = pipeline.evaluate_subnet(subnet, examples, names, tokenizer, size, metrics, asked_by)
    if as_json:
        click.echo(json.dumps({**result.as_json(), "split": split}))
        return
    from experiments.objective import figures_text

    reached = figures_text(result.figures)
    missing = [name for name, (_, count) in result.figures.get("by_class", {}).items() if not count]
    more = f"; none of class {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}" if missing else ""
    click.echo(f"{subnet}: {reached} on {result.examples:,} {split} {unit}{more}")


def _evaluate_tasks(subnet: Path, tasks: Sequence[str], limit: int | None, shots: int | None, as_json: bool) -> None:
    from experiments.subnets.language_tasks import evaluate_tasks

    found = evaluate_tasks(subnet, tasks, limit, shots)
    if as_json:
        click.echo(json.dumps([one.as_json() for one in found]))
        return
    for one in found:
        values = (
            f"{name} {value:.4f}" + ("" if error is None else f" ± {error:.4f}")
            for name, (value, error) in one.figures.items()
        )
        click.echo(f"{subnet}: {one.task}: {', '.join(values)} on {one.examples:,} examples")
