"""What every registered sampler must do, on every family."""

import copy
import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from samplers import ROLES, SAMPLERS, Paths, Plan, Sampler, StepFeedback
from samplers.levels import EmptyLevel
from search_spaces import FAMILIES, SearchSpace, UserError, build_space
from tests.marks import sampled
from tests.supernet.families import SETTINGS

STEPS = 40
PLAN = Plan(steps=STEPS, examples=50, batch_size=8)


COSTLY = ("darts", "mobilenet_ensemble")
"""Families of whose preset `small` the levels of costs take seconds to count: fewer networks do."""


@pytest.fixture(params=sampled(family for family in FAMILIES if "small" in FAMILIES[family].presets))
def space(request) -> SearchSpace:
    return build_space(request.param, "small", SETTINGS[request.param] if request.param in COSTLY else {})


@pytest.fixture(params=list(SAMPLERS))
def make(request, space):
    """Builds the sampler with its default settings and a given seed; with wide levels where costs are few."""

    def build(seed=0):
        try:
            return SAMPLERS[request.param](space, seed, PLAN)
        except EmptyLevel:
            settings: dict[str, Any] = {"levels": 3, "slack": 0.3}
            return SAMPLERS[request.param](space, seed, PLAN, **settings)

    return build


def feedback_of(step: int, paths: Paths, rows: np.ndarray, value: float | None = None) -> StepFeedback:
    """Feedback that depends on genes, examples and step alone; or everywhere `value`."""

    def score(genes: np.ndarray) -> np.ndarray:
        return 1 + np.cos(genes.sum(axis=1) + step) if value is None else np.full(len(genes), value)

    base = score(paths.genes)
    per_example = base[:, None] * (1 + rows % 3)
    return StepFeedback(
        step, paths, base, base[:, None] * (1 + paths.genes), rows, per_example, per_example / 4, None, score
    )


def rows_of(sampler: Sampler, state: dict, step: int) -> np.ndarray:
    examples = sampler.examples(state, step)
    if examples is None:
        return np.arange(step * 8, step * 8 + 8) % 50
    assert examples.rows.shape == examples.weights.shape == (8,)
    assert examples.rows.dtype == np.int64
    assert ((examples.rows >= 0) & (examples.rows < 50)).all()
    assert (examples.weights > 0).all()
    return examples.rows


def scorer(step: int):
    return lambda genes: 1 + np.cos(genes.sum(axis=1) + step)


def run(sampler: Sampler, state: dict, first: int, last: int) -> tuple[list[Paths], dict]:
    """Steps `first` to `last` with losses that depend on the genes; what was drawn and the state after."""
    drawn = []
    for step in range(first, last):
        paths = sampler.sample(state, step, scorer(step))
        state = sampler.update(state, feedback_of(step, paths, rows_of(sampler, state, step)))
        drawn.append(paths)
    return drawn, state


def assert_same(first: list[Paths], second: list[Paths]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.genes, b.genes)
        np.testing.assert_array_equal(a.weights, b.weights)
        assert a.roles == b.roles


def test_paths_are_canonical_members_with_roles_and_finite_weights(make, space):
    sampler = make()
    for paths in run(sampler, sampler.init(), 0, STEPS)[0]:
        k = len(paths.genes)
        assert 1 <= k <= sampler.paths_per_step  # fewer in the first stages of `progressive`
        assert paths.genes.shape == (k, space.num_genes)
        assert paths.genes.dtype == np.int32
        assert space.contains(paths.genes).all()
        np.testing.assert_array_equal(paths.genes, space.canonical(paths.genes))
        assert len(paths.roles) == k
        assert set(paths.roles) <= set(ROLES)
        assert paths.weights.shape == (k,)
        assert paths.weights.dtype == np.float32
        assert np.isfinite(paths.weights).all()
        assert (paths.weights > 0).all()
        macs = space.cost(paths.genes)["macs"]
        for genes, role, cost in zip(paths.genes, paths.roles, macs, strict=True):
            if role == "largest":
                assert tuple(genes) == space.largest.genes
            if role == "smallest":
                assert cost == macs.min()


