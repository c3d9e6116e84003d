"""TensorBoard curves of a training, and its probe: validation errors of a few fixed subnets."""

import time
from collections.abc import Callable

import numpy as np

from experiments.distributed.workers import Workers
from experiments.experiment import Experiment
from experiments.objective import objective_of
from experiments.storage.tensorboard import EventLog
from experiments.training.division import Division
from samplers import Paths
from search_spaces import Genes
from search_spaces.randomness import Purpose, stream
from supernet.training.training import StepResult, TrainState

ProbeErrors = Callable[[TrainState, EventLog, int], dict[str, float]]
"""Evaluates the networks in training, and logs their errors, `mean`, `smallest` and `largest` among them."""


class Curves:
    """TensorBoard curves of training."""

    def __init__(self, experiment: Experiment, log: EventLog, division: Division) -> None:
        self.log = log
        self._division = division
        self._experiment = experiment
        self._rate = experiment.config.train.optimizer.rate(experiment.steps)
        self._every = experiment.config.train.log_every
        self._batch_size = experiment.config.train.batch_size
        self._rows: list[tuple[Paths, np.ndarray, StepResult]] = []
        self._since = time.perf_counter()

    def add(self, done: int, paths: Paths, losses: np.ndarray, result: StepResult) -> None:
        """Keeps one step, and writes every `log_every` steps."""
        self._rows.append((paths, losses, result))
        if done % self._every:
            return
        by_role: dict[str, list[tuple[float, float]]] = {}
        for paths_, losses_, result_ in self._rows:
            for role, loss, path in zip(paths_.roles, losses_, result_.paths, strict=True):
                by_role.setdefault(role, []).append((float(loss), float(path.figure)))
        values, outputs = {}, self._experiment.data.outputs
        for role, pairs in by_role.items():
            loss, mean = np.mean(pairs, axis=0)
            values |= {f"loss/{role}": loss, f"{outputs.figure}/{role}": outputs.figure_of(mean)}
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        values["train/learning_rate"] = np.asarray(self._rate(done - 1)).item()
        values["train/gradient_norm"] = float(np.mean([float(r.gradient_norm) for _, _, r in self._rows]))
        values["train/examples_per_second"] = self._batch_size * len(self._rows) / seconds
        values["train/path_examples_per_second"] = (
            self._batch_size * sum(len(p.roles) for p, *_ in self._rows) / seconds
        )
        values |= self._division.scalars()
        self.log.scalars(done, values)
        genes = np.concatenate([p.genes for p, *_ in self._rows])
        self.log.histogram(done, "paths/macs", self._experiment.space.cost(genes)["macs"])
        self._rows.clear()


def probed(experiment: Experiment) -> Genes:
    """Returns the subnets whose errors stand for those of the supernet: smallest, largest, and random ones between."""
    rng = stream(experiment.config.seed, Purpose.PROBES)
    return np.concatenate([experiment.space.extremes, experiment.space.sample(rng, 4)])


class Probe:
    """Validation error (or loss) of a few fixed subnets: smallest, largest, and random ones between."""

    def __init__(self, experiment: Experiment, workers: Workers) -> None:
        self._genes = probed(experiment)
        self._evaluator = experiment.evaluator
        self._objective = objective_of(experiment.data)
        self._workers = workers

    def __call__(self, state: TrainState, log: EventLog, done: int) -> dict[str, float]:
        params = state.evaluation_params
        errors = self._workers.shared(lambda genes: self._objective.of(self._evaluator(params, genes)), self._genes)
        parts = {"smallest": errors[0], "largest": errors[1], "random": errors[2:].mean(), "mean": errors.mean()}
        values = {name: float(value) for name, value in parts.items()}
        log.scalars(done, {f"validation_{self._objective.name}/{name}": value for name, value in values.items()})
        return values
