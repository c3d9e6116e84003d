"""Gradient matching: partitions are complete, distances are those of the gradients, and the best partition is kept."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from search_spaces import UserError, build_space
from supernet.engine.supernet import build_supernet
from supernet.tasks.classes import CLASSES
from supernet.training.gradient_matching import (
    Draw,
    GradientMatching,
    best_partition,
    cosine_within,
    cut,
    partitions,
    within,
)

SPACE = build_space("nas_bench_201", "small", {"width": 2, "stages": 1, "image_size": 4})
NET = build_supernet(SPACE)


@pytest.mark.parametrize(
    ("values", "groups", "smallest", "count"),
    [(5, 2, 1, 15), (5, 2, 2, 10), (5, 3, 1, 25), (4, 4, 1, 1), (6, 3, 2, 15)],
)
def test_every_partition_is_there_once_disjoint_and_complete(
    values: int, groups: int, smallest: int, count: int
) -> None:
    found = list(partitions(values, groups, smallest))
    assert len(found) == len({frozenset(map(frozenset, one)) for one in found}) == count
    for one in found:
        assert len(one) == groups
        assert sorted(value for group in one for value in group) == list(range(values))
        assert min(map(len, one)) >= smallest


@pytest.mark.parametrize(
    ("values", "groups", "smallest", "expected"),
    [
        (3, 2, 2, "groups: 3 values cannot be 2 groups of 2 or more. Give 2 to 1."),
        (3, 4, 1, "groups: 3 values cannot be 4 groups"),
        (13, 2, 1, "groups: 13 values have too many partitions to look at each; at most 12 are looked at."),
    ],
)
def test_partitions_that_there_are_not_are_refused(values: int, groups: int, smallest: int, expected: str) -> None:
    with pytest.raises(UserError) as error:
        next(partitions(values, groups, smallest))
    assert str(error.value).startswith(expected)


def test_the_partition_that_was_planted_is_found() -> None:
    planted, rng = ((0, 3), (1, 2, 4)), np.random.default_rng(0)
    distances = 1 + rng.uniform(0, 0.1, (5, 5))
    for group in planted:
        distances[np.ix_(group, group)] = 0.2
    distances = (distances + distances.T) / 2
    np.fill_diagonal(distances, 0)
    assert best_partition(distances, 2) == planted
    assert within(distances, planted) == pytest.approx(4 * 0.2)
    assert within(distances, planted) + cut(distances, planted) == pytest.approx(distances.sum() / 2)
    assert cosine_within(distances, planted) == pytest.approx(0.8)
    assert cosine_within(distances, tuple((i,) for i in range(5))) == 1


@cache
def measured() -> tuple[Any, list[Draw], np.ndarray]:
    rng = np.random.default_rng(1)
    params = NET.init(jax.random.key(0))
    draws = [
        Draw(genes, rng.normal(size=(8, 4, 4, 3)).astype(np.float32), rng.integers(0, 10, 8).astype(np.int32))
        for genes in SPACE.sample(rng, 3)
    ]
    return params, draws, GradientMatching(NET, CLASSES).distances(params, SPACE.column("edge_3_0"), draws)


def test_distances_are_those_of_the_gradients_of_shared_weights() -> None:
    params, draws, found = measured()

    def loss(params: Any, genes: Any, x: Any, labels: Any) -> Any:
        logits = jax.nn.log_softmax(NET.apply(params, genes, x, program=())[0])
        return -jnp.mean(logits[jnp.arange(len(x)), labels])

    gradient = jax.jit(jax.grad(loss))
    cosines = []
    for draw in draws:
        rows = []
        for value in range(5):
            genes = draw.genes.copy()
            genes[SPACE.column("edge_3_0")] = value
            tree: Any = traverse_util.flatten_dict(gradient(params, genes, draw.x, draw.targets), sep="/")
            rows.append(np.concatenate([np.ravel(leaf) for path, leaf in tree.items() if "edge_3_0" not in path]))
        rows = np.array([row / (np.linalg.norm(row) + 1e-6) for row in rows], np.float64)
        cosines.append(rows @ rows.T)
    expected = 1 - np.mean(cosines, axis=0)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(np.diagonal(found), 0)
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    assert ((found >= -1e-6) & (found <= 2 + 1e-6)).all()


def test_groups_of_the_best_partition_agree_more_than_random_ones() -> None:
    distances = measured()[2]
    every = [cosine_within(distances, groups) for groups in partitions(5, 2, 2)]
    best = cosine_within(distances, best_partition(distances, 2, 2))
    assert best == pytest.approx(max(every))
    assert best > np.mean(every)