def test_the_same_seed_repeats_the_draws_whatever_the_global_generator_does(make):
    first, _ = run(make(3), make(3).init(), 0, STEPS)
    np.random.seed(7)  # noqa: NPY002  (that it does not matter is the test)
    second, _ = run(make(3), make(3).init(), 0, STEPS)
    assert_same(first, second)


def test_seeds_and_steps_draw_differently(make):
    reference, other = ([paths.genes for paths in run(make(seed), make(seed).init(), 0, STEPS)[0]] for seed in (0, 1))
    if isinstance(make(), SAMPLERS["largest"]):
        assert len({step.tobytes() for step in reference + other}) == 1
        return
    assert len({step.tobytes() for step in reference}) > STEPS // 2
    assert not all(np.array_equal(a, b) for a, b in zip(reference, other, strict=True))


def test_sampling_leaves_the_state_alone(make):
    sampler = make()
    _, state = run(sampler, sampler.init(), 0, 3)
    before = copy.deepcopy(state)
    first = sampler.sample(state, 3, score=scorer(3))
    sampler.update(state, feedback_of(3, first, rows_of(sampler, state, 3)))
    np.testing.assert_equal(state, before)
    assert_same([first], [sampler.sample(state, 3, score=scorer(3))])


def test_feedback_that_is_not_a_number_is_counted_and_never_spreads(make):
    sampler = make()
    _, state = run(sampler, sampler.init(), 0, 3)
    paths = sampler.sample(state, 3, score=lambda genes: np.full(len(genes), np.nan))
    after = sampler.update(state, feedback_of(3, paths, rows_of(sampler, state, 3), np.nan))
    assert after.keys() == state.keys()
    for name, value in after.items():
        assert value.shape == state[name].shape, name
        assert value.dtype == state[name].dtype, name
        np.testing.assert_array_equal(np.isnan(value), np.isnan(state[name]), err_msg=name)
    if state:
        assert after["not_finite"] > state["not_finite"]
    run(sampler, after, 4, 8)


def test_distributions_sum_to_one(make):
    sampler = make()
    for state in (sampler.init(), run(sampler, sampler.init(), 0, STEPS)[1]):
        for name, values in sampler.distributions(state).items():
            assert (values >= 0).all(), name
            assert values.sum() == pytest.approx(1), name


def test_examples_are_known_until_the_step_that_the_sampler_says(make):
    sampler, other = make(), make()
    state = sampler.init()
    until = sampler.examples_known_until(0)
    if until is None:
        assert sampler.examples(state, 0) is None
        return
    wanted = [other.examples(state, step) for step in range(until)]
    for step in range(until):
        now = sampler.examples(state, step)
        assert (now is None) == (wanted[step] is None)
        if now is not None:
            np.testing.assert_array_equal(now.rows, wanted[step].rows)
        _, state = run(sampler, state, step, step + 1)


def test_a_restored_state_continues_exactly(make, tmp_path):
    sampler = make()
    whole, end = run(sampler, sampler.init(), 0, STEPS)
    head, state = run(sampler, sampler.init(), 0, STEPS // 2)
    assert all(isinstance(value, np.ndarray) for value in state.values())
    np.savez(tmp_path / "state.npz", **state)
    with np.load(tmp_path / "state.npz") as file:
        restored = {name: file[name] for name in file.files}
    tail, final = run(make(), restored, STEPS // 2, STEPS)
    assert_same(whole, head + tail)
    assert final.keys() == end.keys()
    for name in end:
        np.testing.assert_array_equal(final[name], end[name])


def test_is_a_frozen_dataclass_with_default_settings(make, space):
    sampler = make()
    assert [field.name for field in dataclasses.fields(sampler)][:4] == ["space", "seed", "plan", "cost"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampler.seed = 1
    with pytest.raises(UserError, match=r"sampler\.seed: -1 is less than 0"):
        make(-1)


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'sandwich'"):
        SAMPLERS["sandwitch"]


def test_importing_does_not_import_jax():
    code = "import sys, samplers; list(samplers.SAMPLERS); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
