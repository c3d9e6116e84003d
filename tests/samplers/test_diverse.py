"""Diverse paths: the score on cases made by hand, what is drawn, what is learned, and what shrinking keeps."""

import numpy as np
import pytest

from samplers import Paths, Plan, StepFeedback
from samplers.diverse import DiverseSampler
from samplers.diversity import diversity_score, member_genes, value_scores
from search_spaces import SearchSpace, UserError, build_space

PLAN = Plan(100, 64, 8)
HAMMING = np.broadcast_to(~np.eye(3, dtype=bool), (4, 3, 3)).astype(float)


@pytest.fixture(scope="module")
def cells() -> SearchSpace:
    return build_space("nas_bench_201_ensemble", "small", {"members": [2], "private": [1]})


@pytest.fixture(scope="module")
def transformers() -> SearchSpace:
    return build_space("vit_ensemble", "small", {"private": [0, 1]})


def trained(sampler: DiverseSampler, losses, norms=None, steps: int = 100) -> tuple[dict, list[Paths]]:
    """The state after steps whose losses and norms follow from the genes, and what was drawn."""
    state, drawn = sampler.init(), []
    for step in range(steps):
        paths = sampler.sample(state, step)
        found = losses(paths.genes)
        example_norms = np.ones((len(found), 4)) if norms is None else norms(paths.genes)
        feedback = StepFeedback(step, paths, found, None, np.arange(4), example_norms, example_norms)
        state = sampler.update(state, feedback)
        drawn.append(paths)
    return state, drawn


def test_score_is_the_mean_distance_over_genes_and_pairs() -> None:
    same, one, all_different = [[0, 1, 2, 0]] * 2, [[0, 1, 2, 0], [0, 1, 2, 1]], [[0, 1, 2, 0], [1, 2, 0, 2]]
    np.testing.assert_allclose(diversity_score(np.array([same, one, all_different]), HAMMING), [0, 0.25, 1])
    three = np.array([[[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]]])
    np.testing.assert_allclose(diversity_score(three, HAMMING), [(0 + 0.5 + 0.5) / 3])
    weighted = HAMMING.copy()
    weighted[3, 0, 1] = weighted[3, 1, 0] = 4.0
    np.testing.assert_allclose(diversity_score(np.array([one]), weighted), [1.0])


def test_members_that_share_layers_differ_in_their_own_alone(transformers: SearchSpace) -> None:
    described = {"width": 32, "depth": 3, "heads": [2, 3, 4], "mlp_ratio": [1.0] * 3, "members": 2, "private": 1}
    pair = transformers.encode({**described, "heads_2": [3], "mlp_ratio_2": [1.0]})
    members = member_genes(transformers, np.array([pair.genes], np.int32))
    columns = transformers.member_columns[0].tolist()
    different = np.flatnonzero(members[0, 0] != members[0, 1])
    assert different.tolist() == [columns.index(transformers.column("heads", 0, 2))]


def test_scores_of_values_are_potential_plus_diversity() -> None:
    distances = np.array([[0, 1, 2], [1, 0, 1], [2, 1, 0]], float)
    alive = np.ones(3, bool)
    found = value_scores(np.array([0.1, 0.3, 0.2]), distances, alive, 0.5)
    np.testing.assert_allclose(found, [1 + 0.5, 0 + 0.5 * 1 / 1.5, 0.5 + 0.5])
    # Without the last, the two others are as far from each other.
    found = value_scores(np.array([0.1, 0.3, 0.2]), distances, np.array([True, True, False]), 0.5)
    np.testing.assert_allclose(found, [1.5, 0.5, np.inf])
    found = value_scores(np.array([np.nan, 0.3, 0.2]), distances, alive, 0.0)
    np.testing.assert_allclose(found, [1, 0, 1])
    np.testing.assert_allclose(value_scores(np.zeros(3), np.zeros((3, 3)), alive, 1.0), [1, 1, 1])


