"""Runs that use a real Ray: started as a user starts them, watched while they run, and what is left when they end."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.storage.checkpoints import Checkpoints
from experiments.training.stage import initial, train_step

_before: dict[int, set[str]] = {}  # what lay in shared memory when a run was started
_GRACE = 10  # seconds for processes that have been told to go

PATIENCE = 600  # seconds; far more than anything here takes, also on a machine that has other work


def start(stage: str, config: Path, out: Path, *settings: str, inherited: Sequence[int] = ()) -> subprocess.Popen:
    """A stage, as a user starts it, which inherits open files."""
    command = [sys.executable, "-m", "experiments", stage, str(config), "--out", str(out), "--quiet"]
    for setting in settings:
        command += ["--set", setting]
    shared = _shared()
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=inherited)
    _before[run.pid] = shared
    return run


def finish(run: subprocess.Popen, code: int = 0) -> str:
    """What a run said on its way; nothing of it is left when it has ended."""
    below, until = set[psutil.Process](), time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(psutil.NoSuchProcess):
            below |= set(psutil.Process(run.pid).children(recursive=True))
        try:
            out, error = run.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            assert time.monotonic() < until
    assert run.returncode == code, out + error
    assert not (left := left_of(below, _GRACE)), left
    assert not _shared() - _before[run.pid]
    assert not list(Path("/tmp").glob(f"supernest-ray-{run.pid}-*"))
    return error


def left_of(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those of some processes that still run after so long at most."""
    until = time.monotonic() + seconds
    while True:
        left = [one for one in processes if _runs(one)]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.1)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _shared() -> set[str]:
    """Names in shared memory; a file without one, as of Ray's object store, goes with its processes."""
    return {path.name for path in Path("/dev/shm").iterdir()}


def said(run: subprocess.Popen) -> str:
    """The next line that a run says on its way."""
    assert run.stderr is not None
    return run.stderr.readline()


def kill_driver(run: subprocess.Popen) -> None:
    """Kills a run's own process; all that it has started ends by itself."""
    below = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.communicate()
    # Two agents of Ray look for its server for a minute before they go.
    assert not (left := left_of(below, 120)), left
    assert not _shared() - _before[run.pid]


def wait_until(happened: Callable[[], object], run: subprocess.Popen) -> None:
    """Waits while a run goes on."""
    until = time.monotonic() + PATIENCE
    while not happened():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def titled(title: str, top: subprocess.Popen | None = None) -> list[psutil.Process]:
    """The processes with a word in their title, such as TrainWorker or Resident; below a run, or anywhere."""
    found = []
    for process in psutil.process_iter() if top is None else psutil.Process(top.pid).children(recursive=True):
        try:
            if title in " ".join(process.cmdline()[:1]):
                found.append(process)
        except psutil.Error:
            continue
    return sorted(found, key=lambda process: process.pid)


def listening(run: subprocess.Popen) -> set[str]:
    """The addresses on which a run and all below it listen."""
    found = set()
    for process in [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]:
        try:
            sockets = process.net_connections("inet")
        except psutil.Error:
            continue
        found |= {one.laddr.ip.removeprefix("::ffff:") for one in sockets if one.status == psutil.CONN_LISTEN}
    return found


def last_step(out: Path) -> int:
    """The step of the last checkpoint of a run; -1 where there is none."""
    return max((int(path.name.removeprefix("step_")) for path in out.glob("checkpoints/step_*")), default=-1)


def archived(out: Path) -> int:
    """How many candidates are in the archive of a run."""
    path = out / "search" / "archive.jsonl"
    return path.read_bytes().count(b"\n") - 1 if path.exists() else -1


def state_of(config: Path, out: Path, *settings: str) -> tuple[int, Any]:
    """The last checkpoint of a run."""
    experiment = build_experiment(load_config(config, settings))
    with Checkpoints(out / "checkpoints") as checkpoints:
        return checkpoints.restore(initial(experiment, train_step(experiment)))
