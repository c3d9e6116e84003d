"""What gradient search is fed: one part of the training split for the weights, the other for the architecture."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from experiments.data import ImageDataset
from experiments.data.augment import augment
from experiments.data.batches import batch_indices
from experiments.data.examples import Examples
from experiments.data.splits import draw, proportional_counts
from experiments.experiment import Experiment
from search_spaces import UserError
from search_spaces.randomness import Purpose
from supernet.randomness import key


class Fed(NamedTuple):
    """Normalised and augmented images, and the distribution over classes of each."""

    x: Float[Array, "b h w ch"]
    targets: Float[Array, "b c"]


class GradientBatch(NamedTuple):
    """The examples of one step; those of the architecture are None where it has no step."""

    step: int
    weights: Fed
    architecture: Fed | None


def parts(train: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """The examples that the weights and those that the architecture learn from; each class is in both in proportion.

    Args:
        train: The training split.
        fraction: Share of it that the architecture gets.
        seed: Of the draw.

    Raises:
        UserError: One of the parts is empty.
    """
    sizes = np.bincount(train.labels)
    count = round(fraction * len(train))
    if not 0 < count < len(train):
        raise UserError(
            f"gradient.architecture_data: {fraction} of {len(train)} training examples leaves a part without any. "
            "Set 0.5 or so."
        )
    held = draw(train.labels, proportional_counts(sizes, count), seed, Purpose.ARCHITECTURE_SPLIT)
    return train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))


_OF_WEIGHTS = Purpose.EXAMPLE_ORDER, Purpose.AUGMENTATION
_OF_ARCHITECTURE = Purpose.ARCHITECTURE_EXAMPLE_ORDER, Purpose.ARCHITECTURE_AUGMENTATION


class GradientBatches:
    """Makes the batch of any step: a function of the seed and the step.

    Args:
        experiment: Whose training split, batch size and augmentation are used.
        search_steps: Steps of the search; after them the weights learn from the whole training split.
        warmup_steps: Steps at its beginning in which the architecture has none.
        every: Steps of the weights for one of the architecture.
    """

    def __init__(self, experiment: Experiment, search_steps: int, warmup_steps: int, every: int) -> None:
        self._config, data = experiment.config, experiment.data
        assert isinstance(data, ImageDataset)  # what families take that can be superposed
        self._search_steps, self._warmup_steps, self._every = search_steps, warmup_steps, every
        self._all = data.train
        self._parts = parts(data.train, self._config.gradient.architecture_data, self._config.seed)
        settings = self._config.data.augmentation
        smoothing = self._config.train.label_smoothing
        self._augment = jax.jit(
            lambda key, step, images, labels: augment(
                jax.random.fold_in(key, step), images, labels, settings, data.classes, smoothing, data.mean, data.std
            )
        )  # fmt: skip

    def __call__(self, step: int) -> GradientBatch:
        """The batch of a step."""
        if step >= self._search_steps:
            return GradientBatch(step, self._fed(self._all, step, *_OF_WEIGHTS), None)
        of_weights, of_architecture = self._parts
        turn = step >= self._warmup_steps and (step - self._warmup_steps) % self._every == 0
        architecture = self._fed(of_architecture, step, *_OF_ARCHITECTURE) if turn else None
        return GradientBatch(step, self._fed(of_weights, step, *_OF_WEIGHTS), architecture)

    def _fed(self, examples: Examples, step: int, order: Purpose, augmentation: Purpose) -> Fed:
        seed = self._config.seed
        rows = batch_indices(len(examples), self._config.train.batch_size, seed, step, order)
        return Fed(*self._augment(key(seed, augmentation), step, examples.images(rows), examples.labels[rows]))
