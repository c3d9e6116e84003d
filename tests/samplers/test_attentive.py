"""AttentiveNAS: bins and genes as estimated, and of the candidates exactly the one that the score says."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from samplers import AttentiveSampler, Plan, StepFeedback
from samplers.cost_bins import CostBins
from search_spaces import PREDICTORS, UserError, build_space
from search_spaces.predictor import one_hot

PLAN = Plan(steps=1000, examples=50, batch_size=8)


@pytest.fixture(scope="module")
def space():
    return build_space("vit", "small")


@pytest.fixture(scope="module")
def tiny(space):
    """Few enough architectures to know every probability."""
    return dataclasses.replace(space, width=(32, 48), depth=(1, 2), heads=(2, 3), mlp_ratio=(1.0, 2.0))


def macs_of(space):
    return lambda genes: space.cost(genes)["macs"].astype(np.float64)


def true_loss(space, genes: np.ndarray) -> np.ndarray:
    """Additive in the values of the active genes."""
    terms = np.random.default_rng(1).normal(size=int(space.cardinalities.sum()))
    return 2 + 0.1 * one_hot(space, genes) @ terms


def train(sampler: AttentiveSampler, steps: int, state: dict | None = None, first: int = 0) -> tuple[dict, list]:
    """Steps whose losses fall over time, jump from batch to batch, and depend on the genes."""
    state, drawn = sampler.init() if state is None else state, []
    for step in range(first, first + steps):
        paths = sampler.sample(state, step)
        batch = 50 / (step + 5) + np.sin(step)
        state = sampler.update(state, StepFeedback(step, paths, true_loss(sampler.space, paths.genes) + batch))
        drawn.append(paths)
    return state, drawn


def distinct(space) -> np.ndarray:
    every = np.array(list(itertools.product(*(range(n) for n in space.cardinalities))), np.int32)
    return np.unique(space.canonical(every), axis=0)


# ---------------------------------------------------------------- cost bins


def test_bins_have_equal_width_and_hold_both_ends(tiny):
    bins = CostBins.estimate(tiny, macs_of(tiny), 5, np.random.default_rng(0), 1000)
    genes = distinct(tiny)
    edges = np.linspace(bins.low, bins.high, 6)
    np.testing.assert_array_equal(bins.of(genes), np.searchsorted(edges[1:-1], macs_of(tiny)(genes), side="right"))
    np.testing.assert_array_equal(bins.of(tiny.extremes), [0, 4])


def test_shares_and_genes_are_those_of_uniform_draws(tiny):
    """Against the exact shares: canonical architectures weighted by how many gene vectors stand for each."""
    draws = 100_000
    bins = CostBins.estimate(tiny, macs_of(tiny), 5, np.random.default_rng(0), draws)
    every = np.array(list(itertools.product(*(range(n) for n in tiny.cardinalities))), np.int32)
    genes, bin_of = tiny.canonical(every), bins.of(tiny.canonical(every))
    exact = np.bincount(bin_of, minlength=5) / len(every)
    kept = exact > 0
    assert chisquare(draws * bins.shares[kept], draws * exact[kept]).pvalue > 1e-4
    active = tiny.active(genes)
    for number in np.flatnonzero(kept):
        for gene in range(tiny.num_genes):
            here = active[:, gene] & (bin_of == number)
            if not here.any():
                np.testing.assert_array_equal(bins.chances[number, gene], 0.5)
                continue
            expected = np.bincount(genes[here, gene], minlength=2) / here.sum()
            counted = draws * here.mean()
            if (expected > 0).all():
                counts = counted * bins.chances[number, gene]
                assert chisquare(counts, counted * expected).pvalue > 1e-4, (number, gene)
            else:
                np.testing.assert_array_equal(bins.chances[number, gene], expected)


@pytest.mark.parametrize("tries", [1, 2, 40])
def test_draws_follow_the_genes_of_the_bin_given_the_cost(tiny, tries):
    """Every try is a product of categoricals; the first in the bin is taken, or else the last: exact for any tries."""
    bins = CostBins.estimate(tiny, macs_of(tiny), 5, np.random.default_rng(0), 20_000)
    every = np.array(list(itertools.product(*(range(n) for n in tiny.cardinalities))), np.int32)
    number = int(bins.shares.argmax())
    proposed = np.prod(bins.chances[number][np.arange(tiny.num_genes), every], axis=1)
    right = bins.of(tiny.canonical(every)) == number
    accepted = proposed[right].sum()
    missed = (1 - accepted) ** (tries - 1)
    exact = proposed * np.where(right, (1 - missed * (1 - accepted)) / accepted, missed)
    assert exact.sum() == pytest.approx(1)
    names, of = np.unique(tiny.canonical(every), axis=0, return_inverse=True)
    expected = np.bincount(of.reshape(-1), exact)
    drawn = bins.draw(np.random.default_rng(1), np.full(100_000, number), tries)
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    table = {row.tobytes(): count for row, count in zip(found, counts, strict=True)}
    observed = np.array([table.pop(row.tobytes(), 0) for row in names])
    assert not table
    likely = 100_000 * expected >= 5
    assert observed[expected < 1e-12].sum() == 0
    counts, wanted = (np.append(part[likely], part[~likely].sum()) for part in (observed, 100_000 * expected))
    kept = wanted > 0
    assert chisquare(counts[kept], wanted[kept]).pvalue > 1e-4


@pytest.mark.parametrize("prior", ["space", "uniform"])
def test_bins_are_drawn_by_the_prior(space, prior):
    sampler = AttentiveSampler(space, 0, candidates=1, random_paths=1000, prior=prior, bins=6, table=100_000)
    bins = sampler._cost_bins
    exact = bins.shares if prior == "space" else (bins.shares > 0) / np.count_nonzero(bins.shares)
    genes = np.concatenate([sampler.sample({}, step).genes[1:-1] for step in range(100)])
    counts = np.bincount(bins.of(genes), minlength=6)
    kept = exact > 0
    assert counts[~kept].sum() == 0
    assert chisquare(counts[kept], 100_000 * exact[kept]).pvalue > 1e-4


def test_candidates_lie_in_their_bins(space):
    bins = CostBins.estimate(space, macs_of(space), 8, np.random.default_rng(0), 20_000)
    wanted = np.random.default_rng(1).choice(8, 2000, p=bins.shares)
    np.testing.assert_array_equal(bins.of(bins.draw(np.random.default_rng(2), wanted, 100)), wanted)


# ---------------------------------------------------------------- the choice of a candidate


@pytest.mark.parametrize("mode", ["best", "worst"])
def test_the_candidate_is_the_one_that_the_loss_says(space, mode):
    sampler = AttentiveSampler(space, 0, mode=mode, score="loss", candidates=4, random_paths=3)
    assert sampler.needs == {"scores"}
    assert sampler.init() == {}
    for step in range(50):
        seen = []

        def score(genes, seen=seen):
            seen.append(genes)
            return true_loss(space, genes)

        paths = sampler.sample({}, step, score=score)
        assert paths.roles == ("largest", "random", "random", "random", "smallest")
        assert tuple(paths.genes[0]) == space.largest.genes
        assert tuple(paths.genes[-1]) == space.smallest.genes
        (candidates,) = seen
        assert candidates.shape == (12, space.num_genes)
        for path in range(3):
            group = candidates[4 * path : 4 * path + 4]
            extreme = (np.argmin if mode == "best" else np.argmax)(true_loss(space, group))
            np.testing.assert_array_equal(paths.genes[1 + path], group[extreme])


@pytest.mark.parametrize("mode", ["best", "worst"])
def test_a_candidate_without_a_finite_loss_is_not_chosen(space, mode):
    sampler = AttentiveSampler(space, 0, mode=mode, score="loss", random_paths=1)
    seen = []

    def score(genes):
        seen.append(genes)
        return np.array([np.nan, 2.0, -np.inf if mode == "best" else np.inf])

    np.testing.assert_array_equal(sampler.sample({}, 0, score=score).genes[1], seen[0][1])


@pytest.mark.parametrize("kind", PREDICTORS)
@pytest.mark.parametrize("mode", ["best", "worst"])
def test_the_predictor_learns_and_its_choice_is_better(space, mode, kind):
    steps = 300 if kind == "ridge" else 60
    sampler = AttentiveSampler(space, 0, PLAN, mode=mode, predictor=kind)
    assert sampler.needs == frozenset()
    state, _ = train(sampler, steps)
    plain = dataclasses.replace(sampler, candidates=1, random_paths=400)
    attentive = dataclasses.replace(sampler, random_paths=400)
    # The same seed and step give both the same bins, so what differs is the choice alone.
    chance, chosen = (true_loss(space, other.sample(state, 999).genes[1:-1]) for other in (plain, attentive))
    error = np.sqrt(chance.var() / 400 + chosen.var() / 400)
    difference = chance.mean() - chosen.mean()
    assert (difference if mode == "best" else -difference) > 3 * error
    if kind == "ridge":
        genes = space.sample(np.random.default_rng(5), 200)
        assert np.corrcoef(sampler._fit(state)(genes), true_loss(space, genes))[0, 1] > 0.98


def test_the_memory_holds_the_last_attentive_paths_less_the_ends(space):
    sampler = AttentiveSampler(space, 0, PLAN, memory=6, warmup=4, random_paths=2)
    state, drawn = train(sampler, 5)
    assert state["observed"] == 10
    for i, step in ((0, 3), (2, 4), (4, 2)):  # slots of paths 6, 8 and 4
        paths = drawn[step]
        loss = true_loss(space, paths.genes)
        np.testing.assert_array_equal(state["genes"][i : i + 2], paths.genes[1:3])
        np.testing.assert_allclose(state["losses"][i : i + 2], loss[1:3] - (loss[0] + loss[3]) / 2, atol=1e-12)


def test_the_predictor_is_fitted_after_the_warm_up_and_then_on_schedule(space):
    sampler = AttentiveSampler(space, 0, PLAN, warmup=7, refit_every=5)
    state, fits = sampler.init(), []
    for step in range(20):
        before = state["fitted_losses"]
        state, _ = train(sampler, 1, state, step)
        if state["fitted_losses"] is not before:
            fits.append((step, int(state["fitted"])))
    assert fits == [(3, 8), (4, 10), (9, 20), (14, 30), (19, 40)]


def test_before_the_first_fit_the_first_candidate_is_trained(space):
    sampler = AttentiveSampler(space, 0, PLAN, random_paths=3)
    rng = sampler.rng(4)
    wanted = rng.choice(8, 3, p=sampler._prior)
    candidates = sampler._cost_bins.draw(rng, np.repeat(wanted, 3), 100)
    np.testing.assert_array_equal(sampler.sample(sampler.init(), 4).genes[1:-1], candidates[::3])


def test_a_restored_state_predicts_the_same_between_fits(space, tmp_path):
    """Step 73 lies between the fits at 49 and 99, and the ring has turned over since."""
    sampler = AttentiveSampler(space, 0, PLAN, memory=32)
    state, _ = train(sampler, 73)
    np.savez(tmp_path / "state.npz", **state)
    with np.load(tmp_path / "state.npz") as file:
        restored = {name: file[name] for name in file.files}
    genes = space.sample(np.random.default_rng(5), 50)
    fresh = AttentiveSampler(space, 0, PLAN, memory=32)
    np.testing.assert_array_equal(sampler._fit(state)(genes), fresh._fit(restored)(genes))
    continued, resumed = train(sampler, 40, state, 73)[1], train(fresh, 40, restored, 73)[1]
    for first, second in zip(continued, resumed, strict=True):
        np.testing.assert_array_equal(first.genes, second.genes)


def test_losses_that_are_not_finite_are_counted_and_left_out(space):
    sampler = AttentiveSampler(space, 0, PLAN)
    state, _ = train(sampler, 3)
    paths = sampler.sample(state, 3)
    after = sampler.update(state, StepFeedback(3, paths, np.array([1.0, np.nan, 3.0, np.inf])))
    assert after["not_finite"] == 2
    assert after["observed"] == 7
    np.testing.assert_array_equal(after["genes"][6], paths.genes[2])
    assert after["losses"][6] == 2
    # Without a finite end nothing says how hard the batch was.
    assert sampler.update(state, StepFeedback(3, paths, np.array([np.nan, 2, 3, np.nan])))["observed"] == 6


def test_any_cost_divides_the_bins(space):
    def latency(genes):
        return {"latency_ms": 1.0 + genes[:, 0]}

    sampler = AttentiveSampler(space, 0, PLAN, cost=latency, cost_metric="latency_ms", bins=3)
    np.testing.assert_allclose(sampler._cost_bins.shares, 1 / 3, atol=0.02)
    with pytest.raises(UserError, match=r"sampler\.cost_metric: 'macs' is not known"):
        AttentiveSampler(space, 0, PLAN, cost=latency)
    with pytest.raises(UserError, match=r"sampler\.cost_metric: the dearest architecture costs 1 and the cheapest 1"):
        AttentiveSampler(space, 0, PLAN, cost=lambda genes: {"macs": np.ones(len(genes))})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "bets"}, r"sampler\.mode: 'bets' is not known\. Did you mean 'best'"),
        ({"score": "losses"}, r"sampler\.score: 'losses' is not known\. Did you mean 'loss'"),
        ({"prior": "flat"}, r"sampler\.prior: 'flat' is not known"),
        ({"predictor": "rigde"}, r"sampler\.predictor: 'rigde' is not known\. Did you mean 'ridge'"),
        ({"candidates": 0}, r"sampler\.candidates: 0 is less than 1"),
        ({"random_paths": 0}, r"sampler\.random_paths: 0 is less than 1"),
        ({"warmup": 600}, r"sampler\.warmup: 600 paths are more than the 512 of sampler\.memory\. Give at most 512"),
        ({"warmup": 2000, "memory": 4000}, r"sampler\.warmup: 2000 paths are all that .* Give at most 1999\."),
    ],
)
def test_settings_that_cannot_work(space, settings, message):
    with pytest.raises(UserError, match=message):
        AttentiveSampler(space, 0, PLAN, **settings)


def test_warm_up_matters_to_the_predictor_alone(space):
    short = Plan(steps=3, examples=50, batch_size=8)
    with pytest.raises(UserError, match=r"sampler\.warmup: 32 paths are all .* 3 steps.* Give at most 5\."):
        AttentiveSampler(space, 0, short)
    AttentiveSampler(space, 0, short, score="loss")
    AttentiveSampler(space, 0, short, candidates=1)
    AttentiveSampler(space, 0, short, warmup=5)
