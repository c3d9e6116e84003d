"""Objectives of search and display of figures: error of classifiers, loss of language models. No JAX."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from experiments.data import Dataset
    from supernet.training.evaluation import Scores

LOSS = "loss"

FORMS = {
    "perplexity": ".3f", "accuracy": ".2%", "rmse": ".5g", "mae": ".5g", "r2": ".4f", "bleu": ".2f",
    "relation_loss": ".4g",
}  # fmt: skip
"""Figures of exported networks that are shown, in this order, and how they are written."""


@dataclass(frozen=True)
class Objective:
    """A figure of subnets that is better the lower it is.

    Attributes:
        name: In logs and summaries.
        figure: Name of the figure that it follows from: that of the outputs, or `loss`.
        lower: Function from such a figure to the quantity that is minimised.
        shown: Name of the figure that is shown instead.
        value: Function from an objective to the figure that is shown.
        form: Format of that figure.
        higher: Whether what is shown is better the higher it is.
        bounded: Whether a space knows an objective that no network should have; otherwise that is guessing.
        range: Least and greatest value of what is shown.
        worst: Value of the objective that no network exceeds; None where it depends on space and data.
        unlearned: Share of the way from guessing to a perfect answer that networks reach which learned next to nothing.
    """

    name: str
    figure: str
    lower: Callable[[np.ndarray], np.ndarray]
    shown: str
    value: Callable[[float], float]
    form: str
    higher: bool = False
    bounded: bool = True
    range: tuple[float, float] = (0.0, math.inf)
    worst: float | None = None
    unlearned: float = 0.05

    def of(self, scores: "Scores") -> Float[np.ndarray, " p"]:
        """Returns the objective of scores; NaN for failed networks."""
        figure = scores.loss if self.figure == LOSS else scores.figure
        return np.where(scores.failed, np.nan, self.lower(figure))

    def text(self, objective: float) -> str:
        """Formats an objective as text."""
        return format(self.value(objective), self.form)

    def of_figures(self, figures: Mapping[str, Any]) -> str:
        """Returns what people read of the figures that a network reaches on a split."""
        return format(figures[self.shown], self.form)


OBJECTIVES = {
    one.name: one
    for one in (
        Objective(
            "error",
            "accuracy",
            lambda accuracy: 1 - accuracy,
            "accuracy",
            lambda error: 1 - error,
            ".2%",
            higher=True,
            range=(0.0, 1.0),
        ),
        Objective("loss", LOSS, lambda loss: loss, "perplexity", math.exp, ".3f", range=(1.0, math.inf)),
        Objective("rmse", "rmse", lambda rmse: rmse, "rmse", lambda rmse: rmse, ".5g", bounded=False),
        Objective(
            "bleu_error",
            "bleu",
            lambda bleu: 100 - bleu,
            "bleu",
            lambda distance: 100 - distance,
            ".2f",
            higher=True,
            range=(0.0, 100.0),
            worst=100.0,
            unlearned=0.01,  # useful translations begin at a quarter of the scale
        ),
        Objective(
            "relation_loss",
            "relation_loss",
            lambda loss: loss,
            "relation_loss",
            lambda loss: loss,
            ".4g",
            bounded=False,
        ),
    )
}
"""Objectives by name; `Outputs.objective` names one, a search by a metric has the one that follows from its figure, and
the file of a task or metric that needs another adds it."""


def objective_of(data: "Dataset") -> Objective:
    """Returns the objective of networks on a data set."""
    return OBJECTIVES[data.outputs.objective]


def search_objective(metric: str | None, data: "Dataset") -> Objective:
    """Returns the objective of a search by a metric, or by the figure of the data when None.

    Raises:
        KeyError: No objective follows from the metric.
    """
    return objective_of(data) if metric is None else objective_from(metric)


def objective_from(figure: str) -> Objective:
    """Returns the objective that follows from a figure.

    Raises:
        KeyError: There is none.
    """
    return {one.figure: one for one in OBJECTIVES.values()}[figure]


def is_percent(figure: str) -> bool:
    """Returns whether a figure is a share, which is written in percent."""
    return FORMS.get(figure, "").endswith("%")


def figures_text(figures: Mapping[str, Any]) -> str:
    """Figures of an exported network, to read."""
    known = [(name, figures[name]) for name in FORMS if figures.get(name) is not None]
    return ", ".join(f"{name} {format(value, FORMS[name])}" for name, value in known)
