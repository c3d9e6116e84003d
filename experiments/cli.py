"""The command `supernest`. Everything heavy is imported by the command that needs it, so that help is immediate."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from experiments.config import ExperimentConfig

KINDS = ("families", "presets", "samplers", "searchers", "relaxations", "sources", "sharing")

STAGES = ("run", "train", "search", "export", "rank", "gradient")

_USAGE, _INTERRUPTED = 2, 130
_SECTION = re.compile(
    r"(?:search\.(?=budgets\b))?(?=(?:data|device|space|sampler|train|search|gradient|budgets|rank|ray)[.:])"
)


class _Commands(click.Group):
    """A group that suggests the nearest command for an unknown one."""

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if self.get_command(context, name) is None and not name.startswith("-"):
            from search_spaces.errors import did_you_mean

            raise click.UsageError(f"{name!r} is no command.{did_you_mean(name, self.list_commands(context))}")
        return super().resolve_command(context, arguments)


def _version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        click.echo(f"supernest {importlib.metadata.version('supernest')}")
        context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def supernest() -> None:
    """Train one supernet, find the best subnets for your budgets, and export each as a network of its own."""


_config = click.argument("config", type=click.Path(path_type=Path))
_set = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting: --set train.steps=500."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def _stage_options(command: Callable[..., None]) -> Callable[..., None]:
    quiet = click.option("--quiet", is_flag=True, help="No progress bars.")
    out = click.option(
        "--out", type=click.Path(path_type=Path), help="Run directory, new or resumed.  [default: runs/NAME]"
    )
    for decorate in (quiet, _json, _set, out, _config):
        command = decorate(command)
    return command


@supernest.command()
@click.argument("file", type=click.Path(path_type=Path), default="experiment.yaml")
@click.option("--family", default="vit", show_default=True, help="Family of the search space: vit or mobilenet.")
def init(file: Path, family: str) -> None:
    """Write a commented experiment file to start from."""
    from experiments.starter import FAMILIES, starter
    from search_spaces.errors import UserError, did_you_mean
    from supernet.manifest import disk_errors_for

    if family not in FAMILIES:
        raise UserError(f"--family: {family!r} has no starter.{did_you_mean(family, FAMILIES)}")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-") or "experiment"
    with disk_errors_for(file):
        try:
            with file.open("x", encoding="utf-8") as opened:
                opened.write(starter(family, name, str(file)))
        except FileExistsError:
            raise UserError(f"{file}: exists, and is left as it is. Name another file.") from None
        except FileNotFoundError:
            raise UserError(f"{file}: its directory does not exist. Make it first: mkdir -p {file.parent}") from None
    click.echo(f"{file}: written. Next: supernest check {file}")


@supernest.command()
@_config
@_set
@_json
def check(config: Path, overrides: Sequence[str], as_json: bool) -> None:
    """Check an experiment and its data, and show what its search space holds and costs."""
    from experiments.check import describe, lines

    with _about(config):
        description = describe(_load(config, overrides))
    click.echo(json.dumps(description) if as_json else "\n".join(lines(description)))


@supernest.command()
@_stage_options
def run(config: Path, **options: Any) -> None:
    """Train, search and export; the same command resumes."""
    _stages(config, ("train", "search", "export"), **options)


@supernest.command()
@_stage_options
def train(config: Path, **options: Any) -> None:
    """Train the supernet only."""
    _stages(config, ("train",), **options)


@supernest.command()
@_stage_options
def gradient(config: Path, **options: Any) -> None:
    """Train weights and architecture together for one budget, by gradients, instead of a supernet for all.

    The result is the first candidate of the run's search: export it, or search on from it. Settings are in the section
    gradient.
    """
    _stages(config, ("gradient",), **options)


@supernest.command()
@_stage_options
def search(config: Path, **options: Any) -> None:
    """Search a trained supernet only."""
    _stages(config, ("search",), **options)


@supernest.command()
@_stage_options
@click.option("--budget", metavar="LIMITS", help="Another budget, such as 'macs<=40%,latency_ms<=3'.")
@click.option("--refine", type=click.IntRange(min=1), metavar="N", help="Evaluate up to N subnets for the budget.")
@click.option("--device", type=click.Path(path_type=Path), help="Device file that latency and memory are of.")
@click.option("--show", is_flag=True, help="Say which subnet is best for the budget; export nothing.")
def export(
    config: Path, budget: str | None, refine: int | None, device: Path | None, show: bool, **options: Any
) -> None:
    """Export the best subnets of a finished search only.

    CONFIG may be the run directory. With --budget, the best subnet for another budget, from what was evaluated: the
    answer comes at once, the export after it.
    """
    from search_spaces.errors import UserError

    run = options.pop("out")
    if config.is_dir():
        if run is not None and run.resolve() != config.resolve():
            raise UserError(f"--out: {run} is not the run directory {config}. Leave it out.")
        run, config = config, config / "config.yaml"
    if budget is not None:
        if run is None:
            raise UserError("--budget: of which run? Give the run directory: supernest export RUN --budget ...")
        _export_for(run, budget, refine, device, show, **options)
        return
    for name, given in (("--refine", refine), ("--device", device), ("--show", show)):
        if given:
            raise UserError(f"{name}: goes with --budget only. Give one, such as --budget 'macs<=40%'.")
    _stages(config, ("export",), out=run, **options)


@supernest.command()
@_stage_options
def rank(config: Path, **options: Any) -> None:
    """Compare a trained supernet's ranking with that of networks trained on their own.

    A panel of architectures is trained, each on its own; the same command resumes. Settings are in the section rank.
    """
    _stages(config, ("rank",), **options)


@supernest.command()
@click.argument("subnet", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="YAML|SOURCE", help="An experiment file, or a source of data.")
@click.option("--split", type=click.Choice(["test", "validation", "train"]), default="test", show_default=True)
@_set
@_json
def evaluate(subnet: Path, data: str, split: str, overrides: Sequence[str], as_json: bool) -> None:
    """Measure an exported subnet on data, without the supernet.

    With a source, its settings are given by --set: --data idx --set path=DIRECTORY.
    """
    from experiments.config import load_data_section

    if Path(data).suffix in (".yaml", ".yml"):
        config = _load(Path(data), overrides)
        section, seed = config.data, config.seed
    else:
        section, seed = load_data_section(overrides, data), 0
    from experiments import pipeline

    with _about(Path(data)) if Path(data).suffix else contextlib.nullcontext():
        examples = getattr(section.load(seed), split)
    result = {**pipeline.evaluate_subnet(subnet, examples), "split": split}
    click.echo(
        json.dumps(result)
        if as_json
        else f"{subnet}: accuracy {result['accuracy']:.2%} on {result['examples']:,} {split} images"
    )


@supernest.command()
@_config
@click.option("--out", type=click.Path(path_type=Path), default="device.json", show_default=True, help="Device file.")
@click.option("--batch-sizes", default="1,64", show_default=True, help="Images a call; the first is what counts.")
@click.option("--networks", default=100, show_default=True, help="Networks that the tables are fitted to.")
@click.option("--held-out", default=50, show_default=True, help="Networks that predictions are compared with.")
@click.option("--repeats", default=20, show_default=True, help="Samples of each network; the median counts.")
@_set
@_json
@click.option("--quiet", is_flag=True, help="No progress bar.")
def profile(
    config: Path, out: Path, batch_sizes: str, overrides: Sequence[str], as_json: bool, quiet: bool, **numbers: int
) -> None:
    """Measure latency and memory of a space's subnets on this device; the same command resumes.

    Standalone networks are compiled and measured. The result is a file that says what any subnet costs; name it in an
    experiment, on any machine, with device: FILE.
    """
    from experiments import profile as profiling
    from experiments.interrupt import stop_on_signals
    from supernet.supernet import build_supernet

    protocol = profiling.Protocol(batch_sizes=profiling.batch_sizes(batch_sizes), **numbers)
    # The device and budgets on it may be what the file names before it is measured.
    experiment = _load(config, overrides, without=("device", "budgets"))
    with _about(config):
        data = experiment.data.load(experiment.seed)
        space = experiment.space.build(data.image_shape, data.classes)
    net = build_supernet(space, experiment.supernet.sharing)
    with stop_on_signals() as stop:
        found = profiling.profile(net, out, protocol, stop, quiet or not sys.stderr.isatty())
    click.echo(json.dumps(profiling.summary(found, out)) if as_json else profiling.table(found, out))


@supernest.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("--address", required=True, help="Dashboard of the cluster, such as http://127.0.0.1:8265.")
@click.option("--out", metavar="PATH", help="Run directory on the cluster: absolute, seen by all of its nodes.")
@click.option(
    "--stage", type=click.Choice(STAGES), default="run", show_default=True, help="The command that runs there."
)
@click.option("--detach", is_flag=True, help="Do not follow the job's log.")
@click.option("--attach", metavar="JOB", help="Follow the log of a job that was submitted before.")
@click.option("--stop", metavar="JOB", help="Stop a job; it saves a checkpoint.")
@_set
def submit(
    config: Path | None, address: str, out: str | None, stage: str, detach: bool, attach: str | None,
    stop: str | None, overrides: Sequence[str],
) -> int:  # fmt: skip
    """Run an experiment as a job of a Ray cluster, and follow its log; Ctrl-C leaves the job running.

    The experiment and the Python files beside it are packed. Submitted again with the same --out, it resumes.
    """
    from experiments.distributed import submit as jobs
    from search_spaces.errors import UserError

    given = [name for name, value in (("CONFIG", config), ("--attach", attach), ("--stop", stop)) if value]
    if len(given) != 1:
        raise UserError(
            f"submit: {' and '.join(given) or 'nothing to do'}. Give one of CONFIG, --attach JOB, --stop JOB."
        )
    if stop is not None:
        jobs.stop(jobs.Job(address, stop))
        return 0
    if config is not None:
        if out is None:
            raise UserError("--out: missing. Give a directory that all nodes of the cluster share.")
        job = jobs.submit(_load(config, overrides), config.absolute().parent, stage, out, address)
        click.echo(f"{job.name}: submitted. To follow it: {jobs.attaching(job)}", err=detach)
        if detach:
            click.echo(job.name)
            return 0
    else:
        job = jobs.Job(address, str(attach))
    ended = jobs.follow(job)
    click.echo(f"{job.name}: {ended}", err=True)
    return 0 if ended == "SUCCEEDED" else 1


@supernest.command(name="list")
@click.argument("kind", required=False, metavar=f"[{'|'.join(KINDS)}]")
@_json
def list_(kind: str | None, as_json: bool) -> None:
    """List what an experiment can name."""
    from experiments.listing import listing
    from search_spaces.errors import UserError, did_you_mean

    if kind is not None and kind not in KINDS:
        raise UserError(f"list: {kind!r} cannot be listed.{did_you_mean(kind, KINDS)}")
    found = {name: listing(name) for name in KINDS if kind in (None, name)}
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, entries in found.items():
        indent = "  " if kind is None else ""
        if not kind:
            click.echo(f"{name}:")
        width = max(map(len, entries), default=0)
        for entry, about in entries.items():
            click.echo(f"{indent}{entry:<{width}}  {about}".rstrip())


def _load(path: Path, overrides: Sequence[str], without: Sequence[str] = ()) -> "ExperimentConfig":
    from experiments.config import load_config

    return load_config(path, overrides, without)


def _stages(
    path: Path, stages: Sequence[str], out: Path | None, overrides: Sequence[str], as_json: bool, quiet: bool
) -> None:
    from experiments.run_directory import RunDirectory, check_run_directory
    from search_spaces.errors import UserError

    config = _load(path, overrides)
    out = out or Path("runs") / config.name
    if not check_run_directory(out, config):
        if not {"train", "gradient"} & set(stages):
            raise UserError(f"{out}: holds no run. Train first: supernest train {path} --out {out}")
        from experiments.check import validate

        with _about(path):
            validate(config)  # before anything is written
    from experiments import pipeline

    with RunDirectory.create_or_resume(out, config) as directory, _about(path):
        for name, (before, now) in directory.changes.items():
            click.echo(
                f"note: {name} was {before} when this run began, and is {now}; results may differ in the last bits.",
                err=True,
            )
        summary = pipeline.run(config, directory, stages, quiet=quiet or not sys.stderr.isatty())
        if as_json:
            click.echo(json.dumps(summary))
        else:
            click.echo(_report(summary, stages, directory.summary))


def _export_for(
    run: Path, text: str, refine: int | None, device: Path | None, show: bool, overrides: Sequence[str],
    as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Answers for a new budget; then, unless only that is wanted, exports the subnet."""
    from experiments import answer as answers

    finished = answers.open_finished(run, device)
    budget, resolved = answers.parse_budget(text, finished)
    found = answers.answer(finished, budget, resolved)
    if not refine:
        if found["best"] is None:
            if as_json:
                click.echo(json.dumps(found))
            raise answers.none_meets(found, run)
        if show and as_json:
            click.echo(json.dumps(found))
        elif not as_json:
            click.echo("\n".join(answers.lines(found)))
        sys.stdout.flush()
        if show:
            return
    from experiments.refine import deliver

    found = deliver(run, overrides, device, budget, resolved, refine, show, quiet or not sys.stderr.isatty())
    if as_json:
        click.echo(json.dumps(found))
        return
    if refine:
        click.echo("\n".join(answers.lines(found)))
    if not show:
        click.echo(f"test accuracy {found['subnet']['test_accuracy']:.2%}\n{found['subnet']['directory']}")


