"""Search and panels on real Ray actors: the same results as in one process, whatever dies."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.distributed.pool import Pool
from search_spaces import UserError
from tests.experiments.distributed.runs import (
    PATIENCE,
    archived,
    finish,
    kill_driver,
    listening,
    start,
    titled,
    wait_until,
)

pytestmark = pytest.mark.ray

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
    wait_until(lambda: archived(out) > 0, run)
    assert listening(run) == {"127.0.0.1"}
    killed = titled("Resident", run)
    assert len(killed) == 2
    killed[0].send_signal(signal.SIGKILL)
    finish(run)
    assert archive(out) == archive(in_one_process)


def test_a_killed_driver_leaves_nothing_and_the_same_command_goes_on(config, trained, in_one_process, tmp_path):
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    run = start("search", config, out, _ON_RAY)
    wait_until(lambda: archived(out) >= 0, run)
    kill_driver(run)
    finish(start("search", config, out, _ON_RAY))
    assert archive(out) == archive(in_one_process)


def test_more_deaths_than_allowed_are_said_and_nothing_is_lost(config, trained, in_one_process, tmp_path):
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    run = start("search", config, out, "ray={workers: 2, max_failures: 0}")
    wait_until(lambda: archived(out) > 0, run)
    for actor in titled("Resident", run):
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


def test_what_an_actor_cannot_hold_is_said_in_its_own_words(capsys):
    class Refused(Exception):
        cause = UserError("data.path: gone. Put it there.")

    def get(_):
        raise Refused

    fake: Any = SimpleNamespace(get=get, exceptions=SimpleNamespace(RayTaskError=Refused))
    actor = SimpleNamespace(ready=SimpleNamespace(remote=lambda: None))
    with pytest.raises(UserError, match=r"^data.path: gone\. Put it there\.$"):
        Pool(fake, [actor, actor], 2)
    assert not capsys.readouterr().err


def test_batches_in_flight_give_the_archive_of_one_process(config, tmp_path):
    asynchronous = "search={type: random, evaluations: 40, batch: 5, in_flight: 3}"
    finish(start("train", config, tmp_path / "trained", asynchronous))
    for name, settings in (("alone", ()), ("ray", (_ON_RAY,))):
        out = Path(shutil.copytree(tmp_path / "trained", tmp_path / name))
        finish(start("search", config, out, asynchronous, *settings))
    assert archive(tmp_path / "ray") == archive(tmp_path / "alone")


def test_a_finished_panel_starts_no_ray(config, trained, tmp_path):
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    finish(start("rank", config, out))
    finish(start("rank", config, out, "ray={address: '127.0.0.1:9'}"))


def test_a_profile_is_of_the_workers_device(config, tmp_path):
    command = [sys.executable, "-m", "experiments", "profile", str(config), "--out", "node.json", "--quiet", "--json"]
    command += ["--networks", "10", "--held-out", "3", "--repeats", "2", "--batch-sizes", "2"]
    for settings in (["--set", "ray={workers: 1}"], ["--set", "ray={workers: 2}"]):  # the second finds all measured
        run = subprocess.run([*command, *settings], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
        assert run.returncode == 0, run.stderr
    device = json.loads((tmp_path / "node.json").read_text())
    assert device["device"]["cores"] == 1
    assert device["tables"][0]["held_out"]["networks"] == 3
    assert len((tmp_path / "node.measurements.jsonl").read_text().splitlines()) == 1 + 13
    alone = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert alone.returncode == 2
    assert "measurements of two devices are never mixed" in alone.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"node.json", "node.measurements.jsonl"}
