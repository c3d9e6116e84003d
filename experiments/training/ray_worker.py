"""Main function of a Ray worker of a training."""

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.distributed.process import begin
from experiments.process.interrupt import Interrupted
from experiments.records import TrainingFigures
from search_spaces import UserError

_LEAVING = 3  # seconds

Start = Callable[[Any, Path], Any]
"""Importable function of an experiment and its run directory that gives the weights to start a training from."""


@dataclass(frozen=True)
class Task:
    """Task of a worker.

    Attributes:
        config: The experiment, as plain values.
        identity: Identity of its run.
        run: The driver's run directory.
        stored: Whether checkpoints go through Ray Train to a storage.
        path: Directories in which the driver finds modules.
        bridge: Handle of the actor that connects to the driver.
        start: Gives the weights to start from; fresh ones when None.
    """

    config: Mapping[str, Any]
    identity: str
    run: str
    stored: bool
    path: Sequence[str]
    bridge: Any
    start: Start | None = None


def work(told: Mapping[str, Any]) -> None:
    """Trains with the others. What the user has to mend goes to the driver; all else is a failure that Ray retries.

    Args:
        told: Fields of the task by name; Ray Train takes a mapping.
    """
    import ray
    import ray.train

    task = Task(**told)
    begin(task.path)
    first = ray.train.get_context().get_world_rank() == 0
    try:
        news = {"figures": _train(task, first)}
    except Interrupted as stopped:
        news = {"stopped": str(stopped)}
    except UserError as error:
        news = {"refused": str(error)}
    if first or "refused" in news:
        ray.get(task.bridge.tell.remote(**news))


def _train(task: Task, first: bool) -> TrainingFigures:
    from experiments.configuration.experiment_config import config_of
    from experiments.distributed.workers import Workers
    from experiments.experiment import build_experiment
    from experiments.process.compilation import use_compilation_cache
    from experiments.storage.checkpoints import Checkpoints
    from experiments.storage.tensorboard import EventLog
    from experiments.training.ray_checkpoints import place
    from experiments.training.ray_progress import Line
    from experiments.training.stage import train

    with _together(), place(task.run, task.stored, first) as (run, keep):
        use_compilation_cache(run.path / "cache")
        config = config_of(task.config, run.path)
        config.bind(task.identity)
        experiment, workers = build_experiment(config), Workers()
        line = Line(task.bridge, first)
        settings = config.train
        with Checkpoints(run.checkpoints, settings.keep_last, settings.keep_best, run=config.identity) as checkpoints:
            done = checkpoints.latest() or 0
            line.begin(workers.count, done)
            params = None if done or task.start is None else task.start(experiment, run.path)
            return train(
                experiment, checkpoints, lambda step: EventLog(run.tensorboard / "train", step, main_process=first),
                line, quiet=True, params=params, workers=workers, bar=line, saved=keep,
            )  # fmt: skip


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Joins the workers' `jax.distributed`.

    Ray Train would do so too, but its coordinator, which asks nobody for a token, would listen on all interfaces; this
    one listens where Ray does.
    """
    import jax
    import ray.train
    import ray.util
    from ray.train.collective import broadcast_from_rank_zero

    context = ray.train.get_context()
    address = broadcast_from_rank_zero(_free_address(ray.util.get_node_ip_address()))
    jax.distributed.initialize(
        address, context.get_world_size(), context.get_world_rank(), coordinator_bind_address=address,
        shutdown_timeout_seconds=_LEAVING,
    )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # where one has died, the others cannot leave in order
            jax.distributed.shutdown()


def _free_address(host: str) -> str:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        port = taken.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
