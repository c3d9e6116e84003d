"""Early stopping of a finetuning: it ends once a forecast of its learning curve promises too little of further steps.

What it must beat is the better of two figures of the validation split: what the network reaches already, and what the
best variant before it has reached. So a variant that cannot win stops, and so does one that has nothing left to gain.
"""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int
from numpy import ndarray

from experiments.configuration.finetune_section import FinetuneStoppingSection
from experiments.experiment import Experiment
from experiments.objective import LOSS, objective_of
from experiments.records import FinetunedNetwork, Interval, StoppedFinetuning
from experiments.storage.tensorboard import EventLog
from experiments.training.learning_curve import LearningCurve, Point
from experiments.training.one_path import logged_errors
from search.learning_curves import EarlyStopping, Outlook
from supernet.engine.supernet import Params
from supernet.training.training import TrainState

_LEAST = 3  # evaluations before a finetuning may stop


@dataclass(frozen=True)
class Rival:
    """The best variant before another one.

    Attributes:
        name: Name of its directory.
        value: Figure that people read, on the validation split.
    """

    name: str
    value: float


def best_of(found: dict[str, FinetunedNetwork], higher: bool) -> Rival | None:
    """Returns the best finetuned network by the validation split, the first of equals; None where there is none.

    Args:
        found: Finetuned networks by name.
        higher: Whether the figure that people read is better the higher it is.
    """
    rivals = [Rival(name, one.validation.after.value) for name, one in found.items()]
    return min(rivals, key=lambda rival: -rival.value if higher else rival.value, default=None)


class NothingToGain(Exception):
    """Further steps of a finetuning will probably not pay.

    Args:
        step: Number of steps that were done.
        error: Objective of the network there.
        params: Its weights.
        stopped: Report of the stop.
    """

    def __init__(self, step: int, error: float, params: Params, stopped: StoppedFinetuning) -> None:
        super().__init__(f"nothing to gain after step {step}")
        self.step, self.error, self.params, self.stopped = step, error, params, stopped


class GainProbe:
    """Follows the learning curve of a finetuning, and raises `NothingToGain` when further steps will not pay.

    Args:
        member: The training of the network.
        genes: Its canonical genes.
        settings: Conditions under which training stops.
        before: Figure that people read before the finetuning, on the validation split.
        rival: The best variant before this one; None where there is none.
        path: File that holds the curve, so that a finetuning that was interrupted goes on the same.
    """

    def __init__(
        self, member: Experiment, genes: Int[ndarray, " g"], settings: FinetuneStoppingSection, before: float,
        rival: Rival | None, path: Path,
    ) -> None:  # fmt: skip
        self._member, self._genes, self._before, self._rival = member, genes[None], before, rival
        self._rule = EarlyStopping(settings.tolerance, settings.confidence)
        self._curve = LearningCurve(path)
        self._objective = objective_of(member.data)

    def __call__(self, state: TrainState, log: EventLog, done: int) -> dict[str, float]:
        params = state.evaluation_params
        scores = self._member.evaluator(params, self._genes)
        self._curve.add(done, scores)
        errors = logged_errors(self._member, scores, log, done)
        if len(self._curve.points) >= _LEAST and done < self._member.steps and not scores.failed[0]:
            stopped = self._verdict()
            if stopped is not None:
                raise NothingToGain(done, errors["mean"], params, stopped)
        return errors

    def _verdict(self) -> StoppedFinetuning | None:
        steps, higher = self._member.steps, self._objective.higher
        points = self._curve.points
        values = [self._value(point) for point in points]
        times = [point.step / steps for point in points]
        if not higher:  # of errors, the part of the first one that was won counts
            values, times = [self._before, *values], [0.0, *times]
        if not higher and self._before == 0:
            return None  # nothing can be won of 0, so that nothing is forecast
        rival, best = None, self._reached(values)
        if self._rival is not None and (self._rival.value > best if higher else self._rival.value < best):
            rival, best = self._rival.name, self._rival.value
        outlook = Outlook.of(times, values, higher)
        if not self._rule.hopeless(outlook, best):
            return None
        forecast = Interval(outlook.figure, *outlook.interval(self._rule.confidence))
        return StoppedFinetuning(steps, forecast, best, rival)

    def _reached(self, values: list[float]) -> float:
        """The figure of the weights that would be exported now."""
        if self._member.config.train.checkpoint == "last":
            return values[-1]
        reached = values if self._objective.higher else values[1:]  # without the one before the finetuning
        return max(reached) if self._objective.higher else min(reached)

    def _value(self, point: Point) -> float:
        figure = point.loss if self._objective.figure == LOSS else point.figure
        return float(self._objective.value(float(self._objective.lower(figure))))  # type: ignore[arg-type]
