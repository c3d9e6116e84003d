"""Numbers: outputs that are one number or several, learned by squared error on standardised targets (regression)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from search_spaces.sealed_json import JsonObject
from supernet.tasks.answers import ExampleAnswer, Figures
from supernet.tasks.outputs import Compared, Measures

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Numbers(Compared):
    """Outputs that are numbers; a network computes them standardised, so that their scales do not matter.

    Labels are float64[b, c] in their own units, targets float32[b, c] less the mean, over the deviation; NaN is none.
    The loss of an example is the mean over its numbers of their squared error, standardised. The figure, `rmse`, is its
    root over examples: of one number in its own unit, of several in units of their deviations.

    Args:
        names: Name of each number.
        mean_of: Mean of each over the training split.
        std_of: Standard deviation of each, likewise.
    """

    figure = "rmse"
    objective = "rmse"
    said = "the labels are numbers, which are taught by squared error"

    names: tuple[str, ...]
    mean_of: tuple[float, ...]
    std_of: tuple[float, ...]

    def encode(self, labels: Shaped[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """See `Outputs.encode`: standardised."""
        return ((labels - np.array(self.mean_of)) / np.array(self.std_of)).astype(np.float32)

    def counted(self, targets: Float[Array, "b c"]) -> Bool[Array, " b"]:
        """See `Outputs.counted`."""
        return ~jnp.any(jnp.isnan(targets), axis=-1)

    def losses(self, logits: Float[Array, "b c"], targets: Float[Array, "b c"]) -> Float[Array, " b"]:
        """See `Outputs.losses`: squared error."""
        return jnp.mean(jnp.square(logits - targets), axis=-1)

    def figure_of(self, mean: Any) -> Any:
        """See `Outputs.figure_of`: the root of the mean squared error, in the unit of a single number."""
        return np.sqrt(mean) * (self.std_of[0] if len(self.names) == 1 else 1.0)

    def gradient_norms(self, logits: Float[Array, "b c"], targets: Float[Array, "b c"]) -> Float[Array, " b"]:
        """See `Outputs.gradient_norms`."""
        norms = 2 / len(self.names) * jnp.linalg.norm(logits - targets, axis=-1)
        return jnp.where(self.counted(targets), norms, 0.0)

    def serve(self, logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """See `Outputs.serve`: in the units of the labels."""
        return logits.astype(np.float64) * np.array(self.std_of) + np.array(self.mean_of)

    def answers(self, served: Float[np.ndarray, "n c"], names: tuple[str, ...], top: int) -> list[ExampleAnswer]:
        """See `Outputs.answers`: each number by its name."""
        return [ExampleAnswer(values=dict(zip(self.names, row, strict=True))) for row in served.tolist()]

    def measures(self, names: tuple[str, ...]) -> Measures:
        """See `Outputs.measures`."""
        return _Errors(self)

    def as_dict(self) -> JsonObject:
        """See `Outputs.as_dict`."""
        return {"type": "numbers", "names": self.names, "mean": self.mean_of, "std": self.std_of}


class _Errors(Measures):
    """Errors of numbers in their own units.

    Its figures: `rmse` (of several numbers in units of their deviations), `mae` likewise, `r2` (the share of the
    variance that is explained; of several their mean), and `by_target`: the three of each, in its own unit.
    """

    def __init__(self, outputs: Numbers) -> None:
        self._outputs = outputs
        self._served: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, served: np.ndarray, labels: np.ndarray) -> None:
        """See `Measures.add`."""
        self._served.append(served)
        self._labels.append(labels)

    def figures(self) -> Figures:
        """See `Measures.figures`."""
        served, labels = (np.concatenate(parts).astype(np.float64) for parts in (self._served, self._labels))
        wrong = served - labels
        squared, absolute = np.mean(wrong**2, axis=0), np.mean(np.abs(wrong), axis=0)
        spread = np.var(labels, axis=0)
        explained = [1 - s / v if v > 0 else None for s, v in zip(squared, spread, strict=True)]  # else not defined
        names = self._outputs.names
        by_target = {
            name: {"rmse": float(np.sqrt(s)), "mae": float(a), "r2": None if r is None else float(r)}
            for name, s, a, r in zip(names, squared, absolute, explained, strict=True)
        }
        if len(names) == 1:
            return {**by_target[names[0]], "by_target": by_target}
        std = np.array(self._outputs.std_of)
        return {
            "rmse": float(np.sqrt(np.mean(squared / std**2))),
            "mae": float(np.mean(absolute / std)),
            "r2": None if None in explained else float(np.mean([r for r in explained if r is not None])),
            "by_target": by_target,
        }
