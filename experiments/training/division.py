"""Division: each step of a training divided between the workers, and put together again."""

import time
from math import lcm
from typing import Any

import numpy as np

from experiments.distributed.workers import Workers
from experiments.experiment import Experiment
from experiments.process.interrupt import StopRequest
from experiments.training.schedule import Schedule, balance
from samplers import Paths, Score
from supernet.training.work import Work


def schedule_of(experiment: Experiment, workers: int) -> Schedule:
    """Returns how the steps of an experiment are divided between so many workers."""
    config = experiment.config
    return Schedule(
        workers,
        config.train.batch_size,
        "paths" if config.ray is None else config.ray.parallel,
        config.train.path_batch,
        divisible=not experiment.net.has_statistics,
    )


def check_division(experiment: Experiment) -> None:
    """Refuses a batch that does not divide between the workers, however many of them there may be.

    Raises:
        UserError: With the nearest batch that does.
    """
    ray, paths = experiment.config.ray, experiment.sampler.paths_per_step
    schedules = [schedule_of(experiment, workers) for workers in ((1,) if ray is None else ray.sizes)]
    unit = lcm(*(schedule.unit(paths) for schedule in schedules))
    for schedule in schedules:
        schedule.check(paths, unit)


class Division:
    """Gives each worker its part of every step; one process alone has all of it.

    Args:
        experiment: Experiment that is trained.
        workers: Who trains it.
        stop: This process's; asked for anywhere, all workers stop after the same step.
    """

    def __init__(self, experiment: Experiment, workers: Workers, stop: StopRequest) -> None:
        self.workers = workers
        self._asked = False
        self._space = experiment.space
        self._schedule = schedule_of(experiment, workers.count)
        self._own_stop = stop
        self._balances: list[float] = []
        self._since = time.perf_counter(), workers.seconds

    def work(self, paths: Paths) -> Work:
        """This worker's part of a step."""
        costs = self._space.cost(paths.genes)["macs"]
        dealt = self._schedule.dealt(costs)
        self._balances.append(balance(costs, dealt))
        cut = self._schedule.cuts(len(costs)) > 1
        return Work(tuple(dealt[self.workers.rank]), cut, self._sum, self.workers.divided)

    def _sum(self, tree: Any) -> Any:
        if self.workers.count == 1:
            return tree
        # The request travels with what is summed anyway.
        tree, asked = self.workers.sum((tree, np.float32(bool(self._own_stop))))
        self._asked = bool(asked)
        return tree

    @property
    def stopping(self) -> bool:
        """Whether all workers are to stop after this step."""
        return self._asked if self.workers.count > 1 else bool(self._own_stop)

    def scores(self, score: Score) -> Score:
        """Computes the scores, of which each worker computes some."""
        return lambda genes: self.workers.shared(score, genes)

    def scalars(self) -> dict[str, float]:
        """Figures of the steps since the last call: work of the workers, and time that the sums take."""
        now = time.perf_counter(), self.workers.seconds
        (began, summed), self._since = self._since, now
        values = {
            "workers/count": self.workers.count,
            "workers/balance": float(np.mean(self._balances)),
            "workers/allreduce_share": (now[1] - summed) / (now[0] - began),
        }
        self._balances.clear()
        return values
