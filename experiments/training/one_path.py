"""OnePath: the sampler that trains one architecture alone, inside the weights of a supernet; and its probe."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from experiments.experiment import Experiment
from experiments.objective import objective_of
from experiments.storage.tensorboard import EventLog
from experiments.training.curves import ProbeErrors
from samplers import Paths, Sampler, SamplerState, Score
from supernet.training.evaluation import Scores
from supernet.training.training import TrainState


@dataclass(frozen=True)
class OnePath(Sampler):
    """Trains one architecture only.

    Args:
        genes: Its canonical genes.
    """

    genes: tuple[int, ...] = ()

    @property
    def paths_per_step(self) -> int:
        return 1

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        return Paths(np.array([self.genes], np.int32), ("random",), np.ones(1, np.float32))


def one_path_probe(member: Experiment, genes: Int[np.ndarray, " g"]) -> ProbeErrors:
    """Returns a probe that follows the validation error of one architecture.

    Args:
        member: The experiment that trains it.
        genes: Its canonical genes.
    """

    def probe(state: TrainState, log: EventLog, done: int) -> dict[str, float]:
        return logged_errors(member, member.evaluator(state.evaluation_params, genes[None]), log, done)

    return probe


def logged_errors(member: Experiment, scores: Scores, log: EventLog, done: int) -> dict[str, float]:
    """Logs the validation error of one architecture, and returns it as a probe does.

    Args:
        member: The experiment that trains it.
        scores: Its scores.
        log: Log to write to.
        done: Number of steps so far.
    """
    objective = objective_of(member.data)
    error = float(objective.of(scores)[0])
    log.scalars(done, {f"validation_{objective.name}": error})
    return dict.fromkeys(("smallest", "largest", "mean"), error)
