"""Outputs: what a network's outputs mean, how far off they are, and what is told of that."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from search_spaces import UserError
from search_spaces.sealed_json import JsonObject
from supernet.tasks.answers import ExampleAnswer, Figures

if TYPE_CHECKING:
    from supernet.tasks.distillation import Distillation


class Measures(ABC):
    """Figures of a standalone network on a split, added up part by part."""

    @abstractmethod
    def add(self, served: Float[np.ndarray, "n *t c"], labels: Shaped[np.ndarray, "n ..."]) -> None:
        """Adds some examples.

        Args:
            served: Result of `Subnet.predict`; finite.
            labels: Their labels as the split has them.
        """

    @abstractmethod
    def figures(self) -> Figures:
        """Returns the figures of all that was added, by name."""


class Outputs(ABC):
    """Meaning of a network's outputs. Shapes: b examples, t outputs of an example where it has several, c numbers each.

    Labels are what a split has; targets are what they become for a network (`encode`), or what augmentation makes of
    these. Everything but `encode`, `serve` and `measures` runs inside compiled programs.

    Attributes:
        figure: Name of the figure that people read, such as accuracy.
        figure_dtype: Type that sums of `figures` have.
        objective: Objective of the search, by its name in `experiments.objective.OBJECTIVES`.
        missing: Target of an output that counts for nothing.
    """

    figure: ClassVar[str]
    figure_dtype: ClassVar[Any]
    objective: str
    missing: ClassVar[float]

    @abstractmethod
    def encode(self, labels: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "n ..."]:
        """Returns the targets of labels."""

    @abstractmethod
    def counted(self, targets: Shaped[Array, "b ..."]) -> Bool[Array, "b *t"]:
        """Returns which outputs have a label."""

    @abstractmethod
    def losses(self, logits: Float[Array, "b *t c"], targets: Shaped[Array, "b ..."]) -> Float[Array, "b *t"]:
        """Returns the loss of each output; of one without a label, anything."""

    @abstractmethod
    def figures(self, logits: Float[Array, "b *t c"], targets: Shaped[Array, "b ..."]) -> Shaped[Array, "b *t"]:
        """Returns what the figure follows from, for each output; its mean is given to `figure_of`."""

    @abstractmethod
    def figure_of(self, mean: Any) -> Any:
        """Returns the figure, from the mean of `figures` over outputs."""

    @abstractmethod
    def mean(self, values: Float[Array, "b *t"], targets: Shaped[Array, "b ..."]) -> Float[Array, " b"]:
        """Returns each example's mean over its outputs with a label; 0 where it has none."""

    @abstractmethod
    def gradient_norms(self, logits: Float[Array, "b *t c"], targets: Shaped[Array, "b ..."]) -> Float[Array, " b"]:
        """Returns the norm of each example's gradient of the loss with respect to its outputs."""

    # ---------------------------------------------------------------- distillation

    @abstractmethod
    def teach(self, logits: Float[Array, "*n c"], temperature: float) -> Float[Array, "*n c"]:
        """Returns what a network teaches with its outputs."""

    @abstractmethod
    def divergence(
        self,
        taught: Float[Array, "b *t c"],
        logits: Float[Array, "b *t c"],
        settings: "Distillation",
        alpha: Float[Array, ""],
    ) -> Float[Array, "b *t"]:
        """Returns how far each output is from what was taught; `alpha` above 0 asks for the adaptive divergence."""

    @abstractmethod
    def check(self, settings: "Distillation") -> None:
        """Refuses settings of distillation that mean nothing for such outputs.

        Raises:
            UserError: There is one.
        """

    # ---------------------------------------------------------------- an exported network

    def serve(self, logits: Float[np.ndarray, "n *t c"]) -> Float[np.ndarray, "n *t c"]:
        """Returns what an exported network gives: its outputs, in the units of labels."""
        return logits

    @abstractmethod
    def answers(self, served: Float[np.ndarray, "n c"], names: tuple[str, ...], top: int) -> list[ExampleAnswer]:
        """Returns what an exported network says of each example.

        Args:
            served: Result of `Subnet.predict` on the examples, [n, c].
            names: Names of the classes.
            top: Largest number of likeliest classes that are named.
        """

    @abstractmethod
    def measures(self, names: tuple[str, ...]) -> Measures:
        """Returns empty figures; `names` are those of the classes."""

    @abstractmethod
    def as_dict(self) -> JsonObject:
        """Returns what `config.json` says of them under `outputs`."""


class Compared(Outputs):
    """Outputs that are as far off as they differ from their targets, of which an example has one loss.

    What a network teaches is its outputs, which become targets of another.

    Attributes:
        said: What the labels are and how they are taught, in messages.
    """

    figure_dtype = np.float32
    missing: ClassVar[float] = float("nan")
    said: ClassVar[str]

    def figures(self, logits: Float[Array, "b *t c"], targets: Float[Array, "b *t d"]) -> Float[Array, " b"]:
        """See `Outputs.figures`: the losses."""
        return self.losses(logits, targets)

    def mean(self, values: Float[Array, " b"], targets: Float[Array, "b *t d"]) -> Float[Array, " b"]:
        """See `Outputs.mean`: an example has one loss."""
        return jnp.where(self.counted(targets), values, 0.0)

    def teach(self, logits: Float[Array, "*n c"], temperature: float) -> Float[Array, "*n c"]:
        """See `Outputs.teach`: the outputs."""
        return logits

    def divergence(
        self,
        taught: Float[Array, "b *t d"],
        logits: Float[Array, "b *t c"],
        settings: "Distillation",
        alpha: Float[Array, ""],
    ) -> Float[Array, " b"]:
        """See `Outputs.divergence`: the loss, with another network's outputs as targets."""
        return self.losses(logits, taught)

    def check(self, settings: "Distillation") -> None:
        """See `Outputs.check`: there is neither a temperature nor an alpha-divergence."""
        for name, plain in (("loss", "kl"), ("temperature", 1.0)):
            if settings.type != "none" and getattr(settings, name) != plain:
                raise UserError(
                    f"train.distillation.{name}: {getattr(settings, name)} is for classes, and {self.said}. Leave it "
                    f"out ({plain})."
                )
