"""Early stopping by predicted final losses on the learning curves of TaskSet: epochs saved, and loss given up.

Command: `python -m experiments.benchmarks.early_stopping --json`, with `learning_curves/` below `$SUPERNEST_DATA`.
Nothing is trained. For each of 12 tasks, panels of recorded trainings are drawn. The goal is the training with the
least final validation loss of its panel. A rule watches each training from its first epochs on and decides when to stop
it. Its choice is compared with the one after complete training. Baselines are the losses of all trainings after half of
the epochs, and successive halving.

References:
    Metz et al. Using a thousand optimization tasks to learn hyperparameter search strategies. 2020, arXiv:2002.11887
    (TaskSet; data from DyHPO's repository, Apache-2.0).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.real_data import real_data
from experiments.commands.options import json_option
from experiments.ranking.fidelity import kendall_tau
from experiments.user_input.paths import UserPath
from search.learning_curves import CurvePrior, EarlyStopping, Outlook
from search_spaces.randomness import Purpose, stream

_FILE = "taskset_rnn_imdb_12x1000.npz"
_EVERY = 5
_REDUCTION = 4


@dataclass
class Trainings:
    """Validation losses of the trainings of a task.

    Attributes:
        losses: float[trainings, epochs + 1]; the first column is the loss before the first step.
        prior: Prior of the forecasts.
    """

    losses: Float[np.ndarray, "n e"]
    prior: CurvePrior
    _known: dict[tuple[int, int], Outlook] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Number of epochs of a complete training."""
        return self.losses.shape[1] - 1

    def outlook(self, row: int, epoch: int) -> Outlook:
        """Returns the forecast of a training's final loss from its losses up to an epoch."""
        if (row, epoch) not in self._known:
            times = [i / self.epochs for i in range(epoch + 1)]
            self._known[row, epoch] = Outlook.of(times, self.losses[row, : epoch + 1].tolist(), False, self.prior)
        return self._known[row, epoch]


@dataclass(frozen=True)
class Outcome:
    """Final losses and trained epochs of a panel under a stopping rule.

    Attributes:
        values: Final loss of each training; its forecast if it was stopped.
        epochs: Number of trained epochs.
    """

    values: Float[np.ndarray, " p"]
    epochs: int


Rule = Callable[[Trainings, np.ndarray], Outcome]


def whole(trainings: Trainings, panel: np.ndarray) -> Outcome:
    """Trains everything to the end."""
    return Outcome(trainings.losses[panel, -1], len(panel) * trainings.epochs)


def half(trainings: Trainings, panel: np.ndarray) -> Outcome:
    """Trains everything for half of the epochs and compares the losses there."""
    epochs = trainings.epochs // 2
    return Outcome(trainings.losses[panel, epochs], len(panel) * epochs)


