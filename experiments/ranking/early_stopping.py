"""Early stopping of a network of the panel: its training ends once its outcome is known well enough."""

from pathlib import Path

from jaxtyping import Int
from numpy import ndarray

from experiments.configuration.result_sections import EarlyStoppingSection
from experiments.experiment import Experiment
from experiments.objective import LOSS, is_percent
from experiments.storage.tensorboard import EventLog
from experiments.training.learning_curve import LearningCurve
from experiments.training.one_path import logged_errors
from search.learning_curves import EarlyStopping, Outlook
from supernet.training.training import TrainState

_CURVE = "curve.json"
_LEAST = 3  # evaluations before a training may stop


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
        settings: Conditions under which the outcome counts as known.
        ranked_by: Whether that is said of the figure of the data or of the `loss`.
        work: Directory that holds the curve, so that a training that was stopped goes on the same.
    """

    def __init__(
        self, member: Experiment, genes: Int[ndarray, "1 g"], settings: EarlyStoppingSection, ranked_by: str, work: Path
    ) -> None:
        self._member, self._genes, self._ranked_by = member, genes, ranked_by
        self._rule = EarlyStopping(settings.tolerance, settings.confidence)
        self._curve = LearningCurve(work / _CURVE)

    def __call__(self, state: TrainState, log: EventLog, done: int) -> dict[str, float]:
        scores = self._member.evaluator(state.evaluation_params, self._genes)
        self._curve.add(done, scores)
        errors = logged_errors(self._member, scores, log, done)
        if len(self._curve.points) >= _LEAST and done < self._member.steps:
            self._stop_if_known(done)
        return errors

    def _stop_if_known(self, done: int) -> None:
        points = self._curve.points
        times = [one.step / self._member.steps for one in points]
        losses, figures = [one.loss for one in points], [one.figure for one in points]
        higher = is_percent(self._member.data.outputs.figure)
        if losses[0] == 0 or (figures[0] == 0 and not higher):
            return  # nothing can be won of 0, so that nothing is forecast
        of_loss = Outlook.of(times, losses, higher=False)
        of_figure = Outlook.of(times, figures, higher=higher)
        decides = of_loss if self._ranked_by == LOSS else of_figure
        if self._rule.certain(decides):
            raise Known(done, of_figure.figure, of_loss.figure, decides.interval(self._rule.confidence))
