"""What a Ray worker of a training does, from its first line to its last."""

import os
import sys
from typing import Any

from experiments.interrupt import Interrupted
from search_spaces import UserError


def work(task: dict[str, Any]) -> None:
    """Trains with the others. What the user has to mend goes to the driver; all else is a failure that Ray retries.

    Args:
        task: `config` (the experiment, as plain values), `run` (the driver's run directory), `stored` (whether
            checkpoints go through Ray Train to a storage), `path` (where the driver finds modules) and `bridge` (the
            actor that connects to the driver).
    """
    import ray
    import ray.train

    accelerators = ray.get_runtime_context().get_accelerator_ids().get("GPU")
    if accelerators:
        # Every worker has its own, and JAX has not looked at them yet.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(accelerators)
    sys.path += [entry for entry in task["path"] if entry not in sys.path]
    first = ray.train.get_context().get_world_rank() == 0
    try:
        news = {"figures": _train(task, first)}
    except Interrupted as stopped:
        news = {"stopped": str(stopped)}
    except UserError as error:
        news = {"refused": str(error)}
    if first or "refused" in news:
        ray.get(task["bridge"].tell.remote(**news))


def _train(task: dict[str, Any], first: bool) -> dict[str, Any]:
    from experiments.checkpoints import Checkpoints
    from experiments.compilation import use_compilation_cache
    from experiments.config import config_of
    from experiments.distributed.bridge import Line
    from experiments.distributed.storage import place
    from experiments.distributed.workers import Workers
    from experiments.experiment import build_experiment
    from experiments.tensorboard import EventLog
    from experiments.train import train

    with place(task["run"], task["stored"], first) as (run, keep):
        use_compilation_cache(run.path / "cache")
        config = config_of(task["config"], run.path)
        experiment, workers = build_experiment(config), Workers()
        line = Line(task["bridge"], first)
        with Checkpoints(run.checkpoints, config.train.keep_last, config.train.keep_best) as checkpoints:
            line.begin(workers.count, checkpoints.latest() or 0)
            return train(
                experiment, checkpoints, lambda step: EventLog(run.tensorboard / "train", step, main_process=first),
                line, quiet=True, workers=workers, bar=line, saved=keep,
            )  # fmt: skip
