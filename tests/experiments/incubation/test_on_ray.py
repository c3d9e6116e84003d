"""Incubation by real Ray workers: the bits of one process, and a training that starts from them."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.incubation.stage import incubate, start_of
from experiments.process.interrupt import StopRequest
from experiments.storage.checkpoints import Checkpoints
from experiments.training.stage import trained_params
from tests.experiments.distributed.runs import finish, start

pytestmark = pytest.mark.ray

EXPERIMENT = """\
data: {source: digits, train_limit: 200}
space: {family: vit, preset: small, width: [16], depth: [4], heads: [2], mlp_ratio: [1.0], head_dim: 8}
train:
  steps: 1
  batch_size: 16
  ema: null
  optimizer: {type: sgd, learning_rate: 1.0e-6, weight_decay: 0.0}
  incubation: {modules: 2, meta_steps: 5, module_steps: 4, learning_rate: 0.01}
"""


def test_modules_on_two_workers_are_those_of_one_process(tmp_path: Path) -> None:
    config = tmp_path / "e.yaml"
    config.write_text(EXPERIMENT, encoding="utf-8")
    run = start("train", config, tmp_path / "run", "ray={workers: 2}")
    experiment = build_experiment(load_config(config))
    figures = incubate(experiment, tmp_path / "here", StopRequest(), quiet=True)
    finish(run)
    here, there = (start_of(experiment, tmp_path / name) for name in ("here", "run"))
    jax.tree.map(np.testing.assert_array_equal, here, there)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    assert summary["incubation"]["hybrids"] == list(figures.hybrids)
    assert summary["incubation"]["assembled"] == figures.assembled
    # A single step at a rate that moves nothing far: the workers have trained on from the assembled network.
    with Checkpoints(tmp_path / "run" / "checkpoints", run=experiment.config.identity) as checkpoints:
        params = trained_params(experiment, checkpoints)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), params, there)
