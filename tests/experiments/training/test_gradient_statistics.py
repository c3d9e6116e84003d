"""Gradient statistics against gradients at hand, on a network whose steps are taken apart by JAX itself."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.training.batches import BatchMaker
from experiments.training.gradient_statistics import gradient_statistics
from samplers import Plan, UniformSampler
from supernet.training.training import TrainStep


def cosines(vectors):
    return np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.pairwise(vectors)])


@pytest.mark.parametrize("paths", [1, 2])
def test_they_are_those_of_the_vectors(tmp_path, paths):
    file = tmp_path / "e.yaml"
    file.write_text(
        "data: {train_limit: 60}\n"
        "space: {family: vit, preset: small, width: [16], depth: [1, 2], heads: [1, 2], mlp_ratio: [1.0]}\n"
        "train: {steps: 8, batch_size: 8}\n"
    )
    experiment = build_experiment(load_config(file))
    experiment = dataclasses.replace(
        experiment, sampler=UniformSampler(experiment.space, 3, Plan(8, 60, 8), paths=paths)
    )
    net = experiment.net
    params = net.init(jax.random.key(0))
    found = gradient_statistics(experiment, TrainStep(net, optax.sgd(1.0)), params, {}, range(2, 7))

    maker, singles, steps = BatchMaker(experiment), [], []
    for number in range(2, 7):
        batch = maker({}, number)
        of_step = []
        for row in experiment.sampler.sample({}, number).genes:

            def loss(params, row=row, batch=batch):
                logits = net.apply_masked(params, jnp.asarray(row), batch.x, program=net.space.program(row))
                return -jnp.mean(jnp.sum(batch.targets * jax.nn.log_softmax(logits), -1))

            of_step.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.grad(loss)(params))]))
        singles += of_step
        steps.append(np.mean(of_step, axis=0))
    steps, singles = np.array(steps, np.float64), np.array(singles, np.float64)
    variance = steps.var(axis=0, ddof=1).sum()
    norms = np.linalg.norm(singles, axis=1)
    np.testing.assert_allclose(found["gradient_variance"], variance, rtol=1e-3)
    np.testing.assert_allclose(found["gradient_variance_per_pass"], variance * paths, rtol=1e-3)
    np.testing.assert_allclose(found["step_cosine"], cosines(steps), atol=1e-4)
    np.testing.assert_allclose(found["path_cosine"], cosines(singles), atol=1e-4)
    np.testing.assert_allclose(found["path_bound"], norms.mean() ** 2 / np.square(norms).mean(), rtol=1e-4)
