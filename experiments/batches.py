"""Batch: what a training step is fed, prepared ahead of it by a background thread."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int64

from experiments.data.augment import augment, normalise
from experiments.data.batches import batch_indices
from experiments.experiment import Experiment
from experiments.teachers import load_teachers
from samplers import SamplerState

_AUGMENT = 1


class Batch(NamedTuple):
    """The examples of one step.

    Attributes:
        step: Its number.
        rows: Indices into the training split.
        example_weights: Factor of each example's loss.
        x: Normalised and augmented images.
        targets: Distribution over classes of each.
        teacher: The external teachers' distribution on `x`, if there are any.
        plain: Normalised images without augmentation, and labels, for samplers that need "scores".
    """

    step: int
    rows: Int64[np.ndarray, " b"]
    example_weights: Float32[np.ndarray, " b"]
    x: Float[Array, "b h w ch"]
    targets: Float[Array, "b c"]
    teacher: Float[Array, "b c"] | None
    plain: tuple[Float[Array, "b h w ch"], np.ndarray] | None


class BatchMaker:
    """Makes the batch of any step: a function of the seed, the step, and what the sampler has learned."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        config, data = experiment.config, experiment.data
        key = jax.random.fold_in(jax.random.key(config.seed), _AUGMENT)
        self._augment = jax.jit(
            lambda number, images, labels: augment(
                jax.random.fold_in(key, number), images, labels, config.data.augmentation, data.classes,
                config.train.label_smoothing, data.mean, data.std,
            )
        )  # fmt: skip
        self._normalise = jax.jit(lambda images: normalise(images, data.mean, data.std))
        distillation = config.train.distillation
        self._teacher = load_teachers(distillation.teachers, data, distillation.temperature)

    def bind(self, state: SamplerState) -> Callable[[int], Batch]:
        """The function of steps whose examples follow from this state of the sampler."""
        return lambda step: self(state, step)

    def __call__(self, state: SamplerState, step: int) -> Batch:
        """The batch of a step."""
        experiment = self._experiment
        train, size = experiment.data.train, experiment.config.train.batch_size
        wanted = experiment.sampler.examples(state, step)
        if wanted is None:
            rows = batch_indices(len(train), size, experiment.config.seed, step)
            weights = np.ones(size, np.float32)
        else:
            rows, weights = wanted
        images, labels = train.images(rows), train.labels[rows]
        x, targets = self._augment(step, images, labels)
        teacher = None if self._teacher is None else self._teacher(x)
        plain = None
        if "scores" in experiment.sampler.needs:
            plain = self._normalise(jnp.asarray(images)), labels
        return Batch(step, rows, weights, x, targets, teacher, plain)
