"""Complexity-aware sampling: levels, smallest subnets, tables and weights are those of the definition."""

import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from samplers import SAMPLERS
from samplers.complexity_aware import ComplexityAwareSampler
from search_spaces import UserError, ViTSpace, build_space

STEPS = 400


@pytest.fixture(scope="module")
def tiny():
    """81 gene vectors: everything can be enumerated."""
    sizes = {"head_dim": 16, "patch_size": 2, "image_size": 8, "channels": 1, "classes": 10, "class_token": False}
    return ViTSpace((16, 32, 64), (1,), (1, 2, 3), (1.0, 2.0, 3.0), **sizes)


@pytest.fixture(scope="module", params=[("vit", "small"), ("mobilenet", "small")])
def sampler(request):
    return ComplexityAwareSampler(build_space(*request.param), seed=2)


def macs(sampler, genes: np.ndarray) -> np.ndarray:
    return np.asarray(sampler.space.cost(genes)["macs"], np.float64)


def test_every_path_is_inside_the_slack_of_the_steps_level(sampler):
    levels = []
    for step in range(STEPS):
        paths = sampler.sample({}, step)
        assert paths.roles == ("random",) * 3 + ("smallest",)
        level = sampler.walk.level(step)
        costs = macs(sampler, paths.genes)
        assert sampler.windows.inside(level, costs[:3]).all()
        assert np.ptp(costs[:3]) <= 0.02 * macs(sampler, np.array([sampler.space.largest.genes]))[0] * (1 + 1e-9)
        assert (costs[3] <= costs[:3]).all()
        assert paths.weights.tolist() == [1.0] * 4
        levels.append(level)
    assert np.abs(np.diff(levels)).max() == 1
    assert set(levels) == set(range(8))


def test_smallest_subnets_grow_by_tier_and_bound_their_random_paths(sampler):
    space, groups = sampler.space, np.array_split(np.arange(8), 3)
    assert tuple(sampler.smallest_genes[0]) == space.smallest.genes
    costs = macs(sampler, sampler.smallest_genes)
    assert costs[0] <= costs[3] <= costs[6]
    assert costs[0] < costs[6]  # both spaces are wide enough for that
    for number, group in enumerate(groups):
        assert len({sampler.smallest_genes[level].tobytes() for level in group}) == 1
        lowest = sampler.smallest_genes[group[0]]
        if number:
            assert costs[group[0]] <= 0.5 * sampler.windows.lower[group[0]]
        for level in group:
            drawn = sampler.tables.genes[level]
            assert (space.canonical(drawn) >= np.where(space.active(lowest[None]), lowest, 0)).all()


def test_the_smallest_subnet_of_a_tier_is_the_largest_that_its_share_allows(tiny):
    sampler = ComplexityAwareSampler(tiny, 0, levels=("20%", "60%"), slack=0.2, tiers=2, smallest_share=0.5)
    floors = [np.array([2, 0, 2, 2]), np.array([1, 0, 1, 1]), np.array([0, 0, 0, 0])]
    affordable = [floor for floor in floors if macs(sampler, floor[None])[0] <= 0.5 * sampler.windows.lower[1]]
    assert sampler.smallest_genes[1].tolist() == affordable[0].tolist() == [1, 0, 1, 1]


def test_a_tier_whose_floor_leaves_a_level_empty_gets_a_lower_one(tiny):
    """Only a narrow network has this cost, and the floor that the share allows is not narrow."""

    def cost(genes: np.ndarray) -> dict[str, np.ndarray]:
        return {"macs": np.select([genes[:, 0] == 0, genes[:, 0] == 1], [8.0, 4.0], 10.0) + 0.1 * genes[:, 2]}

    sampler = ComplexityAwareSampler(tiny, 0, None, cost, levels=(4.0, 8.0), slack=0.05, tiers=2, smallest_share=0.6)
    assert sampler.smallest_genes[1].tolist() == [0, 0, 0, 0]
    assert (sampler.tables.genes[1][:, 0] == 0).all()


