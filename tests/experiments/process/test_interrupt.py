"""Ctrl-C once, twice and in a notebook: it is heard, nothing is lost, and no library has the last word."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.process.interrupt import stop_on_signals

REPOSITORY = Path(__file__).resolve().parents[3]
YAML = """\
space: {family: vit, preset: small, width: [16], depth: [1]}
train: {steps: 100000, batch_size: 8, checkpoint_every: 20, evaluate_every: 100000, diagnose_every: null}
"""


@pytest.mark.parametrize("presses", [1, 2, 3])
def test_ctrl_c_is_heard_and_leaves_what_the_same_command_resumes(tmp_path: Path, presses: int) -> None:
    (tmp_path / "e.yaml").write_text(YAML, "utf-8")
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments", "train", "e.yaml", "--out", "run"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 300
    while not list(run.glob("checkpoints/step_*")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    lines = [line for line in error.splitlines() if line.strip()]
    assert lines[0].startswith("stopping: saves at the next safe point first.")
    assert all(line.startswith(("stopping: ", "leaving at once", "stopped ")) for line in lines), error
    if presses == 1:
        assert lines[-1].startswith("stopped ")
        assert lines[-1].endswith("The same command resumes it.")
    assert list(run.glob("checkpoints/step_*"))


def test_in_a_notebook_the_second_press_is_pythons_own() -> None:
    def press_twice() -> None:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in its background
    try:
        with pytest.raises(KeyboardInterrupt):
            press_twice()
    finally:
        signal.signal(signal.SIGINT, before)
