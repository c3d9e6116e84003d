"""Members of an evolution strategy on real Ray workers: the same bits on any number of them, whatever dies."""

from pathlib import Path

import jax
import numpy as np
import pytest

import experiments
from tests.experiments.distributed.runs import finish, last_step, start, state_of, titled, wait_until

pytestmark = pytest.mark.ray

EXPERIMENT = """\
data: {train_limit: 60}
space: {family: vit, preset: small, patch_size: 4, width: [16], depth: [1, 2], heads: [2], mlp_ratio: [1], head_dim: 8}
sampler: {type: sandwich, random_paths: 0}
train:
  method: evolution_strategy
  evolution_strategy: {population: 16, sigma: 0.05, chunk: 4}
  steps: 60
  batch_size: 8
  checkpoint_every: 10
  evaluate_every: 100
  diagnose_every: null
  optimizer: {type: adamw, learning_rate: 0.01, weight_decay: 0.0}
ray: {workers: 1, cpus_per_worker: 0.5}
"""
INT8 = """\
plugins: [int8_language]
data: {source: text, path: text.txt, context: 8, validation_fraction: 0.2, test_fraction: 0.1}
space: {family: int8_language, width: 16, depth: [1, 2], state: [4, 8]}
sampler: {type: sandwich, random_paths: 0}
train:
  method: evolution_strategy
  evolution_strategy: {population: 32, groups: 4, sigma: 1, fitness: integer_loss, shaping: sign, chunk: 16}
  steps: 10
  batch_size: 8
  optimizer: {type: votes, learning_rate: 0.5}
  ema: null
  evaluate_every: 100
  diagnose_every: null
ray: {workers: 1, cpus_per_worker: 0.5}
"""


def trained(config, out, workers):
    """The last state of an undisturbed training on so many workers."""
    assert "warning" not in finish(start("train", config, out, f"ray.workers={workers}"))
    steps, progress = state_of(config, out)
    assert steps == 60
    return progress.train


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("members") / "e.yaml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="module")
def one(config):
    return trained(config, config.parent / "one", 1)


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_workers_train_the_same_bits_as_one(config, tmp_path, one, workers):
    jax.tree.map(np.testing.assert_array_equal, trained(config, tmp_path / "run", workers), one)


def test_int8_weights_are_the_same_bits_on_several_workers_and_on_none(tmp_path):
    plugin = Path(experiments.__file__).with_name("plugins") / "int8_language.py"
    (tmp_path / plugin.name).write_text(plugin.read_text("utf-8"), "utf-8")
    (tmp_path / "text.txt").write_text("To be, or not to be: that is the question. " * 12)
    config, states = tmp_path / "e.yaml", []
    config.write_text(INT8)
    for name, settings in (("none", ("ray=null",)), ("one", ("ray.workers=1",)), ("two", ("ray.workers=2",))):
        finish(start("train", config, tmp_path / name, *settings))
        steps, progress = state_of(config, tmp_path / name)
        assert steps == 10
        states.append(progress.train)
    for other in states[1:]:
        jax.tree.map(np.testing.assert_array_equal, states[0], other)
    assert {leaf.dtype for leaf in jax.tree.leaves(states[0].params)} == {np.dtype("int8")}


def test_a_killed_worker_changes_no_bit(config, tmp_path, one):
    run = start("train", config, tmp_path / "run", "ray.workers=2")
    wait_until(lambda: last_step(tmp_path / "run") >= 10, run)
    titled("Resident", run)[0].kill()
    finish(run)
    jax.tree.map(np.testing.assert_array_equal, state_of(config, tmp_path / "run")[1].train, one)
