"""Members of an evolution strategy on real Ray workers: the same bits on any number of them, whatever dies."""

import jax
import numpy as np
import pytest

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


def test_one_two_and_four_workers_and_killed_ones_give_the_same_bits(tmp_path):
    config = tmp_path / "e.yaml"
    config.write_text(EXPERIMENT)
    for workers in (1, 2, 4):
        assert "warning" not in finish(start("train", config, tmp_path / str(workers), f"ray.workers={workers}"))
    run = start("train", config, tmp_path / "killed", "ray.workers=2")
    wait_until(lambda: last_step(tmp_path / "killed") >= 10, run)
    titled("Resident", run)[0].kill()
    finish(run)
    steps, one = state_of(config, tmp_path / "1")
    assert steps == 60
    for name in ("2", "4", "killed"):
        jax.tree.map(np.testing.assert_array_equal, state_of(config, tmp_path / name)[1].train, one.train)
