"""Uniform sampling has the distribution that SPOS defines."""

import numpy as np
import pytest
from scipy.stats import chisquare

from samplers import UniformSampler
from search_spaces import UserError, build_space

DRAWS = 100_000


@pytest.fixture(scope="module")
def space():
    return build_space("vit", "small")


@pytest.fixture(scope="module")
def draws(space) -> np.ndarray:
    """1e5 paths: 1000 steps of 100."""
    sampler = UniformSampler(space, seed=1, paths=100)
    return np.concatenate([sampler.sample({}, step).genes for step in range(DRAWS // 100)])


def test_every_active_gene_is_uniform(space, draws):
    active = space.active(draws)
    # One test a gene at a fixed seed; 1e-4 each keeps the chance of one false alarm over all genes below 1 %.
    for gene, values in enumerate(space.cardinalities):
        counts = np.bincount(draws[active[:, gene], gene], minlength=values)
        assert chisquare(counts).pvalue > 1e-4, (gene, counts)


def test_pairs_of_genes_are_uniform_so_genes_are_independent(space, draws):
    columns = [int(space.columns[name].reshape(-1)[0]) for name in ("width", "depth", "heads", "mlp_ratio")]
    for i, first in enumerate(columns):
        for second in columns[:i]:
            table = np.zeros((space.cardinalities[first], space.cardinalities[second]))
            np.add.at(table, (draws[:, first], draws[:, second]), 1)
            assert chisquare(table.reshape(-1)).pvalue > 1e-4, (first, second)


def test_number_of_paths(space):
    paths = UniformSampler(space, 0, paths=3).sample({}, 0)
    assert paths.roles == ("random",) * 3
    assert paths.weights.tolist() == [1, 1, 1]
    with pytest.raises(UserError, match=r"sampler\.paths: 0 is less than 1"):
        UniformSampler(space, 0, paths=0)
    with pytest.raises(UserError, match=r"sampler\.paths: 1\.5 is not a whole number"):
        UniformSampler(space, 0, paths=1.5)  # type: ignore[arg-type]
