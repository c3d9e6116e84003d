"""A scheme with weights of its own, from the YAML to an export: it trains, resumes in the same bits, or is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.storage.checkpoints import Checkpoints
from experiments.training.stage import trained_params
from supernest import load_subnet

FILE = """\
data: {source: digits, train_limit: 100}
space:
  {family: FAMILY, preset: small}
supernet: {sharing: kernel_transform}
sampler: {type: pada}
train: {steps: 16, batch_size: 16, checkpoint_every: 8, evaluate_every: 16, ema: 0.9, optimizer: {untouched: hold}}
search: {evaluations: 6, population: 4, parents: 2}
evaluation: {calibration_batches: 1, calibration_batch_size: 32}
budgets: {full: {macs: 100%}, half: {macs: 60%}}
export: {stablehlo: false}
"""
SIZES = """mobilenet, resolution: [8], depth: [1, 2], kernel: [3, 5, 7], expand: [1, 2], widths: [8],
   strides: [2], squeeze_excite: [false], activations: [relu], stem_width: 8, first_width: 8, final_width: 16,
   feature_width: 16"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ofa.yaml").write_text(FILE.replace("FAMILY", SIZES), encoding="utf-8")
    (tmp_path / "vit.yaml").write_text(FILE.replace("FAMILY", "vit"), encoding="utf-8")
    return tmp_path


def trained(path: Path) -> Any:
    """The weights of a run, as search and export use them."""
    config = load_config(path / "config.yaml")
    experiment = build_experiment(config)
    with Checkpoints(path / "checkpoints", keep_last=9, keep_best=0, run=config.identity) as checkpoints:
        return jax.tree.map(np.asarray, trained_params(experiment, checkpoints))


def test_matrices_are_trained_resumed_and_merged_by_the_export(here: Path, supernest: Any) -> None:
    code, _, err = supernest("run", "ofa.yaml", "--out", "run", "--quiet")
    assert code == 0, err
    params = trained(here / "run")
    matrix = params["stage_0"]["rest"]["depthwise"]["7to5"]
    assert matrix.shape == (1, 25, 25)
    assert 0 < np.abs(matrix - np.eye(25)).max() < 0.5

    shutil.copytree(here / "run" / "checkpoints", here / "cut" / "checkpoints")
    for name in ("config.yaml", "run.json"):
        shutil.copyfile(here / "run" / name, here / "cut" / name)
    shutil.rmtree(here / "cut" / "checkpoints" / "step_00000016")
    code, _, err = supernest("train", "ofa.yaml", "--out", "cut", "--quiet")
    assert code == 0, err
    jax.tree.map(np.testing.assert_array_equal, trained(here / "cut"), params)

    for directory in (here / "run" / "subnets").iterdir():
        assert json.loads((directory / "report.json").read_text())["parity_error"] <= 1e-4
        names = load_file(directory / "weights.safetensors")
        assert names
        assert not any("to" in name.rsplit(".", 1)[-1] for name in names)
        assert load_subnet(directory).predict(np.zeros((1, 8, 8, 1), np.uint8)).shape[0] == 1


def test_a_family_without_kernels_is_refused(here: Path, supernest: Any) -> None:
    code, _, err = supernest("check", "vit.yaml")
    assert code == 2
    assert err.count("\n") == 1
    assert "supernet.sharing: kernel_transform is for kernels of several sizes, and family vit has none" in err
