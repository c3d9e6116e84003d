"""Opens a run directory for stages of an experiment; whatever can be refused is refused before anything is written."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.configuration.changes import Change
    from experiments.configuration.experiment_config import ExperimentConfig
    from experiments.run_directory import RunDirectory

_FIRST = {"train", "gradient", "federate", "proxies"}


def open_run(
    out: Path, config: "ExperimentConfig", stages: Sequence[str], name: str, trained: Path | None = None
) -> "RunDirectory":
    """Opens the run of an experiment, or makes it once the experiment has been checked with its data.

    Settings that keep the training may differ from those of the run, which has them from then on; what they invalidate
    is said, set aside, and done again by the stages.

    Args:
        out: The run directory, new or resumed.
        config: The experiment.
        stages: Stages that are about to run there.
        name: Name of the experiment's file, for messages.
        trained: A run whose trained supernet a new run takes over.

    Returns:
        The directory, locked until it is closed.

    Raises:
        UserError: The experiment cannot be run as it is, or not there; nothing was written.
    """
    from experiments.run_directory import RunDirectory, check_run_directory
    from search_spaces.errors import UserError

    found = check_run_directory(out, config)
    if trained is not None:
        if not (out / "checkpoints").is_dir():
            from experiments.pipeline.take_over import take_over

            return take_over(trained, out, config, stages)
        from experiments.storage.run_files import identity_of

        if identity_of(trained) != identity_of(out):
            raise UserError(f"{out}: holds a run that is not of the supernet of {trained}. Choose another --out.")
    if found is None:
        if not _FIRST & set(stages):
            raise UserError(f"{out}: holds no run. Train first: supernest train {name} --out {out}")
        from experiments.pipeline.check import validate

        validate(config, stages)
    elif found:
        check_changes(out, config, found, stages)
        for line in _said(out, found):
            print(f"note: {line}", file=sys.stderr)
    return RunDirectory.create_or_resume(out, config, adopt=True)


def check_changes(run: Path, config: "ExperimentConfig", found: "Sequence[Change]", stages: Sequence[str]) -> None:
    """Checks settings that differ from those of a run: with the data, and that the stages redo what they invalidate.

    Raises:
        UserError: The settings cannot be used.
    """
    from experiments.pipeline.check import validate
    from experiments.pipeline.recorded_data import check_data
    from experiments.storage.earlier import Effect
    from search_spaces.errors import UserError

    effect = max(change.effect for change in found)
    parts = ", ".join(map(str, found))
    needed = {Effect.TRAINING: "train", Effect.SEARCH: "search", Effect.EVALUATION: "search"}.get(effect)
    searched = (run / "search" / "archive.jsonl").exists()
    if needed is not None and needed not in stages and (searched or needed == "train"):
        first = " and ".join([*["trained on"] * (needed == "train"), *["searched again"] * searched])
        raise UserError(
            f"{run}: settings differ ({parts}), so it is {first} first: supernest run."
            + f" For another budget at once: supernest export {run} --budget LIMITS" * searched
        )
    experiment = validate(config, stages)
    check_data(run, experiment.data, moved=any(change.effect is Effect.MOVED for change in found))


def _said(run: Path, found: "Sequence[Change]") -> list[str]:
    """Returns a line for each changed setting: its values, and the stages that are done again."""
    from experiments.storage.earlier import Effect

    follows = {
        Effect.NOTHING: "what was done goes on",
        Effect.MOVED: "the data are the same",
        Effect.EXPORT: "subnets of its budgets are exported again; earlier holds those that were there",
        Effect.SEARCH: "searches again, and looks up what was evaluated",
        Effect.EVALUATION: "evaluates candidates again; the training stays",
        Effect.TRAINING: "trains on from its last step, then searches again",
    }
    return [f"{run}: {change}; {follows[change.effect]}." for change in found]


def resumption_notes(directory: "RunDirectory") -> list[str]:
    """Returns what differs from the beginning of a run that goes on: versions, and files of plug-ins."""
    from experiments.configuration.plugins import changed_plugins

    versions = [
        f"{name} was {before} when this run began, and is {now}; results may differ in the last bits."
        for name, (before, now) in directory.changes.items()
    ]
    return [*versions, *changed_plugins(directory.path)]
