"""Storage: how checkpoints get from worker 0 to the storage, and back to all workers."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.run_directory import RunDirectory

_IN_CHECKPOINTS = ("checkpoints", "tensorboard")


class Place(NamedTuple):
    """Place where a worker reads and writes checkpoints.

    Attributes:
        run: A run directory.
        keep: To be called by every worker when it holds a new checkpoint; None where nothing is to be done.
    """

    run: RunDirectory
    keep: Callable[[int], None] | None


@contextlib.contextmanager
def place(run: str, stored: bool, first: bool) -> Iterator[Place]:
    """Provides the shared run directory, or a copy of its content that Ray Train transfers.

    Args:
        run: The driver's run directory.
        stored: Whether checkpoints go through Ray Train to a storage.
        first: Whether this is the worker that writes them.
    """
    if not stored:
        yield Place(RunDirectory.seen(Path(run)), None)
        return
    import ray.train

    with tempfile.TemporaryDirectory(prefix="supernest-") as scratch:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            unpack(checkpoint, Path(scratch))

        def keep(step: int) -> None:
            if not first:
                ray.train.report({"step": step})
                return
            with tempfile.TemporaryDirectory(prefix="supernest-") as bundle:
                shutil.copytree(Path(scratch, "tensorboard"), Path(bundle, "tensorboard"))
                newest = max(Path(scratch, "checkpoints").glob("step_*"))
                shutil.copytree(newest, Path(bundle, "checkpoints", newest.name))
                ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(bundle))

        yield Place(RunDirectory.seen(Path(scratch)), keep)


def stored_name(config: ExperimentConfig, run: Path) -> str:
    """Returns the name of a run's checkpoints in the storage: one for each pair of an experiment and an `--out`."""
    return f"supernest-{config.identity[:12]}-{sha256(bytes(run.absolute())).hexdigest()[:8]}"


def unpack(checkpoint: Any, run: Path) -> None:
    """Puts what a checkpoint of Ray Train holds into a run directory, in place of what is there."""
    with checkpoint.as_directory() as directory:
        for name in _IN_CHECKPOINTS:
            shutil.rmtree(run / name, ignore_errors=True)
            shutil.copytree(Path(directory, name), run / name)
