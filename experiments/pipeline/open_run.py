"""Opens a run directory for stages of an experiment; whatever can be refused is refused before anything is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.configuration.experiment_config import ExperimentConfig
    from experiments.run_directory import RunDirectory

_FIRST = {"train", "gradient", "proxies"}


def open_run(out: Path, config: "ExperimentConfig", stages: Sequence[str], name: str) -> "RunDirectory":
    """Opens the run of an experiment, or makes it once the experiment has been checked with its data.

    Args:
        out: The run directory, new or resumed.
        config: The experiment.
        stages: Stages that are about to run there.
        name: Name of the experiment's file, for messages.

    Returns:
        The directory, locked until it is closed.

    Raises:
        UserError: The experiment cannot be run as it is, or not there; nothing was written.
    """
    from experiments.run_directory import RunDirectory, check_run_directory
    from search_spaces.errors import UserError

    if not check_run_directory(out, config):
        if not _FIRST & set(stages):
            raise UserError(f"{out}: holds no run. Train first: supernest train {name} --out {out}")
        from experiments.pipeline.check import validate

        validate(config, stages)
    return RunDirectory.create_or_resume(out, config)
