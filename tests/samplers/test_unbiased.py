"""Importance weights on a real network: the mean gradient of `unbiased` samplers is that of their enumerated target."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from samplers import ComplexityAwareSampler, PADASampler, Plan, StepFeedback
from search_spaces import build_space
from supernet.engine.supernet import build_supernet
from supernet.training.training import TrainStep

SPACE = build_space(
    "vit",
    "small",
    {"width": [16, 24], "depth": [1, 2], "heads": [1, 2], "mlp_ratio": [0.5, 1.0, 2.0], "head_dim": 8},
)
DIRECTIONS = 12


@pytest.fixture(scope="module")
def gradients():
    """Every network of the space: its share under uniform sampling, its gradient in a few random directions, norms."""
    raw = np.array(list(itertools.product(*(range(n) for n in SPACE.cardinalities))), np.int32)
    genes, counts = np.unique(SPACE.canonical(raw), axis=0, return_counts=True)
    net = build_supernet(SPACE)
    step = TrainStep(net, optax.sgd(1.0), gene_norms=True)
    params = net.init(jax.random.key(0))
    x, targets = jax.random.normal(jax.random.key(1), (4, 8, 8, 1)), jax.nn.one_hot(jnp.arange(4), 10)
    rng = np.random.default_rng(0)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    directions = rng.normal(size=(size, DIRECTIONS)) / np.sqrt(size)
    projected, norms = [], []
    for gradient, result in step.gradients(
        params, genes, ("random",) * len(genes), np.ones(len(genes), np.float32), x, targets
    ):
        projected.append(
            np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(gradient)]) @ directions
        )
        norms.append(np.asarray(result.gene_norms))
    return (
        {tuple(row): i for i, row in enumerate(genes.tolist())},
        counts / counts.sum(),
        np.array(projected),
        np.array(norms),
    )


def mean_gradient(sampler, state, gradients, step):
    """Mean over the paths of one step of weight times gradient, in each direction."""
    index, _, projected, _ = gradients
    paths = sampler.sample(state, step)
    rows = [index[tuple(row)] for row in paths.genes.tolist()]
    return (paths.weights[:, None] * projected[rows]).mean(axis=0)


def agrees(means, target):
    """Whether independent means are those of the target, to 3 standard errors."""
    means = np.array(means)
    errors = (means.mean(axis=0) - target) / (means.std(axis=0, ddof=1) / np.sqrt(len(means)))
    return np.abs(errors).max() < 3


def learned(sampler, gradients, score):
    """The state after a training whose gradients and losses are the network's."""
    index, _, _, norms = gradients
    state = sampler.init()
    for step in range(sampler.planned.steps - 1):
        paths = sampler.sample(state, step, score=score)
        rows = np.arange(step * 8, step * 8 + 8) % 40
        example_norms = 0.1 + np.abs(np.sin(rows + np.zeros((len(paths.genes), 1))))
        of_paths = norms[[index[tuple(row)] for row in paths.genes.tolist()]]
        losses = score(paths.genes)
        state = sampler.update(
            state, StepFeedback(step, paths, losses, of_paths, rows, example_norms, example_norms, None, score)
        )
    return state


@pytest.fixture(scope="module")
def pada(gradients):
    sampler = PADASampler(SPACE, 0, Plan(60, 40, 8), paths=200, unbiased=True, max_tau=0.9)
    state = learned(sampler, gradients, lambda genes: np.ones(len(genes)))
    assert max(abs(p - 1 / len(p)).max() for p in sampler.distributions(state).values()) > 0.05
    return sampler, state


@pytest.mark.parametrize("unbiased", [True, False])
def test_pada_has_the_gradient_of_uniform_sampling_with_the_weights_and_not_without(pada, gradients, unbiased):
    sampler, state = pada
    sampler = dataclasses.replace(sampler, unbiased=unbiased)
    means = [mean_gradient(sampler, state, gradients, step) for step in range(500)]
    assert agrees(means, gradients[1] @ gradients[2]) == unbiased


@pytest.mark.parametrize("unbiased", [True, False])
def test_complexity_aware_has_that_of_uniform_sampling_from_its_levels_with_them_and_not_without(gradients, unbiased):
    # A table is drawn once a seed, so it is over seeds that the expectation is taken. The walk starts anywhere.
    means = []
    for seed in range(200):
        sampler = ComplexityAwareSampler(
            SPACE, seed, levels=("30%", "50%", "75%"), slack=0.19, random_paths=200, smallest=False, tiers=1,
            table_size=500, unbiased=unbiased,
        )  # fmt: skip
        means.append(np.mean([mean_gradient(sampler, {}, gradients, step) for step in range(0, 400, 50)], axis=0))
    assert agrees(means, _in_levels(gradients) @ gradients[2]) == unbiased


def _in_levels(gradients):
    genes, shares = np.array(list(gradients[0]), np.int32), gradients[1]
    relative = SPACE.cost(genes)["macs"] / SPACE.cost(np.array([SPACE.largest.genes]))["macs"]
    inside = np.zeros(len(genes), bool)
    for low in (0.3, 0.5, 0.75):
        inside |= (relative >= low) & (relative <= low + 0.19)
    assert 0.3 < shares[inside].sum() < 1
    return shares * inside / shares[inside].sum()
