"""Classes: outputs that are scores of classes, one of which is right, or of tokens; learned by cross-entropy."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer

from search_spaces.sealed_json import JsonObject
from supernet.tasks.answers import ExampleAnswer, Figures, LikelyClass
from supernet.tasks.divergences import alpha_divergence, soften
from supernet.tasks.labels import Targets, are_classes, gradient_norms, output_losses, over_outputs
from supernet.tasks.outputs import Measures, Outputs

if TYPE_CHECKING:
    from supernet.tasks.distillation import Distillation


@dataclass(frozen=True)
class Classes(Outputs):
    """Outputs over classes; labels are their numbers, negative for none, and targets these or distributions.

    Args:
        objective: Objective of the search: the `error`, or the `loss` where the order among all classes matters
            (tokens).
        smoothing: Share of each label that the loss spreads evenly over all classes; not of targets that are
            distributions already.
    """

    figure = "accuracy"
    figure_dtype = jnp.int32
    missing: ClassVar[float] = -1

    objective: str = "error"
    smoothing: float = 0.0

    def encode(self, labels: Integer[np.ndarray, "*n"]) -> Int32[np.ndarray, "*n"]:
        """See `Outputs.encode`: as they are."""
        return labels.astype(np.int32)

    def counted(self, targets: Targets) -> Bool[Array, "b *t"]:
        """See `Outputs.counted`."""
        return targets >= 0 if are_classes(targets) else jnp.ones(targets.shape[:-1], bool)

    def losses(self, logits: Float[Array, "b *t c"], targets: Targets) -> Float[Array, "b *t"]:
        """See `Outputs.losses`: cross-entropy."""
        losses = output_losses(logits, targets)
        if not self.smoothing or not are_classes(targets):
            return losses
        even = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
        return losses + self.smoothing * (even - losses)

    def figures(self, logits: Float[Array, "b *t c"], targets: Targets) -> Bool[Array, "b *t"]:
        """See `Outputs.figures`: whether the likeliest class is the label's."""
        likeliest = targets if are_classes(targets) else jnp.argmax(targets, axis=-1)
        return jnp.argmax(logits, axis=-1) == likeliest

    def figure_of(self, mean: Any) -> Any:
        """See `Outputs.figure_of`: the accuracy itself."""
        return mean

    def mean(self, values: Float[Array, "b *t"], targets: Targets) -> Float[Array, " b"]:
        """See `Outputs.mean`."""
        return over_outputs(values, targets)

    def gradient_norms(self, logits: Float[Array, "b *t c"], targets: Targets) -> Float[Array, " b"]:
        """See `Outputs.gradient_norms`."""
        return gradient_norms(logits, targets, self.smoothing)

    def teach(self, logits: Float[Array, "*n c"], temperature: float) -> Float[Array, "*n c"]:
        """See `Outputs.teach`: a distribution."""
        return soften(logits, temperature)

    def divergence(
        self,
        taught: Float[Array, "b *t c"],
        logits: Float[Array, "b *t c"],
        settings: "Distillation",
        alpha: Float[Array, ""],
    ) -> Float[Array, "b *t"]:
        """See `Outputs.divergence`."""
        t = settings.temperature
        log_q = jax.nn.log_softmax(logits / t)
        kl = -jnp.sum(taught * log_q, axis=-1)
        adaptive = alpha_divergence(taught, logits / t, settings.alpha_min, settings.alpha_max, settings.clip)
        return jnp.where(alpha > 0, adaptive, kl) * t**2

    def check(self, settings: "Distillation") -> None:
        """See `Outputs.check`: all settings are for classes."""

    def answers(self, served: Float[np.ndarray, "n c"], names: tuple[str, ...], top: int) -> list[ExampleAnswer]:
        """See `Outputs.answers`: the likeliest classes with their probabilities."""
        odds = np.exp(served - served.max(axis=-1, keepdims=True))
        odds /= odds.sum(axis=-1, keepdims=True)
        order = np.argsort(-odds, axis=-1, kind="stable")[:, :top]
        return [
            ExampleAnswer(top=tuple(LikelyClass(names[i], float(row[i])) for i in first))
            for row, first in zip(odds, order, strict=True)
        ]

    def measures(self, names: tuple[str, ...]) -> Measures:
        """See `Outputs.measures`."""
        return _Counts(names)

    def as_dict(self) -> JsonObject:
        """See `Outputs.as_dict`."""
        return {"type": "classes"}


class _Counts(Measures):
    """Right outputs and losses.

    Its figures: `accuracy`, the share of right outputs; where examples have several also their mean `loss` and
    `perplexity`, elsewhere `by_class`: how many of each class are right, and how many there are.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names, self._by_class = names, np.zeros((len(names), 2), np.int64)
        self._right = self._count = 0
        self._loss, self._several = 0.0, False

    def add(self, served: np.ndarray, labels: np.ndarray) -> None:
        """See `Measures.add`."""
        there, hits = labels >= 0, served.argmax(axis=-1) == labels
        self._count += int(there.sum())
        self._right += int(hits[there].sum())
        self._several = labels.ndim > 1
        if not self._several:
            known = there & (labels < len(self._names))
            np.add.at(self._by_class, labels[known], np.stack([hits[known], np.ones(known.sum(), bool)], axis=1))
        losses = np.asarray(output_losses(jnp.asarray(served), jnp.asarray(labels)), np.float64)
        self._loss += float(losses[there].sum())

    def figures(self) -> Figures:
        """See `Measures.figures`."""
        found: dict[str, Any] = {"accuracy": self._right / max(self._count, 1)}
        if self._several:
            loss = self._loss / max(self._count, 1)
            return {**found, "loss": loss, "perplexity": math.exp(loss)}
        return {**found, "by_class": dict(zip(self._names, self._by_class.tolist(), strict=True))}


CLASSES = Classes()
