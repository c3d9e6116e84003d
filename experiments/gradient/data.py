"""Batches of gradient search: one part of the training split for the weights, the other for the architecture."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float32, Shaped

from experiments.data.dataset import MakeBatch, Split
from experiments.data.splits import draw, proportional_counts
from experiments.experiment import Experiment
from search_spaces import UserError
from search_spaces.randomness import Purpose
from supernet.tasks.labels import Targets


class Fed(NamedTuple):
    """Inputs of the network, the targets of its outputs, and the factor of each example's loss in the mean."""

    x: Shaped[Array, "b ..."]
    targets: Targets
    example_weights: Float32[np.ndarray, " b"]


class GradientBatch(NamedTuple):
    """The examples of one step; those of the architecture are None where it has no step."""

    step: int
    weights: Fed
    architecture: Fed | None


def parts(train: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divides the examples between weights and architecture, with each class in both in proportion.

    Args:
        train: The training split.
        fraction: Share of it that the architecture gets.
        seed: Seed of the draw.

    Raises:
        UserError: One of the parts is empty.
    """
    count = round(fraction * len(train))
    if not 0 < count < len(train):
        raise UserError(
            f"gradient.architecture_data: {fraction} of {len(train)} training examples leaves a part without any. "
            "Set 0.5 or so."
        )
    strata = train.strata
    held = draw(strata, proportional_counts(np.bincount(strata), count), seed, Purpose.ARCHITECTURE_SPLIT)
    return train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))


class GradientBatches:
    """Makes the batch of any step: a function of the seed and the step.

    Args:
        experiment: Experiment whose training split, batch size and augmentation are used.
        search_steps: Steps of the search; after them the weights learn from the whole training split.
        warmup_steps: Steps at its beginning in which the architecture has none.
        every: Steps of the weights for one of the architecture.
    """

    def __init__(self, experiment: Experiment, search_steps: int, warmup_steps: int, every: int) -> None:
        self._config, self._data = experiment.config, experiment.data
        self._search_steps, self._warmup_steps, self._every = search_steps, warmup_steps, every
        self._all = self._data.train
        self._parts = parts(self._data.train, self._config.gradient.architecture_data, self._config.seed)
        settings = self._config.seed, self._config.data.augmentation, self._config.train.label_smoothing
        self._of_weights = self._data.batches(*settings), Purpose.EXAMPLE_ORDER
        self._of_architecture = self._data.batches(*settings, architecture=True), Purpose.ARCHITECTURE_EXAMPLE_ORDER

    def __call__(self, step: int) -> GradientBatch:
        """The batch of a step."""
        if step >= self._search_steps:
            return GradientBatch(step, self._fed(self._all, step, *self._of_weights), None)
        of_weights, of_architecture = self._parts
        turn = step >= self._warmup_steps and (step - self._warmup_steps) % self._every == 0
        architecture = self._fed(of_architecture, step, *self._of_architecture) if turn else None
        return GradientBatch(step, self._fed(of_weights, step, *self._of_weights), architecture)

    def _fed(self, examples: Split, step: int, make: MakeBatch, order: Purpose) -> Fed:
        rows = examples.batch(self._config.train.batch_size, self._config.seed, step, order)
        x, targets = make(step, examples, rows)
        return Fed(x, targets, self._data.example_weights(targets))
