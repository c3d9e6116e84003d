"""A federation by real Ray workers: the bits of one process."""

import json
from pathlib import Path

import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.federation.stage import federate
from experiments.process.interrupt import StopRequest
from tests.experiments.distributed.runs import finish, start

pytestmark = pytest.mark.ray

EXPERIMENT = """\
data: {source: digits, train_limit: 300}
space: {family: vit, preset: small, width: [8, 12], depth: [1, 2], heads: [1], mlp_ratio: [1.0], head_dim: 8}
train: {steps: 1, batch_size: 16}
federation:
  rounds: 2
  local_steps: 2
  clients: {full: {number: 1}, small: {number: 2, network: {width: 8, depth: 1}}}
  server: {examples: 32, steps: 2}
  client_choice: {type: ucb, number: 2}
export: {stablehlo: false}
"""


def test_clients_on_two_actors_are_those_of_one_process(tmp_path: Path) -> None:
    config = tmp_path / "e.yaml"
    config.write_text(EXPERIMENT, encoding="utf-8")
    experiment = build_experiment(load_config(config))
    federate(experiment, tmp_path / "here", StopRequest(), quiet=True)
    finish(start("federate", config, tmp_path / "there", "ray={workers: 2}"))
    runs = [tmp_path / name / "federation" for name in ("here", "there")]
    assert len({(run / "rounds.jsonl").read_bytes() for run in runs}) == 1
    for name in ("server", "full", "small"):
        hashes = [json.loads((run / "subnets" / name / "manifest.json").read_text("utf-8"))["files"] for run in runs]
        weights = [found["weights.safetensors"] for found in hashes]
        assert weights[0] == weights[1], name
