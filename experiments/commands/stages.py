"""The commands that run stages of an experiment: `supernest run`, `train`, `gradient`, `search`, `rank`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.commands.experiment_file import errors_about_file, load
from experiments.commands.options import stage_options
from experiments.user_input.paths import UserPath

if TYPE_CHECKING:
    from experiments.records import Summary


@click.command()
@stage_options
def run(config: Path, **options: Any) -> None:
    """Train the supernet, search it, and export the best subnets; the same command resumes.

    An experiment with a list of spaces has a supernet for each, and exports the best subnet of all for each budget.
    """
    if not _run_spaces(config, **options):
        run_stages(config, ("train", "search", "export"), **options)


def _run_spaces(path: Path, out: Path | None, overrides: Sequence[str], as_json: bool, quiet: bool) -> bool:
    """Runs an experiment of several spaces and prints the results; returns False where it has one."""
    from experiments.configuration.several_spaces import load_spaces

    if path.is_dir():
        out, path = out or path, path / "config.yaml"
    configs = load_spaces(path, overrides)
    if configs is None:
        return False
    from experiments.pipeline.run import table
    from experiments.records import Summary
    from experiments.several_spaces.stage import run_spaces

    (first, one), *_ = configs.items()
    name = one.name.removesuffix(f"-{first}")
    out = out or Path("runs") / name
    with errors_about_file(path):
        overview = run_spaces(configs, name, out, str(path), quiet)
    if as_json:
        click.echo(json.dumps(overview.as_json()))
    else:
        subnets = [chosen.network for chosen in overview.subnets]
        lines = [table(Summary(objective=overview.objective, subnets=subnets)), *overview.lines()]
        click.echo("\n".join([*lines, f"report: {out / 'report.html'}", str(out / "summary.json")]))
    return True


@click.command()
@stage_options
def train(config: Path, **options: Any) -> None:
    """Train the supernet; search and export nothing."""
    run_stages(config, ("train",), **options)


@click.command()
@stage_options
def gradient(config: Path, **options: Any) -> None:
    """Search an architecture for one budget by gradients, while its weights are trained.

    The architecture that is found is the first candidate of the run's search: export it, or continue from it with
    supernest search. Settings are in the experiment's section gradient.
    """
    run_stages(config, ("gradient",), **options)


@click.command()
@stage_options
@click.option(
    "--from", "trained", type=UserPath(), metavar="RUN",
    help="Run directory whose trained supernet is searched; results are written to another one (--out).",
)  # fmt: skip
def search(config: Path, trained: Path | None, **options: Any) -> None:
    """Search the trained supernet of a run; train and export nothing.

    CONFIG is an experiment file, the run directory, or with --from the directory of the trained run. A run can be
    searched again with more evaluations, another searcher, other budgets or other settings of the evaluation: earlier
    evaluations are reused where they still apply.
    """
    if trained is not None and options["out"] is None:
        from search_spaces.errors import UserError

        raise UserError("--from: goes with --out, the new run directory. Name one.")
    run_stages(config, ("search",), trained=trained, **options)


@click.command()
@stage_options
@click.option(
    "--proxies", metavar="NAMES",
    help="Compare zero-cost proxies, which need no supernet, instead. Names separated by commas, or all: each proxy "
    "that is defined for these networks.",
)  # fmt: skip
def rank(config: Path, proxies: str | None, overrides: Sequence[str], **options: Any) -> None:
    """Compare a trained supernet's ranking with that of networks trained on their own.

    A panel of architectures is trained, each from scratch; the same command resumes. Settings are in the experiment's
    section rank.
    """
    if proxies is None:
        run_stages(config, ("rank",), overrides=overrides, **options)
        return
    names = "null" if proxies == "all" else f"[{proxies}]"
    run_stages(config, ("proxies",), overrides=(*overrides, f"rank.proxies={names}"), **options)


def run_stages(
    path: Path,
    stages: Sequence[str],
    out: Path | None,
    overrides: Sequence[str],
    as_json: bool,
    quiet: bool,
    trained: Path | None = None,
) -> None:
    """Runs stages of an experiment in its run directory and prints the results.

    Raises:
        UserError: The experiment cannot be run; nothing was written.
    """
    from experiments.pipeline.open_run import open_run, resumption_notes

    if path.is_dir():
        out, path = out or path, path / "config.yaml"
    config = load(path, overrides)
    out = out or Path("runs") / config.name
    with errors_about_file(path):
        directory = open_run(out, config, stages, str(path), trained)
    from experiments.pipeline import run as pipeline
    from experiments.storage.run_files import summary_json

    with directory, errors_about_file(path):
        for note in resumption_notes(directory):
            click.echo(f"note: {note}", err=True)
        summary = pipeline.run(config, directory, stages, quiet=quiet)
        if as_json:
            click.echo(json.dumps(summary_json(directory.path)))
        else:
            click.echo(_report(summary, stages, directory.summary))


def _report(summary: "Summary", stages: Sequence[str], path: Path) -> str:
    from experiments.federation import report as federation_report
    from experiments.pipeline import run as pipeline
    from experiments.ranking import proxies as proxy_report
    from experiments.ranking import report as rank_report
    from experiments.reporting.concerns import concerns
    from experiments.reporting.run_facts import read_run

    if "export" in stages:
        found = [f"note: {text}" for text in concerns(read_run(path.parent))]
        return "\n".join([pipeline.table(summary), *found, f"report: {path.with_name('report.html')}", str(path)])
    if "proxies" in stages and summary.proxies is not None:
        return f"{proxy_report.table(summary.proxies)}\n{path}"
    if "rank" in stages and summary.rank is not None:
        return f"{rank_report.table(summary.rank)}\n{path}"
    if "federate" in stages and summary.federation is not None:
        return f"{federation_report.table(summary.federation)}\n{path}"
    of_stage = summary.as_json()[stages[-1]]
    figures = {name: value for name, value in of_stage.items() if isinstance(value, int | float | str)}
    return "\n".join([*(f"{name}: {value}" for name, value in figures.items()), str(path)])
