"""The pipeline: train, search, export in one run directory; every stage resumes from it."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.data import Split
from experiments.experiment import Experiment, build_experiment
from experiments.exporting.stage import export, measured_figures
from experiments.federation.on_ray import federate_on_ray
from experiments.federation.stage import federate
from experiments.gradient.stage import gradient_search
from experiments.incubation.on_ray import incubate_on_ray
from experiments.incubation.stage import incubate, start_of
from experiments.metrics import checked
from experiments.objective import OBJECTIVES
from experiments.pipeline.recorded_data import record_data
from experiments.process.compilation import use_compilation_cache
from experiments.process.interrupt import Interrupted, stop_on_signals
from experiments.ranking.proxies import rank_proxies
from experiments.ranking.stage import rank
from experiments.records import SpaceFigures, Summary
from experiments.records.use import Evaluation
from experiments.reporting import write_page
from experiments.run_directory import RunDirectory
from experiments.searching.on_ray import scoring
from experiments.searching.stage import archive_identity, search
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.run_files import SUMMARY, lost_summary, read_summary, write_summary
from experiments.storage.tensorboard import EventLog
from experiments.subnets.loading import load_exported
from experiments.subnets.tokenizer import check_tokenizer, tokenizer_of
from experiments.training.on_ray import train_on_ray
from experiments.training.stage import train, trained_params
from search import Archive, write_pareto
from search_spaces import UserError
from search_spaces.sealed_json import read_sealed

STAGES = ("train", "search", "export")
_TRAINING = {"train", "gradient", "federate"}


def run(
    config: ExperimentConfig, directory: RunDirectory, stages: Sequence[str] = STAGES, quiet: bool = False
) -> Summary:
    """Runs stages of an experiment; what is already done is not done again.

    Args:
        config: The experiment.
        directory: Its run directory, locked by the caller.
        stages: Stages to run: those of `STAGES`, in this order, `rank`, `proxies`, `federate`, and `gradient` (in place
            of `train`).
        quiet: No progress bars.

    Returns:
        The summary: figures of every stage that has been run.

    Raises:
        UserError: Something that the user can mend.
        Interrupted: Ctrl-C or SIGTERM; the text says how to go on.
    """
    use_compilation_cache(directory.path / "cache")
    experiment = build_experiment(config)
    record_data(directory.path, experiment.data)
    for note in experiment.data.notes:
        print(f"warning: {note}", file=sys.stderr)
    lost = lost_summary(directory.path) and bool(_TRAINING & set(stages))
    if lost:
        print(
            f"warning: {directory.path / SUMMARY}: was missing, and is written again; a stage's figures return when "
            "its command is run again, which computes nothing twice",
            file=sys.stderr,
        )
    summary = replace(
        Summary() if lost else read_summary(directory.path),
        name=config.name,
        objective=experiment.objective.name,
        chance=experiment.chance,
        space=SpaceFigures(experiment.space.family, experiment.space.size),
    )

    def told(**figures: Any) -> Summary:
        return write_summary(directory.path, replace(summary, **figures))

    told()  # before any result, so that a summary that is lost is noticed
    try:
        with (
            stop_on_signals() as stop,
            Checkpoints(
                directory.checkpoints, config.train.keep_last, config.train.keep_best, config.identity
            ) as checkpoints,
        ):
            if "train" in stages:
                incubates = config.train.incubation is not None and checkpoints.latest() is None
                if incubates:
                    start = incubate if config.ray is None else incubate_on_ray
                    summary = told(incubation=start(experiment, directory.path, stop, quiet))
                if config.ray is None:
                    figures = train(
                        experiment, checkpoints, lambda step: EventLog(directory.tensorboard / "train", step), stop,
                        quiet, start_of(experiment, directory.path) if incubates else None,
                    )  # fmt: skip
                else:
                    start = start_of if config.train.incubation is not None else None
                    figures = train_on_ray(experiment, checkpoints, directory, stop, quiet, start)
                summary = told(train=figures.over(summary.train))
            if "gradient" in stages:
                if config.ray is not None:
                    print("warning: gradient search uses no workers; it runs in this process", file=sys.stderr)
                if config.train.accumulate > 1:
                    print("warning: gradient search does not accumulate; it takes its batches whole", file=sys.stderr)
                summary = told(gradient=gradient_search(experiment, checkpoints, directory, stop, quiet))
            if "federate" in stages:
                clients = federate if config.ray is None else federate_on_ray
                summary = told(federation=clients(experiment, directory.path, stop, quiet))
            if {"search", "export", "rank"} & set(stages):
                params = trained_params(experiment, checkpoints)
                if "search" in stages:
                    with scoring(experiment, directory, params) as scores:
                        _, searched = search(experiment, params, directory, stop, quiet, scores=scores)
                    summary = told(search=searched)
                if "export" in stages:
                    origin = archive_identity(experiment, params, experiment.cost_on_device)
                    archive = Archive.read(directory.archive, experiment.space, experiment.cost, origin)
                    summary = told(subnets=export(experiment, params, archive, directory, stop, quiet))
                if "rank" in stages:
                    summary = told(rank=rank(experiment, params, directory, stop, quiet))
            if "proxies" in stages:
                summary = told(proxies=rank_proxies(experiment, directory, stop, quiet))
            _keep_fronts(experiment, directory)
            write_page(directory.path)
    except Interrupted as stopped:
        raise Interrupted(f"{stopped}. The same command resumes it.") from None
    return summary


def _keep_fronts(experiment: Experiment, directory: RunDirectory) -> None:
    """Writes the search's fronts again, from its archive, where their file is missing or was changed."""
    if directory.archive.exists():
        try:
            read_sealed(directory.pareto, "")
        except (FileNotFoundError, UserError):
            archive = Archive.read(directory.archive, experiment.space)
            write_pareto(directory.pareto, archive, experiment.budgets, experiment.cost, experiment.worst_objective)


