"""Members of an evolution strategy on Ray: workers send one number a member, and repeat each update themselves."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from experiments.distributed.pool import Pool, Resident, pool
from experiments.experiment import Experiment
from experiments.process.interrupt import StopRequest
from experiments.records import TrainingFigures
from experiments.run_directory import RunDirectory
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.evolution_strategy import evolution_step
from experiments.training.stage import figures_of, train
from supernet.evolution_strategy.step import Evaluated, EvolutionStep, Examples, StepPaths
from supernet.training.training import TrainState

_EVERY = 50
"""Steps between two states that are sent whole, so that a worker that starts anew has few updates to repeat."""


class _Order(NamedTuple):
    """One chunk of members on one path.

    Attributes:
        paths: The step.
        row: Index of the path.
        chunk: Index of the chunk of members.
        examples: Reference to the step's examples, in a list, as Ray resolves none in there.
        sent: Number of steps before the state that was last sent.
        state: Reference to that state, in a list.
        since: Reference to the steps from there to this one, in a list: sent once a step, not with each chunk.
    """

    paths: StepPaths
    row: int
    chunk: int
    examples: list[Any]
    sent: int
    state: list[Any]
    since: list[Any]


class _Replica:
    """The state of training in a worker, which follows from fitness as the driver's does.

    Args:
        experiment: Experiment that is trained.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._step = evolution_step(experiment)
        self._state: TrainState | None = None
        self._sent = self._done = -1
        self._examples: tuple[int, Examples] | None = None

    def fitness(self, order: _Order) -> Float[np.ndarray, " m"]:
        """Fitness of the members that are ordered."""
        import ray

        state = self._state
        if state is None or self._sent != order.sent:
            state = jax.device_put(ray.get(order.state[0]))
            self._sent = self._done = order.sent
        if self._done != order.paths.step:
            since: tuple[Evaluated, ...] = ray.get(order.since[0])
            for done in since:
                if done.paths.step == self._done:
                    state, _ = self._step.advance(state, done)
                    self._done += 1
        self._state = state
        assert self._done == order.paths.step, "a state of another step"
        if self._examples is None or self._examples[0] != order.paths.step:
            self._examples = order.paths.step, Examples(*ray.get(order.examples[0]))
        return self._step.fitness(state, order.paths, order.row, order.chunk, self._examples[1])


def _fitness(resident: Resident, order: _Order) -> Float[np.ndarray, " m"]:
    return resident.once(_Replica).fitness(order)


class MembersOnRay:
    """Evaluates members by a pool. A chunk whose worker dies is evaluated again by another one, to the same bits.

    Args:
        workers: The pool.
        chunks: Number of chunks of a population.

    Attributes:
        fewest: The fewest workers so far.
    """

    def __init__(self, workers: Pool, chunks: int) -> None:
        self._workers, self._chunks = workers, chunks
        self._sent, self._state, self._since = -1, [], []
        self.fewest = workers.workers

    def __call__(self, state: TrainState, paths: StepPaths, examples: Examples) -> Float[np.ndarray, "k n"]:
        import ray

        if self._sent < 0 or paths.step % _EVERY == 0:
            self._sent, self._state, self._since = paths.step, [ray.put(jax.device_get(state))], []
        shared, since = [ray.put(tuple(jax.device_get(examples)))], [ray.put(tuple(self._since))]
        orders = [
            (_Order(paths, row, chunk, shared, self._sent, self._state, since),)
            for row in range(len(paths.genes))
            for chunk in range(self._chunks)
        ]
        found = np.concatenate(self._workers.run(_fitness, orders)).reshape(len(paths.genes), -1)
        self.fewest = min(self.fewest, self._workers.workers)
        self._since.append(Evaluated(paths, found))
        return found


def train_members_on_ray(
    experiment: Experiment, checkpoints: Checkpoints, run: RunDirectory, stop: StopRequest, quiet: bool
) -> TrainingFigures:
    """Trains here, with members on the workers of the section `ray`; arguments and results as those of `train`.

    Raises:
        UserError: Ray or its cluster cannot do it, or too few workers are left.
        Interrupted: `stop` was requested; a checkpoint of the step is saved.
    """
    done = checkpoints.latest() or 0
    if done >= experiment.steps:
        return figures_of(checkpoints, done)
    step: EvolutionStep = evolution_step(experiment)
    with pool(experiment, run.path) as workers:
        members = MembersOnRay(workers, step.settings.chunks)
        step.evaluate = members
        figures = train(
            experiment, checkpoints, lambda at: EventLog(run.tensorboard / "train", at), stop, quiet, step=step
        )
        return dataclasses.replace(figures, workers=workers.workers, fewest_workers=members.fewest)
