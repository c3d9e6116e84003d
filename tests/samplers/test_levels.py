"""Cost levels: what settings stand for, what tables hold, and how the walk moves."""

import time

import numpy as np
import pytest
from scipy.stats import chisquare

from samplers.levels import EmptyLevel, Levels, LevelWalk, build_tables
from samplers.windows import Box, EmptyWindow, draw
from search_spaces import UserError, ViTSpace, build_space

DRAWS = 100_000


@pytest.fixture(scope="module")
def space():
    """6,561 gene vectors, so that windows can be enumerated."""
    sizes = {"head_dim": 16, "patch_size": 2, "image_size": 8, "channels": 1, "classes": 10, "class_token": False}
    return ViTSpace((32, 48, 64), (1, 2, 3), (2, 3, 4), (1.0, 2.0, 3.0), **sizes)


def macs_of(space):
    return lambda genes: np.asarray(space.cost(genes)["macs"], np.float64)


def ends_of(space) -> tuple[float, float]:
    smallest, largest = macs_of(space)(space.extremes)
    return float(smallest), float(largest)


def box_of(space, low: int = 0) -> Box:
    return Box(np.full(space.num_genes, low, np.int32), space.cardinalities)


WAYS = {
    "enumeration": {},
    "rejection": {"enumerate_up_to": 0, "pool": 30 * DRAWS},
    "splitting": {"enumerate_up_to": 0, "pool": DRAWS},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_window_is_drawn_uniformly(space, way):
    """Against all gene vectors of the space; genes that mean nothing included."""
    cost, box = macs_of(space), box_of(space)
    every = box.all()
    assert len(np.unique(every, axis=0)) == len(every) == 6561
    smallest, largest = ends_of(space)
    window = (smallest + 0.1 * (largest - smallest), smallest + 0.1 * (largest - smallest) + 0.02 * largest)
    costs = cost(every)
    inside = every[(costs >= window[0]) & (costs <= window[1])]
    assert len(inside) > 300
    assert len(np.unique(inside[:, 0])) > 1  # several widths at one cost: parts that single moves do not connect
    assert len(np.unique(inside[:, 1])) > 1

    drawn = draw(box, cost, [window], DRAWS, np.random.default_rng(1), **WAYS[way])[0]
    weights = 3 ** np.arange(space.num_genes)
    keys = np.sort(inside @ weights)
    found = drawn.genes @ weights
    assert np.isin(found, keys).all()
    assert chisquare(np.bincount(np.searchsorted(keys, found), minlength=len(keys))).pvalue > 1e-4
    # 1e5 draws, of which 4.8 % fall inside: a standard error of 1.4 %; enumeration is exact.
    error = abs(drawn.probability / (len(inside) / len(every)) - 1)
    assert error == 0 if way == "enumeration" else error < 0.05


def test_the_chance_of_a_rare_window_is_estimated(space):
    """One gene vector of 6,561: rejection with 2,000 draws does not see it."""
    _, largest = ends_of(space)
    cost, box = macs_of(space), box_of(space)
    estimates = [
        draw(box, cost, [(largest, largest)], 1000, np.random.default_rng(s), 0, 2000)[0].probability * 6561
        for s in range(20)
    ]
    assert np.mean(estimates) == pytest.approx(1, abs=4 * np.std(estimates) / np.sqrt(20))
    assert np.std(estimates) < 0.5


def test_floors_hold_and_the_rest_is_uniform_above_them(space):
    levels = Levels((0.5 * ends_of(space)[1],), 0.02 * ends_of(space)[1])
    floor = np.ones(space.num_genes, np.int32)
    table = build_tables(space, macs_of(space), levels, DRAWS, 0, floor).genes[0]
    assert (table >= 1).all()
    every = box_of(space, 1).all()
    inside = every[levels.inside(0, macs_of(space)(every))]
    assert len(inside) > 5
    weights = 3 ** np.arange(space.num_genes)
    keys = np.sort(inside @ weights)
    counts = np.bincount(np.searchsorted(keys, table @ weights), minlength=len(keys))
    assert chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(
    ("family", "preset", "size"), [("vit", "autoformer_base", 1e13), ("mobilenet", "ofa_mbv3", 1e15)]
)
def test_large_spaces_are_covered_in_seconds(family, preset, size):
    space = build_space(family, preset)
    assert space.size > size
    levels = Levels.of(8, 0.02, *ends_of(space))
    start = time.process_time()
    tables = build_tables(space, macs_of(space), levels, 1000, 0)
    assert time.process_time() - start < 20  # 1 to 3 s on an idle core
    assert tables.genes.shape == (8, 1000, space.num_genes)
    assert tables.genes.dtype == np.int32
    for level, genes in enumerate(tables.genes):
        assert space.contains(genes).all()
        assert levels.inside(level, macs_of(space)(genes)).all()
        assert len(np.unique(space.canonical(genes), axis=0)) > 900
    assert tables.probabilities.min() < 1e-6
    assert 0 < tables.probabilities.sum() < 1
    same = build_tables(space, macs_of(space), levels, 1000, 0)
    np.testing.assert_array_equal(tables.genes, same.genes)


def test_the_walk_finds_what_rejection_finds(space):
    """Splitting against plain rejection with 100 times the draws, on a window that one draw in 2,600 hits."""
    large = build_space("mobilenet", "small")
    _, largest = ends_of(large)
    window = (0.6 * largest, 0.62 * largest)
    cost, box = macs_of(large), box_of(large)
    walked = draw(box, cost, [window], 2000, np.random.default_rng(0), 0, 1 << 14)[0]
    rejected = draw(box, cost, [window], 2000, np.random.default_rng(1), 0, 1 << 20)[0]
    assert walked.probability == pytest.approx(rejected.probability, rel=0.3)
    error = np.sqrt(walked.genes.var(axis=0) / 2000 + rejected.genes.var(axis=0) / 2000)
    gap = np.abs(walked.genes.mean(axis=0) - rejected.genes.mean(axis=0))
    # The walked rows share ancestors, so they are worth about a third of independent ones.
    assert (gap <= 4 * np.sqrt(2) * error + 1e-12).all()


def test_any_cost_will_do(space):
    """One that is no table look-up, is not monotone, and has fractions."""

    def cost(genes: np.ndarray) -> np.ndarray:
        return np.abs(np.sin(genes @ np.sqrt(np.arange(2.0, space.num_genes + 2))))

    levels = Levels.of((0.1, "50%"), 0.05, 0.0, 1.0)
    tables = build_tables(space, cost, levels, 500, 0)
    for level in range(2):
        assert levels.inside(level, cost(tables.genes[level])).all()


@pytest.mark.parametrize("family", ["vit", "mobilenet"])
def test_a_level_out_of_reach_names_the_nearest_cost(space, family):
    space = space if family == "vit" else build_space(family, "small")  # one is enumerated, the other searched
    _, largest = ends_of(space)
    levels = Levels((0.5 * largest, 1.5 * largest), 0.02 * largest)
    with pytest.raises(
        EmptyLevel, match=rf"sampler\.levels: level 1, from .* Give it the nearest .* {largest:.0f}, or"
    ):
        build_tables(space, macs_of(space), levels, 200, 0)


def test_a_gap_between_costs_is_found(space):
    def cost(genes: np.ndarray) -> np.ndarray:
        return np.where(genes[:, 0] == 2, 10.0, 1.0)

    with pytest.raises(EmptyWindow) as empty:
        draw(box_of(space), cost, [(4, 5)], 100, np.random.default_rng(0), 0, 1000)
    assert empty.value.nearest == 1


def test_levels_from_settings():
    levels = Levels.of(5, 0.1, 20, 100)
    assert levels.lower == (20, 37.5, 55, 72.5, 90)
    assert levels.width == 10
    assert levels.disjoint
    assert levels.inside(4, np.array([89.0, 90, 100, 101])).tolist() == [False, True, True, False]
    assert Levels.of((30, "50%", 70.5), 0.3, 20, 100).lower == (30, 50, 70.5)
    assert not Levels.of((30, "50%", 70.5), 0.3, 20, 100).disjoint


@pytest.mark.parametrize(
    ("setting", "slack", "text"),
    [
        (1, 0.1, r"sampler\.levels: 1 is less than 2"),
        ((), 0.1, r"sampler\.levels: no levels"),
        ((30, 20), 0.1, r"sampler\.levels: \[30, 20\] does not ascend\. Give \[20, 30\]\."),
        ((30, 30), 0.1, r"does not ascend\. Give \[30\]\."),
        (("half",), 0.1, r"sampler\.levels: 'half' is no cost.*'25%'"),
        (("x%",), 0.1, r"sampler\.levels: 'x%' is no cost"),
        ((-1.0,), 0.1, r"sampler\.levels: -1\.0 is no cost"),
        (4, 0.0, r"sampler\.slack: 0\.0 is not between 0 and 1\. Give 0\.02"),
        (4, 0.9, r"sampler\.slack: 0\.9 is wider than all costs of the space\. Give at most 0\.8\."),
    ],
)
def test_settings_that_cannot_work(setting, slack, text):
    with pytest.raises(UserError, match=text):
        Levels.of(setting, slack, 20, 100)


@pytest.mark.parametrize("levels", [1, 2, 3, 8])
def test_the_walk_has_its_transition_probabilities(levels):
    walk = LevelWalk(levels, seed=3)
    visited = np.array([walk.level(step) for step in range(DRAWS + 1)])
    assert visited.min() == 0
    assert visited.max() == levels - 1
    moves = np.diff(visited)
    assert np.abs(moves).max(initial=0) <= 1
    for level in range(levels):
        expected = dict.fromkeys((-1, 0, 1), 1 / 3)
        if level == 0:
            expected[0] += expected.pop(-1)
        if level == levels - 1:
            expected[0] += expected.pop(1)
        taken = moves[visited[:-1] == level]
        counts = [int((taken == move).sum()) for move in expected]
        assert sum(counts) == len(taken)
        if len(counts) > 1:
            shares = np.array(list(expected.values()))
            assert chisquare(counts, shares * len(taken)).pvalue > 1e-4


def test_every_level_is_equally_likely_at_every_step():
    for step in (0, 1, 5000):
        counts = np.bincount([LevelWalk(5, seed).level(step) for seed in range(3000)], minlength=5)
        assert chisquare(counts).pvalue > 1e-4


def test_any_step_of_the_walk_can_be_asked_for_first():
    forward = [LevelWalk(6, 11).level(step) for step in range(4090, 8200)]
    assert [LevelWalk(6, 11).level(step) for step in range(8199, 4089, -1)] == forward[::-1]
    start = time.process_time()
    LevelWalk(6, 12).level(10**6)
    assert time.process_time() - start < 1
