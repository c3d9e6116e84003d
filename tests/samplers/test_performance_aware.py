"""Performance-aware sampling: schedule, banks, preference and draws are those of the definition."""

import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from samplers import SAMPLERS, Paths, Plan, StepFeedback
from samplers.performance_aware import PerformanceAwareSampler
from search_spaces import UserError, ViTSpace, build_space

PLAN = Plan(steps=600, examples=10**9, batch_size=1)  # one epoch is longer than training: nothing is scored anew
ONE_LEVEL = {"levels": ("20%",), "slack": 0.2, "tiers": 1}


@pytest.fixture(scope="module")
def space():
    return build_space("vit", "small")


@pytest.fixture(scope="module")
def tiny():
    """81 gene vectors."""
    sizes = {"head_dim": 16, "patch_size": 2, "image_size": 8, "channels": 1, "classes": 10, "class_token": False}
    return ViTSpace((16, 32, 64), (1,), (1, 2, 3), (1.0, 2.0, 3.0), **sizes)


def loss_of(genes: np.ndarray) -> np.ndarray:
    """A loss that no two architectures share."""
    return 1 + np.sin(genes @ np.sqrt(np.arange(2.0, genes.shape[1] + 2)))


def feedback(step: int, paths: Paths, score=loss_of) -> StepFeedback:
    return StepFeedback(step, paths, np.zeros(len(paths.genes)), score=score)


