"""A new run on the trained supernet of another one: its checkpoints, and the identity that binds them."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.configuration.experiment_config import ExperimentConfig, load_config
from experiments.experiment import build_experiment
from experiments.pipeline.open_run import check_changes
from experiments.pipeline.recorded_data import check_data
from experiments.records import Summary
from experiments.run_directory import RunDirectory, differences
from experiments.searching.stage import gradient_result
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.earlier import Effect
from experiments.storage.run_files import CONFIG, identity_of, is_run, read_summary, write_summary
from experiments.training.stage import trained_params
from search_spaces import UserError
from supernet.storage.manifest import atomic_directory, write_text_atomically

_CHECKPOINTS = "checkpoints"


def take_over(trained: Path, out: Path, config: ExperimentConfig, stages: Sequence[str]) -> RunDirectory:
    """Makes a run that begins with the trained supernet of another one, which stays as it is.

    Checkpoints are linked where the file system can, and copied elsewhere.

    Args:
        trained: The other run.
        out: The new run directory.
        config: Its experiment; it may differ in what does not decide the training.
        stages: Stages that are about to run there.

    Returns:
        The new directory, locked until it is closed.

    Raises:
        UserError: There is no such run, its training has not finished, or was another one; nothing was written.
    """
    if not is_run(trained):
        raise UserError(f"--from: {trained} is no run. Give the directory of a run that is trained.")
    found = differences(trained, config)
    if any(change.effect is Effect.TRAINING for change in found):
        raise UserError(f"--from: {', '.join(map(str, found))}: a longer training goes on in {trained} itself.")
    if found:
        check_changes(trained, config, found, ("search", *stages))
    identity, figures = identity_of(trained), read_summary(trained).train
    before = load_config(trained / CONFIG)
    with Checkpoints(trained / _CHECKPOINTS, before.train.keep_last, before.train.keep_best, identity) as checkpoints:
        experiment = build_experiment(config)
        check_data(trained, experiment.data)
        trained_params(experiment, checkpoints)  # whole, and trained to the end
    directory = RunDirectory.create_or_resume(out, config, identity=identity)
    try:
        found_by_gradient = gradient_result(RunDirectory.seen(trained))
        if found_by_gradient.exists():  # decided the weights, and is where a search begins
            write_text_atomically(gradient_result(directory), found_by_gradient.read_text("utf-8"))
        if not directory.checkpoints.exists():
            write_summary(out, Summary(train=figures and replace(figures, taken_from=str(trained.absolute()))))
            with atomic_directory(directory.checkpoints) as temporary:
                shutil.copytree(trained / _CHECKPOINTS, temporary, dirs_exist_ok=True, copy_function=_link)
    except BaseException:
        directory.close()
        raise
    return directory


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
