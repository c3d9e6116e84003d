"""What search minimises, and how it is shown: the error of classifiers, the loss of language models. No JAX."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from search_spaces import SearchSpace

if TYPE_CHECKING:
    from supernet.evaluation import Scores


@dataclass(frozen=True)
class Objective:
    """A figure of subnets that is better the lower it is.

    Attributes:
        name: In logs and summaries.
        figure: Of `Scores`, that it follows from.
        lower: What is minimised, of such a figure.
        shown: What people read instead.
        value: What is shown of an objective.
        form: How that is written.
    """

    name: str
    figure: Literal["accuracy", "loss"]
    lower: Callable[[np.ndarray], np.ndarray]
    shown: str
    value: Callable[[float], float]
    form: str

    def of(self, scores: "Scores") -> Float[np.ndarray, " p"]:
        """The objective of scores; NaN for networks that have failed, whatever their likeliest classes."""
        return np.where(scores.failed, np.nan, self.lower(getattr(scores, self.figure)))

    def text(self, objective: float) -> str:
        """An objective to read."""
        return format(self.value(objective), self.form)

    def of_split(self, row: Mapping[str, Any], split: str) -> str:
        """What an exported subnet reaches on a split, to read.

        Args:
            row: Its figures, such as `test_accuracy`.
            split: Such as `test`.
        """
        return format(row[f"{split}_{self.shown}"], self.form)


OBJECTIVES = {
    one.name: one
    for one in (
        Objective("error", "accuracy", lambda accuracy: 1 - accuracy, "accuracy", lambda error: 1 - error, ".2%"),
        Objective("loss", "loss", lambda loss: loss, "perplexity", math.exp, ".3f"),
    )
}


def objective_of(space: SearchSpace) -> Objective:
    """The objective of a space's networks."""
    return OBJECTIVES["loss" if space.inputs == "tokens" else "error"]
