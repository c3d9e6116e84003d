"""Variants trained on real Ray workers are those of one process; a killed worker's goes on."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import supernest as sn
from tests.experiments.distributed.runs import PATIENCE, titled, wait_until

pytestmark = pytest.mark.ray

SECTIONS: dict[str, Any] = {
    "name": "variants",
    "data": {"train_limit": 120},
    "space": {"family": "vit", "preset": "small", "depth": [1], "width": [8], "heads": [1], "mlp_ratio": [1.0, 2.0]},
    "train": {
        "steps": 4, "batch_size": 24, "optimizer": {"type": "sgd", "learning_rate": 0.1, "warmup_steps": 1},
        "checkpoint_every": 2, "evaluate_every": 4, "diagnose_every": None,
    },
    "search": {"type": "random", "evaluations": 2},
    "export": {"stablehlo": False},
}  # fmt: skip
NAMES = ("plain", "other", "fast")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("variants")
    sn.Experiment(**SECTIONS).run(directory / "run", progress=False)
    entries = [{"name": "plain"}, {"name": "other", "seed": 1}, {"name": "fast", "learning_rate": 0.2, "steps": 8}]
    (directory / "variants.yaml").write_text(yaml.safe_dump(entries))
    return directory


def begun(home: Path, out: str, *settings: str) -> subprocess.Popen:
    arguments = [
        "finetune", "run/subnets/full", "--variants", "variants.yaml", "--out", out, "--steps", "6",
        "--learning-rate", "0.05", "--quiet", *settings,
    ]  # fmt: skip
    return subprocess.Popen([sys.executable, "-m", "experiments", *arguments], cwd=home, stderr=subprocess.PIPE)


def finished(process: subprocess.Popen) -> None:
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error


def test_variants_are_those_of_one_process_also_when_a_worker_is_killed(home: Path) -> None:
    finished(begun(home, "alone"))
    process = begun(home, "ray", "--set", "ray={workers: 2, max_failures: 4}")
    wait_until(lambda: any((home / "ray").glob("*/manifest.json")) or len(titled("Resident", process)) == 2, process)
    titled("Resident", process)[0].send_signal(signal.SIGKILL)
    finished(process)
    assert not (home / ".variants").exists()
    for name in NAMES:
        alone, ray = ((home / out / name / "weights.safetensors").read_bytes() for out in ("alone", "ray"))
        assert alone == ray


def test_of_variants_that_may_stop_early_each_must_beat_the_best_of_those_before_its_wave(home: Path) -> None:
    """Two workers, so the second variant does not know of the first; the third, which hardly learns, knows of both."""
    entries = [{"name": "first", "learning_rate": 0.1}, {"name": "second", "seed": 1}, {"name": "third", "seed": 2}]
    entries = [{"learning_rate": 1e-6, **entry} for entry in entries]
    (home / "waves.yaml").write_text(yaml.safe_dump(entries))
    found = {}
    for out, ray in (("one_by_one", "ray=null"), ("waves", "ray={workers: 2}")):
        rule = "finetune.early_stopping={evaluations: 6, tolerance: 0.999}"
        finished(begun(home, out, "--variants", "waves.yaml", "--set", ray, "--set", rule))
        reports = [json.loads((home / out / entry["name"] / "report.json").read_text()) for entry in entries]
        found[out] = [report["finetuned"] for report in reports]
    assert [one["steps"] for one in found["waves"]] == [3, 3, 3]  # after the third of six evaluations
    assert [one["stopped"]["rival"] for one in found["one_by_one"]] == [None, "first", "first"]
    assert [one["stopped"]["rival"] for one in found["waves"]] == [None, None, "first"]
    for entry in entries:
        alone, ray = ((home / out / entry["name"] / "weights.safetensors").read_bytes() for out in found)
        assert alone == ray
