"""What every registered sampler must do, on every family."""

import copy
import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from samplers import ROLES, SAMPLERS, Paths, Sampler, StepFeedback
from search_spaces import FAMILIES, SearchSpace, UserError, build_space

STEPS = 40


@pytest.fixture(params=[family for family in FAMILIES if "small" in FAMILIES[family].presets])
def space(request) -> SearchSpace:
    return build_space(request.param, "small")


@pytest.fixture(params=list(SAMPLERS))
def make(request, space):
    """Builds the sampler with its default settings and a given seed."""
    return lambda seed=0: SAMPLERS[request.param](space, seed)


def run(sampler: Sampler, state: dict, first: int, last: int, worker: int = 0) -> tuple[list[Paths], dict]:
    """Steps `first` to `last` with losses that depend on the genes; what was drawn and the state after."""
    drawn = []
    for step in range(first, last):
        paths = sampler.sample(state, step, worker)
        losses = 1 + np.cos(paths.genes.sum(axis=1) + step)
        state = sampler.update(state, StepFeedback(paths, losses))
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
        k = sampler.paths_per_step
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
        for genes, role in zip(paths.genes, paths.roles, strict=True):
            if role != "random":
                assert tuple(genes) == getattr(space, role).genes


def test_the_same_seed_repeats_the_draws_whatever_the_global_generator_does(make):
    first, _ = run(make(3), make(3).init(), 0, STEPS)
    np.random.seed(7)  # noqa: NPY002  (that it does not matter is the test)
    second, _ = run(make(3), make(3).init(), 0, STEPS)
    assert_same(first, second)


def test_seeds_steps_and_workers_draw_differently(make):
    def genes(seed: int, worker: int) -> np.ndarray:
        sampler = make(seed)
        return np.stack([paths.genes for paths in run(sampler, sampler.init(), 0, STEPS, worker)[0]])

    reference = genes(0, 0)
    assert len({step.tobytes() for step in reference}) > STEPS // 2
    assert not np.array_equal(reference, genes(1, 0))
    assert not np.array_equal(reference, genes(0, 1))


def test_sampling_leaves_the_state_alone(make):
    sampler = make()
    _, state = run(sampler, sampler.init(), 0, 3)
    before = copy.deepcopy(state)
    first = sampler.sample(state, 3)
    sampler.update(state, StepFeedback(first, np.ones(sampler.paths_per_step)))
    np.testing.assert_equal(state, before)
    assert_same([first], [sampler.sample(state, 3)])


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
    assert [field.name for field in dataclasses.fields(sampler)][:2] == ["space", "seed"]
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
