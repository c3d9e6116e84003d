"""Early stopping of a network of the panel: its training ends once its outcome is known well enough."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxtyping import Int
from numpy import ndarray

from experiments.configuration.result_sections import EarlyStoppingSection
from experiments.experiment import Experiment
from experiments.objective import LOSS, is_percent
from experiments.storage.tensorboard import EventLog
from experiments.training.one_path import logged_errors
from search.learning_curves import EarlyStopping, Outlook
from search_spaces.sealed_json import read_sealed, sealed
from supernet.storage.manifest import write_text_atomically
from supernet.training.training import TrainState

_CURVE = "curve.json"
_LEAST = 3  # evaluations before a training may stop


@dataclass(frozen=True)
class Point:
    """Figure that a network reached after some steps."""

    step: int
    figure: float
    loss: float


class Known(Exception):
    """The outcome of a training is known.

    Args:
        step: The step that it was known after.
        figure: The forecast figure.
        loss: The forecast loss.
        interval: Least and greatest value of what the panel is ranked by, with the confidence that was asked for.
    """

    def __init__(self, step: int, figure: float, loss: float, interval: tuple[float, float]) -> None:
        super().__init__(f"known after step {step}")
        self.step, self.figure, self.loss, self.interval = step, figure, loss, interval


class CurveProbe:
    """Follows the learning curve of one network, and raises `Known` when its outcome is known.

    Args:
        member: The training of the network.
        genes: The network, one row.
        settings: When its outcome counts as known.
        ranked_by: Whether that is said of the figure of the data or of the `loss`.
        work: Directory that holds the curve, so that a training that was stopped goes on the same.
    """

    def __init__(
        self, member: Experiment, genes: Int[ndarray, "1 g"], settings: EarlyStoppingSection, ranked_by: str, work: Path
    ) -> None:
        self._member, self._genes, self._ranked_by = member, genes, ranked_by
        self._rule = EarlyStopping(settings.tolerance, settings.confidence)
        self._path = work / _CURVE
        self._points: list[Point] = []
        if self._path.exists():
            self._points = [Point(**point) for point in read_sealed(self._path, f"Delete {work}.")["points"]]

    def __call__(self, state: TrainState, log: EventLog, done: int) -> dict[str, float]:
        scores = self._member.evaluator(state.evaluation_params, self._genes)
        point = Point(done, float(scores.figure[0]), float(scores.loss[0]))
        # After a kill, training goes on from its last checkpoint, before points that are here already.
        self._points = [one for one in self._points if one.step < done]
        if not scores.failed[0]:
            self._points.append(point)
        content = sealed({"points": [asdict(one) for one in self._points]})
        write_text_atomically(self._path, json.dumps(content) + "\n")
        errors = logged_errors(self._member, scores, log, done)
        if len(self._points) >= _LEAST and done < self._member.steps:
            self._stop_if_known(done)
        return errors

    def _stop_if_known(self, done: int) -> None:
        times = [one.step / self._member.steps for one in self._points]
        losses, figures = [one.loss for one in self._points], [one.figure for one in self._points]
        higher = is_percent(self._member.data.outputs.figure)
        if losses[0] == 0 or (figures[0] == 0 and not higher):
            return  # nothing can be won of 0, so that nothing is forecast
        of_loss = Outlook.of(times, losses, higher=False)
        of_figure = Outlook.of(times, figures, higher=higher)
        decides = of_loss if self._ranked_by == LOSS else of_figure
        if self._rule.certain(decides):
            raise Known(done, of_figure.figure, of_loss.figure, decides.interval(self._rule.confidence))
