"""Gradient statistics of a sampler at fixed weights: how far its gradients scatter, and how far they agree."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.experiment import Experiment
from experiments.training.batches import BatchMaker
from samplers import SamplerState
from supernet.engine.supernet import Params
from supernet.training.training import TrainStep


def gradient_statistics(
    experiment: Experiment, step: TrainStep, params: Params, state: SamplerState, steps: range
) -> dict[str, float]:
    """Estimates the gradients of so many steps of a sampler, all at the same weights.

    A step's gradient is the mean over its paths of weight times gradient. Drawing and batches are those of training;
    the weights are not updated and the sampler learns nothing.

    Args:
        experiment: Sampler, data and space.
        step: Its compiled training step.
        params: The weights; kept.
        state: State of the sampler.
        steps: Steps to draw, in order; at least 2.

    Returns:
        `gradient_variance`: trace of the covariance of a step's gradient; `gradient_variance_per_pass`: that times
        the number of paths of a step; `relative_variance`: the variance over the squared length of the mean, NaN
        where so few steps cannot tell that from 0;
        `step_cosine`: mean cosine between the gradients of neighbouring steps; `path_cosine`: between consecutive
        paths, in a step and across steps; `mean_norm`: length of the mean gradient; `path_bound`: (E|g|)^2 / E|g|^2
        over single paths, which bounds from below what importance sampling of paths could make of their mean square.
    """
    maker = BatchMaker(experiment)
    nothing = jax.tree.map(jnp.zeros_like, params)
    total = nothing
    squares, step_cosines, path_cosines, counts = [], [], [], []
    lengths: list[float] = []
    last_step: Params | None = None
    last_path: Params | None = None
    for number in steps:
        mean = nothing
        paths = 0
        for gradient, weight in _passes(experiment, step, params, state, maker, number):
            if last_path is not None:
                path_cosines.append(float(_cosine(last_path, gradient)))
            last_path = gradient
            lengths.append(float(weight) * float(_dot(gradient, gradient)) ** 0.5)
            mean = _plus(mean, weight, gradient)
            paths += 1
        mean = _plus(nothing, np.float32(1 / paths), mean)
        total = _plus(total, np.float32(1), mean)
        squares.append(float(_dot(mean, mean)))
        counts.append(paths)
        if last_step is not None:
            step_cosines.append(float(_cosine(last_step, mean)))
        last_step = mean
    n = len(squares)
    square_of_mean = float(_dot(total, total)) / n**2
    variance = (np.mean(squares) - square_of_mean) * n / (n - 1)
    true_square = square_of_mean - variance / n  # of the mean of all steps, not only of these
    if true_square <= 0:
        true_square = np.nan
    found = {
        "gradient_variance": variance,
        "gradient_variance_per_pass": variance * np.mean(counts),
        "relative_variance": variance / true_square,
        "mean_norm": np.sqrt(true_square),
        "step_cosine": np.mean(step_cosines),
        "path_cosine": np.mean(path_cosines),
        "path_bound": np.mean(lengths) ** 2 / np.mean(np.square(lengths)),
    }
    return {name: float(value) for name, value in found.items()}


def _passes(
    experiment: Experiment, step: TrainStep, params: Params, state: SamplerState, maker: BatchMaker, number: int
) -> Iterator[tuple[Params, np.float32]]:
    batch = maker(state, number)
    score = None
    if batch.plain is not None:
        images, labels = batch.plain
        score = lambda genes: step.score(params, genes, images, labels)  # noqa: E731
    paths = experiment.sampler.sample(state, number, score=score)
    found = step.gradients(
        params, paths.genes, paths.roles, np.ones_like(paths.weights), batch.x, batch.targets, batch.example_weights,
        batch.teacher,
    )  # fmt: skip
    for (gradient, _), weight in zip(found, paths.weights, strict=True):
        yield gradient, weight


@jax.jit
def _plus(a: Params, weight: jax.Array, b: Params) -> Params:
    return jax.tree.map(lambda x, y: x + weight * y, a, b)


@jax.jit
def _dot(a: Params, b: Params) -> jax.Array:
    return jnp.sum(jnp.stack(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b))))


@jax.jit
def _cosine(a: Params, b: Params) -> jax.Array:
    return _dot(a, b) / jnp.sqrt(_dot(a, a) * _dot(b, b))
