"""`supernest submit` to a real Ray on loopback: packed, followed, left alone, followed again, stopped."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from experiments.pipeline import jobs as submit
from search_spaces import UserError

pytestmark = pytest.mark.ray

_PATIENCE = 300
# The job's command is found beside the Python of the cluster; a token is asked for with every call.
_ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
EXPERIMENT = """\
plugins: [my_source]
data: {source: my_noise, amount: 60}
space: {family: vit, preset: small, width: [8], depth: [1], heads: [1, 2], mlp_ratio: [1.0], head_dim: 8}
sampler: {type: uniform}
train: {steps: %d, batch_size: 10, optimizer: {type: sgd, learning_rate: 0.1, warmup_steps: 2}}
search: {type: random, evaluations: 2}
"""
PLUGIN = '''\
"""Noise with labels."""

from dataclasses import dataclass

import numpy as np

from experiments.data import SOURCES
from experiments.data.digits import Digits


@SOURCES.register("my_noise")
@dataclass(frozen=True)
class MyNoise(Digits):
    """The digits under another name."""

    amount: int = 0
'''


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def dashboard():
    """Address of the dashboard of a head with one core."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ray-head-", dir="/tmp") as scratch:
        ray = str(Path(sys.executable).parent / "ray")
        command = [
            ray, "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}",
            "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}",
            # The agent's own port is 52365 otherwise, which another Ray on this machine may have.
            f"--dashboard-agent-listen-port={free_port()}",
            "--object-store-memory=134217728", f"--temp-dir={scratch}", "--disable-usage-stats",
        ]  # fmt: skip
        head = subprocess.Popen(command, env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{port}"
        version = urllib.request.Request(f"{address}/api/version")
        version.add_header("Authorization", f"Bearer {_ENVIRONMENT['RAY_AUTH_TOKEN']}")
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                with urllib.request.urlopen(version, timeout=2):
                    break
            except OSError:
                assert head.poll() is None
                assert time.monotonic() < end
                time.sleep(0.5)
        yield address
        below = psutil.Process(head.pid).children(recursive=True)
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=60)
        for process in psutil.wait_procs(below, timeout=30)[1]:
            process.kill()


def supernest(*arguments: str, cwd: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments", *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=_ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def write(directory: Path, steps: int) -> None:
    (directory / "e.yaml").write_text(EXPERIMENT % steps)
    (directory / "my_source.py").write_text(PLUGIN)


def test_a_job_is_packed_with_its_plugin_followed_and_attached_to(dashboard, tmp_path):
    write(tmp_path, 4)
    out = tmp_path / "shared" / "run"
    job = supernest("submit", "e.yaml", "--stage", "train", "--out", str(out), "--address", dashboard, cwd=tmp_path)
    printed, error = job.communicate(timeout=_PATIENCE)
    assert job.returncode == 0, printed + error
    assert list((out / "checkpoints").glob("step_*4"))
    assert str(out / "summary.json") in printed
    name = printed.split(":", 1)[0]
    again = supernest("submit", "--attach", name, "--address", dashboard, cwd=tmp_path)
    printed, error = again.communicate(timeout=_PATIENCE)
    assert again.returncode == 0, printed + error
    assert str(out / "summary.json") in printed
    assert error.splitlines()[-1] == f"{name}: SUCCEEDED"


def test_a_detached_job_is_stopped_and_saves_a_checkpoint(dashboard, tmp_path):
    write(tmp_path, 1_000_000)
    out = tmp_path / "shared" / "run"
    job = supernest(
        "submit", "e.yaml", "--out", str(out), "--address", dashboard, "--detach",
        "--set", "train.checkpoint_every=1000000", cwd=tmp_path,
    )  # fmt: skip
    name, error = job.communicate(timeout=_PATIENCE)
    assert job.returncode == 0, name + error
    end = time.monotonic() + _PATIENCE
    while not list((out / "tensorboard" / "train").glob("events.*")):
        assert time.monotonic() < end
        time.sleep(0.1)
    stopped = supernest("submit", "--stop", name.strip(), "--address", dashboard, cwd=tmp_path)
    _, error = stopped.communicate(timeout=_PATIENCE)
    assert stopped.returncode == 0, error
    again = supernest("submit", "--attach", name.strip(), "--address", dashboard, cwd=tmp_path)
    printed, error = again.communicate(timeout=_PATIENCE)
    assert again.returncode == 1, printed + error
    assert error.splitlines()[-1].endswith("STOPPED")
    assert "a checkpoint of it is saved. The same command resumes it." in printed
    assert list((out / "checkpoints").glob("step_*"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("e.yaml",), "--out: missing"),
        (("e.yaml", "--out", "runs/x"), "--out: runs/x is not absolute"),
        (("e.yaml", "--out", "/x", "--set", "ray.workers=3"), "e.yaml: train.batch_size: 10 rows do not divide into 3"),
        (("e.yaml", "--attach", "x"), "submit: CONFIG and --attach. Give one of CONFIG, --attach JOB, --stop JOB."),
        ((), "submit: nothing to do"),
        (("--attach", "nobody"), "--attach: nobody is no job of"),
    ],
)
def test_what_cannot_be_submitted_is_one_line(dashboard, tmp_path, arguments, expected):
    write(tmp_path, 4)
    job = supernest("submit", *arguments, "--address", dashboard, cwd=tmp_path)
    _, error = job.communicate(timeout=_PATIENCE)
    assert job.returncode == 2, error
    assert expected in error.splitlines()[-1]


@pytest.mark.parametrize("mute", [False, True], ids=["nobody", "somebody mute"])
def test_a_dashboard_that_does_not_answer_is_one_line(tmp_path, mute):
    write(tmp_path, 4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1] if mute else free_port()}"
        began = time.monotonic()
        job = supernest("submit", "e.yaml", "--out", str(tmp_path), "--address", address, cwd=tmp_path)
        _, error = job.communicate(timeout=_PATIENCE)
    assert job.returncode == 2, error
    assert error.splitlines()[-1].startswith(f"error: --address: {address}: ")
    assert error.splitlines()[-1].endswith("kubectl port-forward).")
    assert time.monotonic() - began < 30


def test_a_starting_cluster_is_waited_for_and_a_refusal_is_one_line(monkeypatch):
    answers = [RuntimeError("500: No available agent to submit job"), "raysubmit_1", RuntimeError("500: no\nroom")]

    def answer(**_):
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(submit.time, "sleep", lambda _: None)
    assert submit._when_ready("http://head", answer) == "raysubmit_1"
    with pytest.raises(UserError, match=r"^--address: http://head: 500: no room\. Nothing was started\.$"):
        submit._when_ready("http://head", answer)