def filled_bank(sampler, level: int, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A state whose bank of one level holds architectures of its table, with random scores."""
    state = sampler.init()
    entries = np.unique(sampler.space.canonical(sampler.tables.genes[level]), axis=0)
    rng = np.random.default_rng(seed)
    state["genes"][level, :count] = entries[rng.choice(len(entries), count, replace=False)]
    state["scores"][level, :count] = rng.normal(size=count)
    state["count"][level] = count
    return state


# ---------------------------------------------------------------- schedule


def test_the_chance_to_exploit_grows_by_sixths_of_training(space):
    sampler = PerformanceAwareSampler(space, 0, PLAN)
    for phase, chance in enumerate((0.2, 0.35, 0.5, 0.65, 0.8, 0.95)):
        assert sampler.exploit(100 * phase) == pytest.approx(chance)
        assert sampler.exploit(100 * phase + 99) == pytest.approx(chance)


def test_banks_are_scored_anew_at_quarters_and_all_at_the_start_of_an_epoch(space):
    sampler = PerformanceAwareSampler(space, 0, Plan(steps=40, examples=40, batch_size=4))  # ten steps an epoch
    every = list(range(8))
    for step in range(21):
        expected = {0: [], 3: "one", 5: "one", 8: "one", 10: every, 13: "one", 15: "one", 18: "one", 20: every}
        wanted = expected.get(step, [])
        assert sampler.rescored(step) == ([sampler.walk.level(step)] if wanted == "one" else wanted)

    state = filled_bank(sampler, 2, 9)
    state["genes"][5, :4], state["count"][5] = filled_bank(sampler, 5, 4)["genes"][5, :4], 4
    after = sampler.update(state, feedback(10, sampler.sample(state, 10)))
    for level, count in ((2, 9), (5, 4)):
        np.testing.assert_allclose(after["scores"][level, :count], -loss_of(state["genes"][level, :count]))
    after = sampler.update(state, feedback(11, sampler.sample(state, 11)))
    level = 5 if sampler.walk.level(11) != 5 else 2
    np.testing.assert_array_equal(after["scores"][level], state["scores"][level])


# ---------------------------------------------------------------- banks


def test_a_bank_holds_the_best_that_were_explored(space):
    sampler = PerformanceAwareSampler(space, 3, PLAN, bank=5, levels=("20%", "30%"), tiers=2)
    state, explored = sampler.init(), [{}, {}]
    lowest = [-np.inf, -np.inf]
    for step in range(300):
        level = sampler.walk.level(step)
        paths = sampler.sample(state, step)
        for genes in paths.genes[:-1]:
            explored[level][genes.tobytes()] = -loss_of(genes[None])[0]
        state = sampler.update(state, feedback(step, paths))
        assert (state["count"] <= 5).all()
        if state["count"][level] == 5:
            assert state["scores"][level].min() >= lowest[level]
            lowest[level] = state["scores"][level].min()
    for level in range(2):
        assert len(explored[level]) > 50
        best = sorted(explored[level].values(), reverse=True)[:5]
        np.testing.assert_allclose(sorted(state["scores"][level], reverse=True), best)
        for genes, score in zip(state["genes"][level], state["scores"][level], strict=True):
            assert explored[level][genes.tobytes()] == pytest.approx(score)
    assert state["not_finite"] == 0


def test_neither_the_smallest_subnet_nor_what_is_in_the_bank_is_scored(space):
    sampler = PerformanceAwareSampler(space, 3, PLAN, **ONE_LEVEL)
    state = filled_bank(sampler, 0, 50)
    known, new = state["genes"][0, 7], sampler.space.canonical(sampler.tables.genes[0, :1])[0]
    genes = np.array([known, new, known, space.smallest.genes], np.int32)
    paths = Paths(genes, ("random",) * 3 + ("smallest",), np.ones(4, np.float32))
    asked = []

    def score(genes: np.ndarray) -> np.ndarray:
        asked.append(genes)
        return loss_of(genes)

    sampler.update(state, feedback(1, paths, score))
    np.testing.assert_array_equal(np.concatenate(asked), genes[1:2])


def test_scores_that_are_not_finite_are_counted_and_stay_out(space):
    sampler = PerformanceAwareSampler(space, 3, Plan(600, 40, 4), **ONE_LEVEL)
    paths = sampler.sample(sampler.init(), 1)
    state = sampler.update(sampler.init(), feedback(1, paths, lambda g: np.where(np.arange(len(g)) == 1, np.inf, 2.0)))
    assert state["not_finite"] == 1
    assert state["count"].tolist() == [2]
    np.testing.assert_array_equal(state["genes"][0, :2], paths.genes[[0, 2]])
    # An entry whose new score is not finite keeps its old one.
    no_paths = Paths(paths.genes[:0], (), paths.weights[:0])
    kept = sampler.update(state, feedback(10, no_paths, lambda g: g[:, 0] * np.nan))
    np.testing.assert_array_equal(kept["scores"], state["scores"])
    assert kept["not_finite"] == 3


def test_a_bank_is_no_larger_than_its_level(space):
    sampler = PerformanceAwareSampler(space, 0, PLAN)
    assert sampler.capacities == [min(50, count) for count in sampler.distinct]
    assert sampler.capacities[-1] < 50  # the last level has few architectures
    assert PerformanceAwareSampler(space, 0, PLAN, table_size=100, **ONE_LEVEL).capacities == [25]


def test_distributions_are_the_softmax_of_the_scores(space):
    sampler = PerformanceAwareSampler(space, 0, PLAN)
    assert sampler.distributions(sampler.init()) == {}
    state = filled_bank(sampler, 3, 4)
    found = sampler.distributions(state)
    assert list(found) == ["bank_3"]
    shares = np.exp(state["scores"][3, :4])
    np.testing.assert_allclose(found["bank_3"], shares / shares.sum())


# ---------------------------------------------------------------- preference


def product_cost(genes: np.ndarray) -> dict[str, np.ndarray]:
    """Width times depth of the small ViT space."""
    return {"macs": np.array([32.0, 48, 64])[genes[:, 0]] * np.array([3.0, 4, 5, 6])[genes[:, 1]]}


def test_wider_and_shallower_is_preferred_at_equal_cost(space):
    sampler = PerformanceAwareSampler(space, 0, PLAN, product_cost, levels=(190.0,), slack=0.02, tiers=1)
    genes = np.zeros((3, space.num_genes), np.int32)
    genes[:, :2] = [(2, 0), (1, 1), (0, 3)]  # 64 x 3, 48 x 4, 32 x 6
    assert product_cost(genes)["macs"].tolist() == [192, 192, 192]
    # Against 32 x 3: 32 * depth - width * 3.
    smallest = np.zeros(space.num_genes, np.int32)
    assert sampler.preference(genes, smallest).tolist() == [-96, -16, 96]
    anchor = np.array([1, 2, *[0] * 12], np.int32)  # 48 x 5
    assert sampler.preference(genes, anchor).tolist() == [48 * 3 - 64 * 5, 48 * 4 - 48 * 5, 48 * 6 - 32 * 5]


def test_width_and_depth_are_the_choices_that_settings_name(space):
    by_heads = PerformanceAwareSampler(space, 0, PLAN, width_choices=("heads",), depth_choices=("mlp_ratio",))
    genes = np.full((1, space.num_genes), 2, np.int32)
    anchor = np.zeros(space.num_genes, np.int32)
    narrow, shallow = genes.copy(), genes.copy()
    narrow[:, space.columns["heads"]] = 0
    shallow[:, space.columns["mlp_ratio"]] = 0
    macs = [space.cost(rows)["macs"][0] for rows in (narrow, shallow)]
    assert by_heads.preference(genes, anchor).tolist() == [macs[0] - macs[1]]


def test_the_anchor_is_the_best_of_the_first_bank(space):
    sampler = PerformanceAwareSampler(space, 0, PLAN)
    state = filled_bank(sampler, 0, 10)
    assert tuple(sampler.anchor(sampler.init(), 3)) == space.smallest.genes
    assert tuple(sampler.anchor(state, 0)) == space.smallest.genes
    best = np.argmax(state["scores"][0, :10])
    np.testing.assert_array_equal(sampler.anchor(state, 3), state["genes"][0, best])


# ---------------------------------------------------------------- draws


def drawn(sampler, state, steps: int = 500) -> np.ndarray:
    return np.concatenate([sampler.sample(state, step).genes[:-1] for step in range(steps)])


def counts_among(entries: np.ndarray, genes: np.ndarray) -> np.ndarray:
    numbers = {row.tobytes(): i for i, row in enumerate(entries)}
    return np.bincount([numbers[row.tobytes()] for row in genes], minlength=len(entries))


def test_exploiting_draws_by_the_softmax_of_the_scores(space):
    sampler = PerformanceAwareSampler(
        space, 1, PLAN, exploit_start=1.0, exploit_step=0.0, random_paths=200, bank=10, **ONE_LEVEL
    )
    state = filled_bank(sampler, 0, 6)
    counts = counts_among(state["genes"][0, :6], drawn(sampler, state))
    assert counts.sum() == 100_000
    assert chisquare(counts, sampler.distributions(state)["bank_0"] * counts.sum()).pvalue > 1e-4


@pytest.mark.parametrize(("filled", "candidates"), [(1, 1), (3, 3), (5, 3)])
def test_all_draws_have_the_chances_of_the_definition(tiny, filled, candidates):
    """Below, at and above half of a bank of 6; the best of three by listing all 30 ** 3 triples of the table."""
    settings = {"exploit_start": 0.4, "exploit_step": 0.0, "bank": 6, "candidates": 3, "table_size": 30}
    sampler = PerformanceAwareSampler(tiny, 1, PLAN, random_paths=200, **settings, **ONE_LEVEL)
    state = filled_bank(sampler, 0, filled)
    table = tiny.canonical(sampler.tables.genes[0])
    entries = np.unique(table, axis=0)
    preference = sampler.preference(table, sampler.anchor(state, 0))
    explored = np.zeros(len(entries))
    for rows in itertools.product(range(30), repeat=candidates):
        chosen = rows[int(np.argmin(preference[list(rows)]))]
        explored[np.flatnonzero((entries == table[chosen]).all(axis=1))[0]] += 30.0**-candidates
    chance = 0.4 if filled > 3 else 0
    expected = (1 - chance) * explored
    for genes, share in zip(state["genes"][0, :filled], sampler.distributions(state)["bank_0"], strict=True):
        expected[np.flatnonzero((entries == genes).all(axis=1))[0]] += chance * share
    np.testing.assert_allclose(sampler.chances(state, 0), expected, rtol=1e-9)
    counts = counts_among(entries, drawn(sampler, state))
    likely = expected * counts.sum() > 5  # what chi-square needs; the others are put together
    pooled = np.append(counts[likely], counts[~likely].sum()), np.append(expected[likely], expected[~likely].sum())
    keep = pooled[1] > 0
    assert chisquare(pooled[0][keep], pooled[1][keep] * counts.sum()).pvalue > 1e-4


def test_unbiased_weights_give_the_mean_over_the_table(tiny):
    settings = {"exploit_start": 0.4, "exploit_step": 0.0, "bank": 6, "candidates": 2, "table_size": 30}
    sampler = PerformanceAwareSampler(tiny, 1, PLAN, random_paths=200, unbiased=True, **settings, **ONE_LEVEL)
    state = filled_bank(sampler, 0, 5)
    table = tiny.canonical(sampler.tables.genes[0])
    value = {row.tobytes(): v for row, v in zip(table, np.random.default_rng(1).normal(size=(30, 3)), strict=True)}
    uniform = np.mean([value[row.tobytes()] for row in table], axis=0)
    sums = []
    for step in range(500):
        paths = sampler.sample(state, step)
        assert paths.weights[-1] == 1
        terms = [w * value[row.tobytes()] for w, row in zip(paths.weights[:-1], paths.genes[:-1], strict=True)]
        sums.append(np.mean(terms, axis=0))
    error = np.std(sums, axis=0) / np.sqrt(len(sums))
    assert (np.abs(np.mean(sums, axis=0) - uniform) < 3.5 * error).all()
    assert (error < 0.02).all()
    plain = PerformanceAwareSampler(tiny, 1, PLAN, random_paths=200, **settings, **ONE_LEVEL)
    without = np.mean([value[row.tobytes()] for row in drawn(plain, state, 50)], axis=0)
    assert (np.abs(without - uniform) > 3.5 * error).any()


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"bank": 0}, r"sampler\.bank: 0 is less than 1"),
        ({"bank": 50}, r"sampler\.bank: 50 is more than the 7 different .* of level 7\. Give at most 7, or"),
        ({"candidates": 0}, r"sampler\.candidates: 0 is less than 1"),
        ({"exploit_phases": 601}, r"sampler\.exploit_phases: 601 phases do not fit into 600 .* Give at most 600\."),
        ({"exploit_start": 1.5}, r"sampler\.exploit_start: 1\.5 is not between 0 and 1"),
        ({"exploit_step": 0.2}, r"sampler\.exploit_step: 0\.2 takes .* Give 0 to 0\.16\."),
        ({"exploit_step": -0.1}, r"sampler\.exploit_step: -0\.1 .* Give 0 to 0\.16\."),
        ({"exploit_step": 0.16, "unbiased": True, "tiers": 1}, r"no exploring at all.* Give less than 0\.16"),
        ({"candidates": 30, "unbiased": True, "tiers": 1}, r"sampler\.candidates: 30 make .* Give at most 10\."),
        ({"width_choices": ("head",)}, r"sampler\.width_choices: 'head' is no choice\. Did you mean 'heads'"),
        ({"depth_choices": ("deep",)}, r"sampler\.depth_choices: 'deep' is no choice\. Did you mean 'depth'"),
        ({"rescore_per_epoch": -1}, r"sampler\.rescore_per_epoch: -1 is less than 0"),
    ],
)
def test_settings_that_cannot_work(space, settings, text):
    with pytest.raises(UserError, match=text):
        SAMPLERS["performance_aware"](space, 0, PLAN, **settings)


def test_it_needs_a_plan(space):
    with pytest.raises(UserError, match="Give it a plan"):
        PerformanceAwareSampler(space, 0)
