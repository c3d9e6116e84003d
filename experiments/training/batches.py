"""Batch: what a training step is fed, prepared ahead of it by a background thread."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Float32, Int64, Shaped

from experiments.experiment import Experiment
from experiments.training.teachers import load_teachers
from samplers import SamplerState
from supernet.tasks.labels import Targets


class Batch(NamedTuple):
    """The examples of one step.

    Attributes:
        step: Its number.
        rows: Indices into the training split.
        example_weights: Factor of each example's loss.
        x: Input of the network: normalised and augmented images, or tokens.
        targets: Targets of its outputs.
        teacher: The external teachers' distribution on `x`, if there are any.
        plain: Input of the network, without augmentation, and labels, for samplers that need "scores".
    """

    step: int
    rows: Int64[np.ndarray, " b"]
    example_weights: Float32[np.ndarray, " b"]
    x: Shaped[Array, "b ..."]
    targets: Targets
    teacher: Float[Array, "b *t c"] | None
    plain: tuple[Shaped[Array, "b ..."], np.ndarray] | None


class BatchMaker:
    """Makes the batch of any step: a function of the seed, the step, and what the sampler has learned."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        config, data = experiment.config, experiment.data
        self._make = data.batches(config.seed, config.data.augmentation, config.train.label_smoothing)
        distillation = config.train.distillation
        self._teacher = load_teachers(distillation.teachers, data, experiment.net, distillation.temperature)

    def bind(self, state: SamplerState) -> Callable[[int], Batch]:
        """Returns the batch function for steps whose examples follow from this state of the sampler."""
        return lambda step: self(state, step)

    def __call__(self, state: SamplerState, step: int) -> Batch:
        """The batch of a step."""
        experiment = self._experiment
        train, size = experiment.data.train, experiment.config.train.batch_size
        wanted = experiment.sampler.examples(state, step)
        if wanted is None:
            rows = train.batch(size, experiment.config.seed, step)
            weights = np.ones(size, np.float32)
        else:
            rows, weights = wanted
        x, targets = self._make(step, train, rows)
        weights = weights * experiment.data.example_weights(targets)
        teacher = None if self._teacher is None else self._teacher(x)
        plain = None
        if "scores" in experiment.sampler.needs:
            examples, labels = train.read(rows)
            plain = experiment.data.prepared(examples), experiment.data.outputs.encode(labels)
        return Batch(step, rows, weights, x, targets, teacher, plain)
