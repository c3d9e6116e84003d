"""A step that is divided into shares is the same step: gradients, figures, teachers, norms. Workers are threads."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.training.schedule import Parallel, PathBatch, Schedule
from search_spaces import build_space
from supernet.engine.supernet import build_supernet
from supernet.tasks.distillation import Distillation
from supernet.training.training import TrainStep
from supernet.training.work import Work

SPACE = build_space("vit", "small", {"width": [16], "depth": [1, 2], "head_dim": 8})
NET = build_supernet(SPACE)
B = 12
X = jax.random.normal(jax.random.key(1), (B, 8, 8, 1))
TARGETS = jax.nn.one_hot(jnp.arange(B) % 10, 10)
GENES = np.stack([SPACE.largest.genes, *SPACE.sample(np.random.default_rng(0), 2), SPACE.smallest.genes]).astype(
    np.int32
)
SANDWICH = ("largest", "random", "random", "smallest")
RANDOM = ("random", "random", "random", "smallest")
WEIGHTS = np.array([1, 0.5, 2, 1], np.float32)
EXAMPLE_WEIGHTS = np.linspace(0.5, 2, B, dtype=np.float32)
COSTS = SPACE.cost(GENES)["macs"]


class Sums:
    """What `Workers.sum` is, for workers that are threads."""

    def __init__(self, workers: int) -> None:
        self._barrier = threading.Barrier(workers, timeout=60)
        self._given: list = [None] * workers

    def of(self, rank):
        """The sum that one of them calls."""

        def add(tree):
            self._given[rank] = tree
            self._barrier.wait()
            total = jax.tree.map(lambda *leaves: np.sum(jax.device_get(leaves), axis=0), *self._given)
            self._barrier.wait()
            return total

        return add


def divided(workers, roles, measure=False, parallel: Parallel = "paths", path_batch: PathBatch = "whole", **settings):
    """What the workers get of a step, and what one process gets that does all of it."""

    programs = TrainStep(NET, optax.sgd(1.0), **settings)

    def one(work):
        step = copy.copy(programs)
        state = step.init(NET.init(jax.random.key(0)))
        return step(state, GENES, roles, WEIGHTS, X, TARGETS, EXAMPLE_WEIGHTS, measure=measure, work=work)

    schedule, sums = Schedule(workers, B, parallel, path_batch), Sums(workers)
    dealt, cut = schedule.dealt(COSTS), schedule.cuts(len(COSTS)) > 1
    works = [Work(tuple(shares), cut, sums.of(rank)) for rank, shares in enumerate(dealt)]
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(one, works))
    return found, one(Work(tuple(Schedule(1, B, path_batch=path_batch).dealt(COSTS)[0])))


def close(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


@pytest.mark.parametrize(
    ("workers", "parallel", "path_batch", "roles", "measure", "settings"),
    [
        (2, "paths", "whole", SANDWICH, True, {"distillation": Distillation("largest", 0.5)}),
        (3, "paths", "whole", SANDWICH, False, {"distillation": Distillation("largest", 1.0)}),
        (3, "data", "whole", RANDOM, False, {"distillation": Distillation("ensemble", 0.5)}),
        (2, "paths", "whole", RANDOM, True, {"distillation": Distillation("ensemble", 0.5), "gene_norms": True}),
        (3, "paths", "share", RANDOM, False, {"distillation": Distillation("largest", 0.5), "gene_norms": True}),
    ],
)
def test_workers_do_together_what_one_process_does(workers, parallel, path_batch, roles, measure, settings):
    found, (state, result) = divided(workers, roles, measure, parallel, path_batch, **settings)
    assert len(found) == workers
    for other, its_result in found:
        close(other.params, state.params)
        close(its_result.paths, result.paths)
        close(its_result.gradient_norm, result.gradient_norm)
        if measure:
            close(its_result.products, result.products, 1e-4)
    jax.tree.map(np.testing.assert_array_equal, found[0][0], found[-1][0])


def test_one_process_in_shares_is_the_plain_step():
    step = TrainStep(NET, optax.sgd(1.0))
    params = NET.init(jax.random.key(0))
    state = step.init(jax.tree.map(jnp.copy, params))
    plain, expected = step(state, GENES, SANDWICH, WEIGHTS, X, TARGETS)
    work = Work(tuple(Schedule(1, B).dealt(COSTS)[0]))
    other, found = step(step.init(params), GENES, SANDWICH, WEIGHTS, X, TARGETS, work=work)
    jax.tree.map(np.testing.assert_array_equal, plain, other)
    for a, b in zip(found.paths, expected.paths, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b._replace(logits=None))


def test_a_path_on_its_share_of_the_batch_has_the_gradient_of_those_rows():
    _, (state, result) = divided(1, SANDWICH, path_batch="share")
    params = NET.init(jax.random.key(0))

    def total(params):
        losses = []
        for i, genes in enumerate(GENES):
            rows = slice(3 * i, 3 * i + 3)
            logits = NET.apply_masked(params, jnp.asarray(genes), X[rows], program=SPACE.program(genes.tolist()))
            each = -jnp.sum(TARGETS[rows] * jax.nn.log_softmax(logits), -1)
            losses.append(WEIGHTS[i] * jnp.mean(EXAMPLE_WEIGHTS[rows] * each))
        return sum(losses)

    close(state.params, jax.tree.map(jnp.subtract, params, jax.jit(jax.grad(total))(params)))
    assert (np.array([np.count_nonzero(path.example_losses) for path in result.paths]) == 3).all()