def test_the_most_diverse_of_the_candidates_is_drawn(cells: SearchSpace) -> None:
    def mean_score(candidates: int) -> float:
        sampler = DiverseSampler(cells, 0, PLAN, candidates=candidates, probe=False)
        genes = np.concatenate([sampler.sample({}, step).genes for step in range(100)])
        return float(diversity_score(member_genes(cells, genes), sampler.distances({})).mean())

    random, diverse = mean_score(1), mean_score(16)
    assert 0.75 < random < 0.85  # of five values, four are others
    assert diverse > 0.95


def test_first_members_are_drawn_uniformly_whatever_the_candidates(cells: SearchSpace) -> None:
    sampler = DiverseSampler(cells, 3, PLAN, candidates=16, probe=False, paths=4)
    genes = np.concatenate([sampler.sample({}, step).genes for step in range(500)])
    for column in cells.member_columns[0]:
        counts = np.bincount(genes[:, column], minlength=5)
        assert abs(counts - 400).max() < 5 * np.sqrt(400 * 0.8)


def test_how_many_members_and_layers_is_drawn_uniformly() -> None:
    space = build_space("vit_ensemble", "small", {"members": [1, 2, 3], "private": [0, 1, 2]})
    sampler = DiverseSampler(space, 1, PLAN, candidates=16, probe=False, paths=4)
    genes = np.concatenate([sampler.sample({}, step).genes for step in range(300)])
    counts = np.bincount(genes[:, space.column("members")], minlength=3)
    assert abs(counts - 400).max() < 5 * np.sqrt(400 * 2 / 3)


def test_paths_of_single_networks_are_diverse() -> None:
    space = build_space("nas_bench_201", "small")
    scores = []
    for candidates in (1, 16):
        sampler = DiverseSampler(space, 0, PLAN, candidates=candidates, probe=False, paths=3)
        sets = np.stack([sampler.sample({}, step).genes for step in range(60)])
        scores.append(diversity_score(sets, sampler.distances({})).mean())
    assert scores[1] > scores[0] + 0.05


def test_a_probe_differs_from_the_first_path_in_one_gene(cells: SearchSpace, transformers: SearchSpace) -> None:
    for space in (cells, transformers):
        sampler = DiverseSampler(space, 0, PLAN, paths=2)
        for step in range(50):
            genes = sampler.sample(sampler.init(), step).genes
            assert len(genes) == sampler.paths_per_step == 3
            (different,) = np.flatnonzero(genes[0] != genes[2])
            assert space.active(genes[:1])[0, different]


def test_distances_are_those_of_predictions(cells: SearchSpace) -> None:
    """Norms are 1, but 2 for networks whose first edge convolves: those values are far from the others."""
    column, convolutions = cells.column("edge_1_0"), [2, 3]

    def norms(genes: np.ndarray) -> np.ndarray:
        return np.repeat(1.0 + np.isin(genes[:, column], convolutions)[:, None], 4, axis=1)

    sampler = DiverseSampler(cells, 0, PLAN)
    state, _ = trained(sampler, lambda genes: np.ones(len(genes)), norms, steps=1500)
    found = sampler.distances(state)[0]
    np.testing.assert_array_equal(np.diag(found), 0)
    np.testing.assert_allclose(found, found.T)
    seen = state["pairs"][0] > 0
    apart = np.isin(np.arange(5), convolutions)[:, None] != np.isin(np.arange(5), convolutions)
    assert seen[apart].any()
    assert seen[~apart & ~np.eye(5, dtype=bool)].any()
    assert (found[seen & apart] > 1).all()
    assert (found[seen & ~apart] < found[seen & apart].min()).all()