def test_random_paths_are_uniform_over_the_architectures_of_the_level(tiny):
    sampler = ComplexityAwareSampler(tiny, 1, levels=3, slack=0.3, tiers=1, random_paths=50, table_size=1_000_000)
    every = np.array(list(itertools.product(*(range(n) for n in tiny.cardinalities))), np.int32)
    keys = 3 ** np.arange(4)
    drawn: list[list[np.ndarray]] = [[], [], []]
    for step in range(6000):
        drawn[sampler.walk.level(step)].append(sampler.sample({}, step).genes[:-1])
    assert sum(map(len, drawn)) * 50 > 100_000
    for level in range(3):
        inside = every[sampler.windows.inside(level, macs(sampler, every))]
        assert len(inside) > 3
        order = np.sort(inside @ keys)
        found = np.concatenate(drawn[level]) @ keys
        assert np.isin(found, order).all()
        assert chisquare(np.bincount(np.searchsorted(order, found), minlength=len(order))).pvalue > 1e-4


def test_unbiased_weights_give_the_mean_over_all_levels(tiny):
    """The expected weighted sum of any function of the architecture, by enumeration of levels and architectures."""
    sampler = ComplexityAwareSampler(tiny, 1, levels=(40_000.0, "20%", "50%"), slack=0.1, tiers=1, unbiased=True)
    every = np.array(list(itertools.product(*(range(n) for n in tiny.cardinalities))), np.int32)
    costs = macs(sampler, every)
    value = np.random.default_rng(0).normal(size=(len(every), 7))  # stands for a gradient
    inside = np.stack([sampler.windows.inside(level, costs) for level in range(3)])
    uniform = value[inside.any(axis=0)].mean(axis=0)
    levels = np.stack([value[members].mean(axis=0) for members in inside])
    assert len(set(inside.sum(axis=1))) == 3
    np.testing.assert_allclose((sampler.level_weights[:, None] * levels).mean(axis=0), uniform, rtol=1e-5)
    assert sampler.level_weights.mean() == pytest.approx(1)
    assert np.abs(levels.mean(axis=0) - uniform).max() > 0.01  # without the weights the mean is another

    paths = sampler.sample({}, 0)
    weight = sampler.level_weights[sampler.walk.level(0)]
    assert paths.weights.tolist() == [weight] * 3 + [1.0]


def test_without_smallest_subnets(tiny):
    paths = ComplexityAwareSampler(tiny, 0, smallest=False, levels=2, slack=0.3, tiers=1).sample({}, 0)
    assert paths.roles == ("random",) * 3


def test_levels_of_another_metric_and_of_a_given_cost(tiny):
    sampler = ComplexityAwareSampler(tiny, 0, cost_metric="params", levels=("50%",), slack=0.2, tiers=1)
    params = tiny.cost(sampler.tables.genes[0])["params"]
    assert sampler.windows.inside(0, params).all()

    def latency(genes: np.ndarray) -> dict[str, np.ndarray]:
        np.testing.assert_array_equal(genes, tiny.canonical(genes))
        return {"latency_ms": 1 + genes.sum(axis=1) / 7}

    sampler = ComplexityAwareSampler(
        tiny, 0, None, latency, cost_metric="latency_ms", levels=(1.5,), slack=0.2, tiers=1
    )
    assert sampler.windows.inside(0, latency(tiny.canonical(sampler.tables.genes[0]))["latency_ms"]).all()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"cost_metric": "mac"}, r"sampler\.cost_metric: 'mac' is not known\. Did you mean 'macs'"),
        ({"random_paths": 0}, r"sampler\.random_paths: 0 is less than 1"),
        ({"table_size": 0}, r"sampler\.table_size: 0 is less than 1"),
        ({"tiers": 9}, r"sampler\.tiers: 9 is more than the 8 levels\. Give at most 8\."),
        ({"smallest_share": 0.0}, r"sampler\.smallest_share: 0\.0 is not between 0 and 1"),
        ({"unbiased": True}, r"sampler\.unbiased: with 3 tiers .* Set sampler\.tiers to 1\."),
        ({"unbiased": True, "tiers": 1, "slack": 0.2}, r"sampler\.slack: 0\.2 makes levels overlap.* less than 0\.1"),
        ({"levels": ("50%", "150%"), "tiers": 1}, r"sampler\.levels: level 1, from .* holds no architecture\. Give it"),
        ({"levels": ("50%", "30%")}, r"does not ascend\. Give \['30%', '50%'\]"),
    ],
)
def test_settings_that_cannot_work(settings, text):
    with pytest.raises(UserError, match=text):
        SAMPLERS["complexity_aware"](build_space("vit", "small"), 0, **settings)
