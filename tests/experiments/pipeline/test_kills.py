"""SIGKILL at random moments of training, search and export: the same command finishes, and every bit is the same."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.distributed.runs import archived, last_step

CONFIG = """
seed: 3
data: {source: digits, augmentation: {mixup: 0.2}}
space: {family: %s, preset: small, %s}
train: {steps: 32, batch_size: 32, checkpoint_every: 4, evaluate_every: 16, log_every: 5, ema: 0.9,
        distillation: {type: largest}}
search: {evaluations: 32, population: 8, batch: 4}
evaluation: {calibration_batches: 2}
budgets: {full: macs<=100%%, half: macs<=60%%, small: macs<=40%%}
"""
KILLS = int(os.environ.get("SUPERNEST_KILLS", "1"))  # of each stage and family; 20 is the whole test
FAMILIES = {
    "vit": "width: [16, 24], depth: [1, 2], head_dim: 8",
    "mobilenet": "resolution: [8], depth: [1, 2], expand: [2, 3], widths: [8, 16], strides: [2, 1], "
    "squeeze_excite: [false, true], activations: [relu, hard_swish], stem_width: 8, first_width: 8, final_width: 24, "
    "feature_width: 32",
}
STAGES = ("train", "search", "export")


def _start(config: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments", "run", str(config), "--out", str(out), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _work(stage: str, out: Path) -> int:
    """How much of a stage has been done: steps, evaluations, or exported subnets."""
    if stage == "export":
        return len(list(out.glob("subnets/*")))
    return max(0, last_step(out) if stage == "train" else archived(out))


def _outcome(out: Path) -> dict[str, bytes]:
    """Every byte that a user takes away. The archive's header holds the hash of the trained weights."""
    names = ["weights.safetensors", "architecture.json", "config.json", "report.json"]
    files = [out / "search" / name for name in ("archive.jsonl", "pareto.json", "space.json")]
    files += [*(p for name in names for p in (out / "subnets").glob(f"*/{name}"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(files)}


def _figures(out: Path) -> dict[str, Any]:
    """Returns the summary, without the names of directories, which differ, and the hash over them."""
    summary = json.loads((out / "summary.json").read_text())
    summary.pop("sha256")
    for row in summary["subnets"]:
        row["directory"] = Path(row["directory"]).name
    return summary


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_killed_run_ends_in_the_same_bits(family: str, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG % (family, FAMILIES[family]))
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    moments = random.Random(family)
    assert _start(config, undisturbed).wait() == 0
    for stage in STAGES:
        before = shutil.copytree(disturbed, tmp_path / f"before_{stage}") if disturbed.exists() else None
        done, kills = _work(stage, undisturbed), 0
        while kills < KILLS:
            process, until = _start(config, disturbed), moments.uniform(0, 0.9) * done
            while process.poll() is None and _work(stage, disturbed) < until:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.5))  # what is written then is of any moment, whole or not
            process.kill()
            kills += process.wait() == -signal.SIGKILL
            if process.returncode == 0:  # it was done already: start over, so that the next kill finds work
                shutil.rmtree(disturbed)
                if before is not None:
                    shutil.copytree(before, disturbed)
    assert _start(config, disturbed).wait() == 0
    expected = _outcome(undisturbed)
    assert len(expected) == 3 + 3 * 4
    assert _outcome(disturbed) == expected
    assert _figures(disturbed) == _figures(undisturbed)
    left = [path for path in disturbed.rglob("*") if ".tmp" in path.name]
    assert not left, left
    assert os.listdir(disturbed / "subnets")
