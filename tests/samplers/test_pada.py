"""PA&DA: path probabilities by hand, draws and corrections that are exact."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from samplers import PADASampler, Paths, Plan, StepFeedback
from search_spaces import UserError, build_space

PLAN = Plan(steps=60, examples=50, batch_size=10)  # 12 epochs of 5 steps


@pytest.fixture(scope="module")
def space():
    return build_space("vit", "small")


@pytest.fixture(scope="module")
def tiny(space):
    """Few enough gene vectors to go through all of them."""
    return dataclasses.replace(space, width=(32, 48), depth=(1, 2), heads=(2, 3, 4), mlp_ratio=(1.0, 2.0))


def norms_of(step: int, genes: np.ndarray) -> np.ndarray:
    return np.abs(np.sin(1 + genes * 3.0 + np.arange(genes.shape[1]) + step))


def feedback(step: int, paths, gene_norms: np.ndarray, rows: np.ndarray | None = None) -> StepFeedback:
    rows = np.arange(10) if rows is None else rows
    norms = np.abs(np.cos(rows + np.arange(len(paths.genes))[:, None]))
    return StepFeedback(step, paths, np.ones(len(paths.genes)), gene_norms, rows, norms, norms)


def train(sampler: PADASampler, steps: int, norms=norms_of):
    """The state after some steps, and the paths of each."""
    state, drawn = sampler.init(), []
    for step in range(steps):
        paths = sampler.sample(state, step)
        wanted = sampler.examples(state, step)
        state = sampler.update(
            state, feedback(step, paths, norms(step, paths.genes), None if wanted is None else wanted.rows)
        )
        drawn.append(paths)
    return state, drawn


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("paths", [1, 3])
def test_path_probabilities_are_those_of_a_loop_over_the_definition(space, shared, paths):
    sampler = PADASampler(space, 0, PLAN, paths=paths, shared=shared, max_tau=0.8)
    names = {}
    for name, columns in space.columns.items():
        for position in np.ndindex(columns.shape):
            names[int(columns[position])] = name + ("" if shared else "".join(f"[{i}]" for i in position))
    values = {names[gene]: int(count) for gene, count in enumerate(space.cardinalities)}
    expected = {name: [1 / n] * n for name, n in values.items()}
    means = {name: [0.0] * n for name, n in values.items()}
    state = sampler.init()
    for step in range(25):
        found = sampler.distributions(state)
        assert list(found) == [*values, "examples"]
        for name in values:
            np.testing.assert_allclose(found[name], expected[name], err_msg=f"{step} {name}")
            if step < 10:
                np.testing.assert_allclose(found[name], 1 / values[name])
        drawn = sampler.sample(state, step)
        norms, seen = norms_of(step, drawn.genes), {}
        for path, active in enumerate(space.active(drawn.genes)):
            for gene in np.flatnonzero(active):
                seen.setdefault((names[gene], int(drawn.genes[path, gene])), []).append(norms[path, gene])
        for (name, value), observed in seen.items():
            means[name][value] = (means[name][value] + sum(observed) / len(observed)) / 2
        state = sampler.update(state, feedback(step, drawn, norms))
        if step % 5 == 4:
            tau = 0.8 * (step // 5) / 12
            for name, n in values.items():
                total = sum(means[name])
                expected[name] = [tau * m / total + (1 - tau) / n if total else 1 / n for m in means[name]]
                means[name] = [0.0] * n


def test_a_value_without_gradient_keeps_the_uniform_part_alone(space):
    """As the operations without weights of the paper."""
    sampler = PADASampler(space, 0, PLAN, paths=8)
    state, _ = train(sampler, 15, lambda _, genes: np.where(genes == 1, 0.0, 1.0))
    np.testing.assert_allclose(sampler.distributions(state)["width"][1], (1 - 2 / 12) / 3)


def test_nothing_ever_has_probability_zero(space):
    state, _ = train(PADASampler(space, 0, PLAN), PLAN.steps, lambda _, genes: (genes == 0).astype(float))
    assert state["path_probabilities"].min() == pytest.approx((1 - 11 / 12) / space.cardinalities.max())


@pytest.mark.parametrize("shared", [False, True])
def test_draws_follow_the_probabilities(space, shared):
    sampler = PADASampler(space, 3, PLAN, paths=1000, shared=shared)
    state, _ = train(PADASampler(space, 0, PLAN, paths=3, shared=shared), PLAN.steps)
    genes = np.concatenate([sampler.sample(state, step).genes for step in range(100)])
    assert not np.allclose(state["path_probabilities"], sampler.init()["path_probabilities"], atol=0.1)
    active = space.active(genes)
    found = sampler.distributions(state)
    for name, columns in space.columns.items():
        for position in np.ndindex(columns.shape):
            gene = int(columns[position])
            wanted = found[name + ("" if shared else "".join(f"[{i}]" for i in position))]
            counts = np.bincount(genes[active[:, gene], gene], minlength=len(wanted))
            assert chisquare(counts, counts.sum() * wanted).pvalue > 1e-4, (name, position)


def test_examples_follow_their_probabilities_and_the_sampler_says_until_when(space):
    sampler = PADASampler(space, 0, dataclasses.replace(PLAN, batch_size=10))
    assert [sampler.examples_known_until(step) for step in (0, 4, 5, 9)] == [5, 5, 10, 10]
    state, _ = train(sampler, 50)
    rows = np.concatenate([PADASampler(space, seed, PLAN).examples(state, 51).rows for seed in range(10_000)])  # type: ignore[union-attr]
    expected = sampler.distributions(state)["examples"]
    assert chisquare(np.bincount(rows, minlength=50), len(rows) * expected).pvalue > 1e-4


@pytest.mark.parametrize("shared", [False, True])
def test_corrected_paths_have_the_expectation_of_uniform_sampling(tiny, shared):
    """Over every gene vector, each with its probability: no draw, so no error but rounding."""
    sampler = PADASampler(tiny, 0, PLAN, paths=2, unbiased=True, shared=shared)
    state, _ = train(sampler, PLAN.steps)
    every = np.array(list(itertools.product(*(range(n) for n in tiny.cardinalities))), np.int32)
    by_gene = sampler._by_gene(state)
    probabilities = np.prod(by_gene[np.arange(tiny.num_genes), every], axis=1)
    assert probabilities.sum() == pytest.approx(1)
    canonical = tiny.canonical(every)
    values = np.sin(canonical @ np.arange(1, tiny.num_genes + 1) + 0.5)
    weights = sampler.path_weights(state, canonical)
    assert np.sum(probabilities * weights * values) == pytest.approx(values.mean(), abs=1e-12)
    assert np.sum(probabilities * values) != pytest.approx(values.mean(), abs=1e-3)  # what the correction is for
    drawn = sampler.sample(state, 7)
    np.testing.assert_allclose(drawn.weights, sampler.path_weights(state, drawn.genes), rtol=1e-6)
    assert (dataclasses.replace(sampler, unbiased=False).sample(state, 7).weights == 1).all()


def test_norms_that_are_not_finite_are_counted_and_left_out(space):
    sampler = PADASampler(space, 0, PLAN, paths=3, data_importance=False)
    state, _ = train(sampler, 3)
    paths = sampler.sample(state, 3)
    norms = norms_of(3, paths.genes)
    norms[0] = np.nan
    norms[0, 0] = np.inf
    after = sampler.update(state, feedback(3, paths, norms))
    assert after["not_finite"] == space.active(paths.genes)[0].sum()
    others = Paths(paths.genes[1:], paths.roles[1:], paths.weights[1:])
    expected = sampler.update(state, feedback(3, others, norms[1:]))
    np.testing.assert_array_equal(after["path_norms"], expected["path_norms"])
    assert expected["not_finite"] == 0


def test_each_half_works_alone(space):
    paths = PADASampler(space, 0, PLAN, data_importance=False)
    assert paths.needs == {"gene_norms"}
    state, _ = train(paths, 20)
    assert paths.examples(state, 20) is None
    assert paths.examples_known_until(20) is None
    assert "examples" not in paths.distributions(state)
    data = PADASampler(space, 0, PLAN, path_importance=False)
    assert data.needs == {"examples"}
    state, _ = train(data, 20)
    assert list(data.distributions(state)) == ["examples"]
    assert data.examples(state, 20) is not None
    assert PADASampler(space, 0, PLAN).needs == {"gene_norms", "examples"}


def test_settings_that_cannot_work(space):
    with pytest.raises(UserError, match=r"sampler\.paths: 0 is less than 1"):
        PADASampler(space, 0, PLAN, paths=0)
    with pytest.raises(UserError, match=r"sampler\.max_tau: 1\.5 is not between 0 and 1\. Give 1\.0"):
        PADASampler(space, 0, PLAN, max_tau=1.5)
    with pytest.raises(UserError, match=r"sampler\.path_importance: false, and data_importance is false too"):
        PADASampler(space, 0, PLAN, path_importance=False, data_importance=False)
    with pytest.raises(UserError, match="PADASampler follows a schedule"):
        PADASampler(space, 0).init()