def halving(trainings: Trainings, panel: np.ndarray) -> Outcome:
    """Runs successive halving: the best quarter continues for four times as many epochs."""
    values, rows, epochs, spent = np.full(len(panel), np.nan), np.arange(len(panel)), trainings.epochs, 0
    rungs = [max(epochs // _REDUCTION**i, 1) for i in (2, 1, 0)]
    for before, rung in zip([0, *rungs], rungs, strict=False):
        values[rows] = trainings.losses[panel[rows], rung]
        spent += len(rows) * (rung - before)
        if rung == epochs:
            break
        rows = rows[np.argsort(values[rows], kind="stable")[: max(len(rows) // _REDUCTION, 1)]]
    out = np.setdiff1d(np.arange(len(panel)), rows)
    values[out] += np.nanmax(values)  # those that were left behind come after the finalists
    return Outcome(values, spent)


def forecasting(stopping: EarlyStopping, certain: bool, hopeless: bool) -> Rule:
    """Stops a training when its final loss is known well enough, or when it will not beat the best earlier training."""

    def rule(trainings: Trainings, panel: np.ndarray) -> Outcome:
        values, spent, best = np.zeros(len(panel)), 0, np.inf
        for i, row in enumerate(panel):
            epoch, value = trainings.epochs, float(trainings.losses[row, -1])
            for cut in range(_EVERY, trainings.epochs, _EVERY):
                seen = trainings.outlook(row, cut)
                if (certain and stopping.certain(seen)) or (hopeless and stopping.hopeless(seen, best)):
                    epoch, value = cut, seen.figure
                    break
            values[i], best = value, min(best, value)
            spent += epoch
        return Outcome(values, spent)

    return rule


def racing(stopping: EarlyStopping) -> Rule:
    """Trains all in parallel and drops those that will probably not beat the leader by forecast."""

    def rule(trainings: Trainings, panel: np.ndarray) -> Outcome:
        values, spent, running = trainings.losses[panel, -1].copy(), 0, list(range(len(panel)))
        for cut in range(_EVERY, trainings.epochs, _EVERY):
            spent += _EVERY * len(running)
            seen = {i: trainings.outlook(panel[i], cut) for i in running}
            leader = min(running, key=lambda i: seen[i].figure)
            for i in running.copy():
                if i != leader and stopping.hopeless(seen[i], seen[leader].figure):
                    values[i] = seen[i].figure
                    running.remove(i)
        return Outcome(values, spent + _EVERY * len(running))

    return rule


def rules(stopping: EarlyStopping) -> dict[str, Rule]:
    """Returns the compared rules by name."""
    return {
        "whole": whole,
        "half of the epochs": half,
        "successive halving": halving,
        "certain": forecasting(stopping, certain=True, hopeless=False),
        "hopeless": forecasting(stopping, certain=False, hopeless=True),
        "certain or hopeless": forecasting(stopping, certain=True, hopeless=True),
        "racing": racing(stopping),
    }


@dataclass(frozen=True)
class OfRule:
    """Figures of a rule over panels.

    Attributes:
        times_fewer_epochs: Epochs of complete training over trained epochs (harmonic mean).
        same_choice: Share of panels with the same choice as complete training.
        loss_given_up_mean: Mean loss that the choice gives up.
        loss_given_up_90_percent: 90 % quantile of the loss given up.
        kendall_tau: Mean tau-b between the rule's values and the final losses.
    """

    times_fewer_epochs: float
    same_choice: float
    loss_given_up_mean: float
    loss_given_up_90_percent: float
    kendall_tau: float

    @classmethod
    def of(cls, found: Float[np.ndarray, "p 4"]) -> "OfRule":
        """Returns the figures of panels, whose columns are epochs saved, same choice, loss given up and tau."""
        times_fewer, same, lost, tau = found.T
        return cls(
            float(len(found) / (1 / times_fewer).sum()),
            float(same.mean()),
            float(lost.mean()),
            float(np.quantile(lost, 0.9)),
            float(tau.mean()),
        )


def compared(tasks: dict[str, Trainings], panels: int, size: int, stopping: EarlyStopping) -> dict[str, OfRule]:
    """Measures every rule over panels of all tasks."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for number, trainings in enumerate(tqdm(tasks.values(), desc="tasks", disable=None)):
        for panel_number in range(panels):
            panel = stream(panel_number, Purpose.PANEL, number).permutation(len(trainings.losses))[:size]
            truth = trainings.losses[panel, -1]
            for name, rule in rules(stopping).items():
                outcome = rule(trainings, panel)
                chosen = int(outcome.values.argmin())
                lost = float(truth[chosen] - truth.min())
                tau = kendall_tau(truth, outcome.values)
                rows.setdefault(name, []).append((size * trainings.epochs / outcome.epochs, lost == 0, lost, tau))
    return {name: OfRule.of(np.array(found)) for name, found in rows.items()}


def read(directory: Path, trainings: int, prior: CurvePrior) -> dict[str, Trainings]:
    """Reads random trainings of each task whose losses stayed finite."""
    with np.load(directory / "learning_curves" / _FILE, allow_pickle=False) as file:
        found = {}
        for number, task in enumerate(file["tasks"].tolist()):
            losses = file[f"{task}__valid_loss"].astype(float)
            losses = losses[np.isfinite(losses).all(axis=1)]
            drawn = stream(0, Purpose.PANEL, number).permutation(len(losses))[:trainings]
            found[task] = Trainings(losses[np.sort(drawn)], prior)
        return found


@click.command(cls=Benchmark)
@click.option(
    "--directory", type=UserPath(), help="Directory that contains learning_curves/.  [default: $SUPERNEST_DATA]"
)
@click.option(
    "--trainings", default=60, show_default=True, help="Number of trainings of each task to draw panels from."
)
@click.option("--panels", default=10, show_default=True, help="Number of panels for each task.")
@click.option("--size", default=24, show_default=True, help="Number of trainings in a panel.")
@click.option("--tolerance", default=EarlyStopping.tolerance, show_default=True)
@click.option("--confidence", default=EarlyStopping.confidence, show_default=True)
@click.option(
    "--delayed",
    default=0.0,
    show_default=True,
    help="Share of the curves of the prior that start to rise late, from 0 to 1.",
)
@json_option
def main(
    directory: Path | None, trainings: int, panels: int, size: int, tolerance: float, confidence: float,
    delayed: float, as_json: bool,
) -> None:  # fmt: skip
    """Runs the benchmark."""
    stopping = EarlyStopping(tolerance, confidence)
    tasks = read(real_data(directory), trainings, CurvePrior(delayed=delayed))
    found = compared(tasks, panels, size, stopping)
    show({"tasks": len(tasks), **{name: asdict(of) for name, of in found.items()}}, as_json)


if __name__ == "__main__":
    main()