def table(summary: Summary) -> str:
    """Returns exported subnets as text: budget, costs, what each reaches on validation and test split, directory."""
    subnets, objective = summary.subnets or (), OBJECTIVES[summary.objective]
    latencies = [network.latencies for network in subnets]
    on_device = [name for name in ("predicted", "measured") if any(name in found for found in latencies)]
    shown = (f"{split} {objective.shown}" for split in ("val.", "test"))
    heads = ("budget", "params", "MACs", *(f"{name} latency" for name in on_device), *shown, "directory")
    rows = [heads] + [
        (
            network.budget, f"{network.costs['params']:,}", f"{network.costs['macs']:,}",
            *(f"{network.latencies[name]:.3f} ms" if name in network.latencies else "" for name in on_device),
            objective.of_figures(network.validation), objective.of_figures(network.test), network.directory,
        )
        for network in subnets
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def evaluate_subnet(
    directory: Path,
    split: Split,
    class_names: Sequence[str] = (),
    tokenizer: str | None = None,
    size: int | str | None = None,
    metrics: Sequence[str] = (),
    asked_by: str = "--metric",
) -> Evaluation:
    """Measures an exported subnet on examples, without any supernet; their classes are matched by name.

    Args:
        directory: The subnet.
        split: The examples.
        class_names: Names of their classes; numbers where empty.
        tokenizer: Name of the tokenizer that tokens come from; None for images.
        size: Most bytes of weights to read of a nested export; all when None.
        metrics: Names of further figures.
        asked_by: Setting or option that names them, in messages.

    Raises:
        UserError: The subnet cannot be loaded, has failed, has another tokenizer, or does not know a class of the
            examples.
    """
    subnet = load_exported(directory, size=size)
    asked = checked(metrics, subnet.config["task"], asked_by)
    check_tokenizer(str(directory), tokenizer_of(subnet, directory), tokenizer)
    split = split.for_network("--data", class_names, subnet)
    return Evaluation(str(directory), len(split), measured_figures(subnet, split, str(directory), asked))