def _report(summary: dict[str, Any], stages: Sequence[str], path: Path) -> str:
    from experiments import pipeline, rank_report

    if "export" in stages:
        return f"{pipeline.table(summary)}\n{path}"
    if "rank" in stages:
        return f"{rank_report.table(summary['rank'])}\n{path}"
    figures = {name: value for name, value in summary[stages[-1]].items() if isinstance(value, int | float | str)}
    return "\n".join([*(f"{name}: {value}" for name, value in figures.items()), str(path)])


@contextlib.contextmanager
def _about(config: Path) -> Iterator[None]:
    """Puts the experiment file before errors that are about one of its keys."""
    from search_spaces.errors import UserError

    try:
        yield
    except UserError as error:
        match = _SECTION.match(str(error))
        if match is None:
            raise
        raise UserError(f"{config}: {str(error)[match.end() :]}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code: 0, 2 for what the user can mend, 130 for Ctrl-C.

    Args:
        arguments: Those of the command line; `sys.argv` when None.
    """
    try:
        result = supernest.main(
            args=None if arguments is None else list(arguments), prog_name="supernest", standalone_mode=False
        )
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return _USAGE
    except click.ClickException as error:
        text = " ".join(error.format_message().split())
        context = getattr(error, "ctx", None)
        return _fail(f"{text} See: {context.command_path} --help" if context else text)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted. The same command resumes it.", err=True)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said to them, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    from experiments.interrupt import Interrupted
    from search_spaces.errors import UserError
    from supernet.manifest import storage_error

    if isinstance(error, Interrupted):
        click.echo(str(error), err=True)
        return _INTERRUPTED
    if isinstance(error, UserError):
        return _fail(str(error))
    if isinstance(error, OSError):
        mended = storage_error(error, Path(error.filename or "disk"))
        if mended is not None:
            return _fail(str(mended))
    raise error


def _fail(text: str) -> int:
    for line in text.splitlines():
        click.echo(f"error: {line}", err=True)
    return _USAGE
