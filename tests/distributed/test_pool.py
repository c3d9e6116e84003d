"""Search and panels on real Ray actors: the same results as in one process, whatever dies."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.ray

_PATIENCE = 300  # seconds; far more than anything here takes on an idle machine
_ON_RAY = "ray={workers: 2, max_failures: 4}"
EXPERIMENT = """\
seed: 3
data: {train_limit: 120}
space: {family: vit, preset: small, width: [8, 16], depth: [1, 2], heads: [1, 2], mlp_ratio: [1.0, 2.0], head_dim: 8}
train: {steps: 6, batch_size: 24, optimizer: {type: sgd, learning_rate: 0.1, warmup_steps: 2}}
search: {type: evolution, evaluations: %d, population: 8}
budgets: {full: macs<=100%%, half: macs<=60%%}
rank: {panel: 4, steps: 4}
"""


def start(stage: str, config: Path, out: Path, *settings: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments", stage, str(config), "--out", str(out), "--quiet"]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, code: int = 0) -> str:
    began = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    out, error = process.communicate(timeout=_PATIENCE)
    assert process.returncode == code, out + error
    assert not [pid for pid in began if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
    assert not list(Path("/tmp").glob(f"supernest-ray-{process.pid}-*"))
    return error


def residents(process: subprocess.Popen) -> list[psutil.Process]:
    """The evaluating actors below a run."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "Resident" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "e.yaml"
    path.write_text(EXPERIMENT % 40)
    return path


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Path:
    """A trained run without a search."""
    out = tmp_path_factory.mktemp("trained") / "run"
    finish(start("train", config, out))
    return out


@pytest.fixture(scope="module")
def in_one_process(config, trained, tmp_path_factory) -> Path:
    out = Path(shutil.copytree(trained, tmp_path_factory.mktemp("alone") / "run"))
    finish(start("search", config, out))
    return out


def archive(out: Path) -> bytes:
    return (out / "search" / "archive.jsonl").read_bytes()


def test_the_archive_is_that_of_one_process_also_when_an_actor_is_killed(config, trained, in_one_process, tmp_path):
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    run = start("search", config, out, _ON_RAY)
    end = time.monotonic() + _PATIENCE
    while not (out / "search" / "archive.jsonl").exists() or archive(out).count(b"\n") < 2:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    killed = residents(run)
    assert len(killed) == 2
    killed[0].send_signal(signal.SIGKILL)
    finish(run)
    assert archive(out) == archive(in_one_process)


def test_a_killed_driver_leaves_nothing_and_the_same_command_goes_on(config, trained, in_one_process, tmp_path):
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    run = start("search", config, out, _ON_RAY)
    while not (out / "search" / "archive.jsonl").exists():
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    below = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.communicate()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive
    finish(start("search", config, out, _ON_RAY))
    assert archive(out) == archive(in_one_process)


def test_more_deaths_than_allowed_are_said_and_nothing_is_lost(config, trained, in_one_process, tmp_path):
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    run = start("search", config, out, "ray={workers: 2, max_failures: 0}")
    while not (out / "search" / "archive.jsonl").exists() or archive(out).count(b"\n") < 2:
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    for actor in residents(run):
        actor.send_signal(signal.SIGKILL)
    error = finish(run, 2)
    assert "workers are left" in error.splitlines()[-1]
    assert "ray.max_failures" in error.splitlines()[-1]
    finish(start("search", config, out))
    assert archive(out) == archive(in_one_process)


def test_a_panel_is_that_of_one_process(config, trained, tmp_path):
    figures = {}
    for name, settings in (("alone", ()), ("ray", (_ON_RAY,))):
        out = Path(shutil.copytree(trained, tmp_path / name))
        finish(start("rank", config, out, *settings))
        figures[name] = json.loads((out / "summary.json").read_text())["rank"]
        panel = sorted(path.parent.name for path in (out / "rank" / "panel").glob("*/result.json"))
        assert len(panel) == 4
    assert figures["ray"] == figures["alone"]