def test_examples_that_one_path_has_not_seen_do_not_count(cells: SearchSpace) -> None:
    sampler = DiverseSampler(cells, 0, PLAN)
    paths = sampler.sample(sampler.init(), 0)
    norms = np.array([[1.0, 1.0, 0.0, 0.5], [1, 1, 1, 1], [1.0, 2.0, 5.0, 0.0]])
    feedback = StepFeedback(0, paths, np.ones(3), None, np.arange(4), norms, norms)
    state = sampler.update(sampler.init(), feedback)
    assert state["apart"].max() == pytest.approx(0.5 / 1.25)  # of the first two examples
    assert (state["pairs"] > 0).sum() == 2


def test_shrinking_drops_the_worst_and_keeps_what_it_must(cells: SearchSpace) -> None:
    """Losses grow with the index of an operation, so that later ones are dropped, in the planned stretch."""
    columns = np.concatenate(cells.member_columns)
    sampler = DiverseSampler(cells, 0, PLAN, keep=2, probe=False, diversity_weight=0.0, paths=4, candidates=1)
    state, drawn = trained(sampler, lambda genes: 1.0 + genes[:, columns].sum(axis=1) / 10)
    alive = state["alive"][:6]
    assert (alive.sum(axis=1) == 2).all()
    assert alive[:, 0].mean() > 0.8, "the best value must stay"
    assert not alive[:, 4].any(), "the worst value must go"
    early = np.concatenate([paths.genes for paths in drawn[:25]])
    late = np.concatenate([paths.genes for paths in drawn[76:]])
    assert set(early[:, columns[0]]) == set(range(5))
    for number, column in enumerate(columns):
        assert set(late[:, column]) <= set(np.flatnonzero(alive[number % 6]))
    shares = sampler.distributions(state)
    np.testing.assert_allclose([share.sum() for share in shares.values()], 1)


def test_shrinking_keeps_the_ends_of_an_order_programs_and_depths(transformers: SearchSpace) -> None:
    sampler = DiverseSampler(transformers, 0, PLAN, keep=2, probe=False, diversity_weight=0.0)
    middle = transformers.columns["heads"][0]
    state, _ = trained(sampler, lambda genes: 2.0 - (genes[:, middle] == 1))
    alive, rows = state["alive"], sampler._member_gene
    assert alive[rows[transformers.columns["heads"]]].tolist() == [[True, False, True, False]] * 6
    for name in ("width", "depth", "members", "private"):
        column = rows[transformers.column(name)]
        assert alive[column].sum() == len(getattr(transformers, name))


def test_diversity_weighs_against_potential(cells: SearchSpace) -> None:
    """A value of higher loss stays where it differs from the others, if diversity counts enough."""
    column = cells.column("edge_1_0")
    values = np.array([1.0, 1.0, 1.0, 1.0, 3.0])

    def kept(weight: float) -> bool:
        sampler = DiverseSampler(cells, 0, PLAN, keep=2, diversity_weight=weight, paths=2)
        state, _ = trained(
            sampler,
            lambda genes: 1 + 0.2 * (genes[:, column] == 4),
            lambda genes: np.repeat(values[genes[:, column]][:, None], 4, axis=1) * (1 + 1e-3 * genes[:, -1:]),
        )
        return bool(state["alive"][0, 4])

    assert not kept(0.0)
    assert kept(10.0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"paths": 0}, "sampler.paths: 0 is less than 1"),
        ({"candidates": 0}, "sampler.candidates: 0 is less than 1"),
        ({"keep": 1}, "sampler.keep: 1 is less than 2"),
        ({"shrink_from": 0.8}, r"sampler.shrink_until: 0.75 after 0.8"),
        ({"shrink_until": 1.5}, r"sampler.shrink_until: 1.5 after 0.25"),
        ({"diversity_weight": -1.0}, "sampler.diversity_weight: -1.0 is negative"),
    ],
)
def test_what_is_refused(cells: SearchSpace, settings: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        DiverseSampler(cells, 0, PLAN, **settings)


def test_one_path_of_single_networks_is_refused() -> None:
    with pytest.raises(UserError, match=r"sampler\.paths: 1 is less than 2"):
        DiverseSampler(build_space("nas_bench_201", "small"), 0, PLAN, paths=1)
