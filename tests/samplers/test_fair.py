"""Strict fairness: counts are as equal as they can be at every moment, and each path alone is uniform."""

import time

import numpy as np
import pytest
from scipy.stats import chisquare

from samplers.fair import FairSampler
from search_spaces import UserError, ViTSpace, build_space


@pytest.fixture(scope="module")
def space():
    return build_space("vit", "small")  # genes of 3 values, one of 4


def counts_of(space, genes: np.ndarray) -> list[np.ndarray]:
    return [np.bincount(genes[:, g], minlength=n) for g, n in enumerate(space.cardinalities)]


@pytest.mark.parametrize("paths", [1, 2, 3, 5, 7, 12])
def test_counts_never_differ_by_more_than_one(space, paths):
    sampler = FairSampler(space, 3, paths=paths)
    drawn = np.zeros((0, space.num_genes), np.int32)
    for step in range(30):
        drawn = np.concatenate([drawn, sampler.draw(step)])
        for counts, values in zip(counts_of(space, drawn), space.cardinalities, strict=True):
            assert counts.max() - counts.min() <= (0 if len(drawn) % values == 0 else 1)


def test_the_default_number_of_paths_makes_every_step_fair(space):
    sampler = FairSampler(space, 0)
    assert sampler.paths_per_step == 12
    for step in range(50):
        for counts in counts_of(space, sampler.draw(step)):
            assert counts.min() == counts.max()


def test_the_default_is_the_largest_cardinality_where_the_multiple_is_too_large():
    space = ViTSpace((32, 48), (2,), (1, 2, 3), (1.0, 2.0, 3.0, 4.0, 5.0))  # least common multiple 30
    assert FairSampler(space, 0).paths_per_step == 5
    assert FairSampler(build_space("mobilenet", "small"), 0).paths_per_step == 6


@pytest.fixture(scope="module")
def draws(space) -> np.ndarray:
    """int32[steps, paths, genes], 1.2e5 paths."""
    sampler = FairSampler(space, 5)
    return np.stack([sampler.draw(step) for step in range(10_000)])


def test_each_path_of_a_step_is_uniform(space, draws):
    # All paths together are exactly uniform, so one path position at a time. 14 genes at 12 positions: the false-alarm
    # rate of 1e-5 each keeps their sum below 1 %.
    for gene, values in enumerate(space.cardinalities):
        for path in range(draws.shape[1]):
            assert chisquare(np.bincount(draws[:, path, gene], minlength=values)).pvalue > 1e-5, (gene, path)


def test_genes_and_blocks_are_independent(space, draws):
    first, second = 2, 3
    paths = draws[:, 0]
    table = np.zeros((3, 3))
    np.add.at(table, (paths[:, first], paths[:, second]), 1)
    assert chisquare(table.reshape(-1)).pvalue > 1e-5
    # Entries 2 and 3 of a gene of three values belong to different permutations.
    table = np.zeros((3, 3))
    np.add.at(table, (draws[:, 2, first], draws[:, 3, first]), 1)
    assert chisquare(table.reshape(-1)).pvalue > 1e-5


def test_permutations_are_uniform_over_all_orders(space, draws):
    orders = draws[:, :3, 5].reshape(-1, 3) @ [9, 3, 1]
    values, counts = np.unique(orders, return_counts=True)
    assert len(values) == 6
    assert chisquare(counts).pvalue > 1e-5


def test_draws_do_not_depend_on_how_the_paths_are_cut_into_steps(space):
    whole = FairSampler(space, 1, paths=12)
    parts = FairSampler(space, 1, paths=4)
    cut = np.concatenate([parts.draw(step) for step in (3, 4, 5)])
    np.testing.assert_array_equal(whole.draw(1), cut)


def test_paths_are_canonical_and_of_weight_one(space):
    sampler = FairSampler(space, 0)
    paths = sampler.sample({}, 4)
    np.testing.assert_array_equal(paths.genes, space.canonical(sampler.draw(4)))
    assert paths.roles == ("random",) * 12
    assert paths.weights.tolist() == [1.0] * 12


def test_a_step_takes_well_under_a_millisecond():
    sampler = FairSampler(build_space("mobilenet", "ofa_mbv3"), 0)

    def fastest() -> float:
        times = []
        for step in range(50):
            start = time.perf_counter()
            sampler.draw(step)
            times.append(time.perf_counter() - start)
        return min(times)

    assert fastest() < 1e-3


def test_wrong_number_of_paths(space):
    with pytest.raises(UserError, match=r"sampler\.paths: 0 is less than 1\. Give 1 or more\."):
        FairSampler(space, 0, paths=0)
