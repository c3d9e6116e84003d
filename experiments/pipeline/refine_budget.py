"""A new budget for a finished run: more evaluations for it, and the subnet that meets it, exported."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from experiments.configuration.experiment_config import load_config
from experiments.configuration.plugins import changed_plugins
from experiments.devices.device_file import DeviceCost
from experiments.experiment import Experiment, build_experiment, part_count
from experiments.exporting.stage import export_budget
from experiments.pipeline.recorded_data import check_data
from experiments.process.compilation import use_compilation_cache
from experiments.process.interrupt import Interrupted, StopRequest, stop_on_signals
from experiments.process.progress import progress_bar
from experiments.records import Answer
from experiments.run_directory import RunDirectory
from experiments.searching import new_budget as answers
from experiments.searching.looked_up import looked_up
from experiments.searching.stage import archive_identity, candidate_objectives, origin_of
from experiments.searching.with_proxies import learning_from_proxies
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.run_files import read_summary, write_summary
from experiments.training.stage import trained_params
from search import Archive, Budget, Progress, ResolvedBudget, run_search
from search.continued import Continued
from supernet.engine.supernet import Params


def deliver(
    run: Path,
    overrides: Sequence[str],
    read: Callable[[], answers.Finished],
    budget: Budget,
    resolved: ResolvedBudget,
    evaluations: int | None,
    show: bool,
    quiet: bool,
) -> Answer:
    """Does for a new budget what takes the supernet: evaluates more candidates, exports the best subnet.

    Args:
        run: The run directory.
        overrides: Settings that may differ from those of the run.
        read: Reads what the run has evaluated.
        budget: The budget.
        resolved: In absolute numbers.
        evaluations: Number of candidates to evaluate for it in all; none when None.
        show: Export nothing.
        quiet: No progress bar.

    Returns:
        The answer, with the figures of the export under `subnet`.

    Raises:
        UserError: None of the evaluated subnets meets the budget, or something else that the user can mend.
        Interrupted: The user asked to stop; what was evaluated is kept.
    """
    config = load_config(run / "config.yaml", overrides)
    with RunDirectory.create_or_resume(run, config) as directory:
        for note in changed_plugins(run):
            print(f"note: {note}", file=sys.stderr)
        use_compilation_cache(run / "cache")
        experiment = build_experiment(config)
        check_data(run, experiment.data)
        keep = config.train.keep_last, config.train.keep_best
        with Checkpoints(directory.checkpoints, *keep, run=config.identity) as checkpoints:
            params = trained_params(experiment, checkpoints)
        origin, before = origin_of(experiment, params), read()
        before.archive.check_run(origin)
        if evaluations:
            with stop_on_signals() as stop:
                refine(experiment, params, directory, before, resolved, evaluations, stop, quiet)
        finished = read()
        found = answers.answer(finished, budget, resolved)
        if found.best is None:
            raise answers.none_meets(found, run)
        if not show:
            cost = finished.cost if isinstance(finished.cost, DeviceCost) else None
            exported = export_budget(experiment, params, finished.archive, resolved, directory, origin, cost)
            found = dataclasses.replace(found, subnet=exported)
            _note(run, found)
    return found


def refine(
    experiment: Experiment,
    params: Params,
    run: RunDirectory,
    finished: answers.Finished,
    budget: ResolvedBudget,
    evaluations: int,
    stop: StopRequest,
    quiet: bool,
) -> Archive:
    """Evaluates candidates for a budget, going on from what the run's search has found.

    The same call after a kill resumes, one of more evaluations goes on. What another search of the run has evaluated
    counts without being evaluated again.

    Raises:
        Interrupted: `stop` was requested; what was evaluated is kept.
    """
    settings = experiment.config.search
    split = part_count(experiment.config, experiment.data)
    inner = settings.build(finished.space, (budget,), experiment.config.seed, split, finished.cost)
    main = Archive.read(run.archive, finished.space)
    searcher = Continued.of(learning_from_proxies(experiment, inner), main)
    path = answers.refined_archive(run.path, budget.name, len(main))
    archive = Archive.open(path, searcher, run=archive_identity(experiment, params, finished.cost))

    evaluate = candidate_objectives(partial(experiment.scorer, params), experiment.objective)

    with progress_bar(total=evaluations, desc="refine", unit="subnet", quiet=quiet) as bar:

        def on_batch(progress: Progress) -> None:
            bar.update(progress.evaluated - bar.n)
            if stop and progress.evaluated < evaluations:
                raise Interrupted(
                    f"stopped after {progress.evaluated} of {evaluations} candidates; all are kept. The same command "
                    "resumes it."
                )

        known = looked_up([finished.archive], evaluate)
        return run_search(searcher, known, archive, evaluations, on_batch, settings.batch, evaluate)


def _note(run: Path, found: Answer) -> None:
    """Adds the answer to the summary of the run."""
    summary = read_summary(run)
    write_summary(run, dataclasses.replace(summary, new_budgets={**summary.new_budgets, found.name: found}))
