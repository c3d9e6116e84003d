"""The sandwich rule: both ends at every step, the largest first, random paths as uniform draws them."""

import numpy as np
import pytest

from samplers import SandwichSampler, UniformSampler
from search_spaces import UserError, build_space


@pytest.fixture(scope="module")
def space():
    return build_space("vit", "small")


@pytest.mark.parametrize("random_paths", [0, 1, 2, 5])
def test_order_and_ends(space, random_paths):
    sampler = SandwichSampler(space, seed=0, random_paths=random_paths)
    assert sampler.paths_per_step == random_paths + 2
    for step in range(20):
        paths = sampler.sample({}, step)
        assert paths.roles == ("largest", *["random"] * random_paths, "smallest")
        assert tuple(paths.genes[0]) == space.largest.genes
        assert tuple(paths.genes[-1]) == space.smallest.genes
        # Gradients are summed over paths.
        assert paths.weights.tolist() == [1.0] * (random_paths + 2)


def test_random_paths_are_those_of_uniform(space):
    """The same seed gives both samplers the same random paths, so comparisons are paired."""
    sandwich, uniform = SandwichSampler(space, seed=4), UniformSampler(space, seed=4, paths=2)
    for step in range(5):
        np.testing.assert_array_equal(sandwich.sample({}, step).genes[1:-1], uniform.sample({}, step).genes)


def test_negative_number_of_random_paths(space):
    with pytest.raises(UserError, match=r"sampler\.random_paths: -1 is less than 0"):
        SandwichSampler(space, 0, random_paths=-1)
