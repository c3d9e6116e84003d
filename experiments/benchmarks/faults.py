"""Kills workers, actors, nodes and the driver of a run on Ray at random moments; the results must stay the same.

Command: `python -m experiments.benchmarks.faults --kills 20 --json`

A cluster of a head and two nodes is started on the loopback interface of this machine, and an experiment is run on it
twice: once undisturbed, and once with repeated SIGKILLs. A kill hits a training process, an evaluating process, a node
with all its processes (another node replaces it), or the command itself. The command is started again whenever it has
ended. The kills are spread over training and search; after the last one the run may finish. Then the archives (whose
header holds the hash of the trained weights) are compared byte by byte, and the exported weights are compared too.
"""

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from safetensors.numpy import load_file
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.distributed.connect import import_ray

_CONFIG = """\
seed: 0
data: {source: digits}
space: {family: vit, preset: small, width: [16, 24], depth: [1, 2, 3], heads: [1, 2], mlp_ratio: [1.0, 2.0, 3.0],
        head_dim: 8}
sampler: {type: uniform, paths: 2}
train: {steps: %d, batch_size: 32, checkpoint_every: 20, keep_last: 2, evaluate_every: 500, ema: 0.99,
        optimizer: {type: adamw, learning_rate: 1.0e-3, warmup_steps: 20}}
search: {type: evolution, evaluations: 400, population: 20, batch: 4}
budgets: {full: macs<=100%%, half: macs<=50%%}
"""
_PROCESSES = {"worker": "TrainWorker", "actor": "Resident"}
_PATIENCE = 600.0
_TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED")


@click.command(cls=Benchmark)
@click.option("--kills", default=20, show_default=True)
@click.option("--steps", default=1500, show_default=True, help="Number of training steps.")
@click.option(
    "--between",
    default=(0.0, 3.0),
    type=(float, float),
    show_default=True,
    help="Range of the random wait between resuming and a kill, in seconds.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the choice of processes to kill and of the waits.")
@json_option
def main(kills: int, steps: int, between: tuple[float, float], seed: int, as_json: bool) -> None:
    """Runs the benchmark."""
    others = _plasma()
    with tempfile.TemporaryDirectory() as scratch, cluster() as nodes:
        config = Path(scratch) / "faults.yaml"
        config.write_text(_CONFIG % steps, encoding="utf-8")
        undisturbed, disturbed = Path(scratch) / "undisturbed", Path(scratch) / "disturbed"
        began = time.monotonic()
        _finish(_command(config, undisturbed, nodes.address))
        quiet_seconds = time.monotonic() - began
        killed, commands = _disturb(config, disturbed, nodes, kills, between, random.Random(seed))
        summary = json.loads((disturbed / "summary.json").read_text(encoding="utf-8"))
        archives = [(out / "search" / "archive.jsonl").read_bytes() for out in (undisturbed, disturbed)]
        equal, difference = archives[0] == archives[1], _difference(undisturbed, disturbed)
        seconds = time.monotonic() - began - quiet_seconds
    figures = {
        "kills": sum(killed.values()),
        "killed": dict(killed),
        "commands": commands,
        "evaluated": summary["search"]["evaluated"],
        "archive_bytes_equal": equal,
        "largest_weight_difference": difference,
        "seconds_undisturbed": quiet_seconds,
        "seconds_disturbed": seconds,
        "left_in_shared_memory": len(_plasma() - others),
    }
    show(figures, as_json)
    if not equal or difference > 0:
        sys.exit(1)


class Nodes:
    """A cluster of a head without cores and nodes of one core each, on loopback.

    Attributes:
        address: Address of the head.
    """

    def __init__(self, made: Any) -> None:
        self._made = made
        self.address: str = made.address
        self._nodes: list[Any] = []
        for _ in range(2):
            self.add()

    def add(self, **options: Any) -> None:
        """Adds a node; options as those of `ray.cluster_utils.Cluster.add_node`."""
        own = {"num_cpus": 1, "object_store_memory": 128 << 20, "node_ip_address": "127.0.0.1"}
        self._nodes.append(self._made.add_node(**own, **options))

    def titled(self, title: str) -> list[psutil.Process]:
        """Returns the processes of these nodes whose title contains a word."""
        below = (process for node in self._nodes for process in _raylet(node).children(recursive=True))
        return [process for process in below if title in _title(process)]

    def remove_one(self, which: int = 0) -> None:
        """Kills a node with all of its processes."""
        node = self._nodes.pop(which)
        raylet = _raylet(node)
        for process in [raylet, *raylet.children(recursive=True)]:
            _kill(process)
        self._made.remove_node(node, allow_graceful=False)

    @contextmanager
    def another(self, **options: Any) -> Iterator[None]:
        """Adds a node for the duration of the context."""
        self.add(**options)
        try:
            yield
        finally:
            self.remove_one(-1)


@contextmanager
def cluster() -> Iterator[Nodes]:
    """Starts a cluster for the duration of the context; processes started meanwhile know its token."""
    if "ray" in sys.modules:
        raise RuntimeError("Ray was imported before its token was made: it would not show it to the cluster")
    before = {name: os.environ.get(name) for name in _TOKEN}
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_USAGE_STATS_ENABLED="0")
    import_ray(loopback=True)
    from ray.cluster_utils import Cluster

    here = {"node_ip_address": "127.0.0.1", "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 128 << 20, **here})
    try:
        yield Nodes(made)
    finally:
        made.shutdown()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _disturb(
    config: Path, out: Path, nodes: Nodes, kills: int, between: tuple[float, float], which: random.Random
) -> tuple[Counter[str], int]:
    """Runs with kills until the run has ended; returns the kills by kind and the number of commands."""
    killed: Counter[str] = Counter()
    run, commands = _command(config, out, nodes.address), 1
    with tqdm(total=kills, desc="kills", disable=None) as bar:
        while sum(killed.values()) < kills:
            # Every fourth strike comes while the run still recovers from the last, the others when it goes on again.
            before, hasty = _progress(out), which.random() < 1 / 4
            while run.poll() is None and not hasty and _progress(out) == before:
                time.sleep(0.05)
            while run.poll() is None and sum(killed.values()) >= kills // 2 and not _progress(out)[1]:
                time.sleep(0.05)  # the other half is for the search
            until = time.monotonic() + which.uniform(*between)
            while time.monotonic() < until and run.poll() is None:
                time.sleep(0.05)
            if run.poll() == 0:
                raise SystemExit(f"the run ended after {sum(killed.values())} kills; the search is too short for more")
            if run.poll() is None:
                victim = _strike(run, nodes, which)
                if victim:
                    killed[victim] += 1
                    bar.update()
                bar.set_postfix(dict(killed))
            if run.poll() is not None:
                run.communicate()
                run, commands = _command(config, out, nodes.address), commands + 1
        while True:
            _, error = run.communicate(timeout=_PATIENCE)
            if run.returncode == 0:
                return killed, commands
            if run.returncode not in (2, -signal.SIGKILL) or commands > 3 * kills:
                raise SystemExit(f"the run ended with {run.returncode}: {error[-2000:]}")
            run, commands = _command(config, out, nodes.address), commands + 1


def _progress(out: Path) -> tuple[set[str], int]:
    """Returns the names of the checkpoints and the size of the archive in bytes."""
    archive = out / "search" / "archive.jsonl"
    return {path.name for path in out.glob("checkpoints/step_*")}, archive.stat().st_size if archive.exists() else 0


def _strike(run: subprocess.Popen, nodes: Nodes, which: random.Random) -> str:
    """Kills a random victim and returns its kind; returns nothing if there was none."""
    kind = which.choice(["worker", "worker", "actor", "actor", "node", "driver"])
    if kind == "driver":
        run.kill()
        run.wait()
        return kind
    if kind == "node":
        nodes.remove_one(which.randrange(2))
        nodes.add()
        return kind
    found = nodes.titled(_PROCESSES[kind])
    if not found:
        return ""
    _kill(which.choice(found))
    return kind


def _raylet(node: Any) -> psutil.Process:
    """Returns the raylet of a node, which has started all its other processes."""
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


def _plasma() -> set[Path]:
    """Returns the files of object stores in shared memory."""
    return set(Path("/dev/shm").glob("plasma*"))


def _kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return


def _command(config: Path, out: Path, address: str) -> subprocess.Popen:
    command = [
        sys.executable, "-m", "experiments", "run", str(config), "--out", str(out), "--quiet",
        "--set", f"ray={{address: '{address}', workers: 2, max_failures: 3}}",
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finish(run: subprocess.Popen) -> None:
    _, error = run.communicate(timeout=_PATIENCE)
    if run.returncode:
        raise SystemExit(f"the undisturbed run ended with {run.returncode}: {error[-2000:]}")


def _difference(first: Path, second: Path) -> float:
    """Returns the largest difference between the exported weights of two runs."""
    largest = 0.0
    for path in (first / "subnets").glob("*/weights.safetensors"):
        weights = [load_file(out / path.relative_to(first)) for out in (first, second)]
        largest = max(largest, *(float(np.abs(weights[0][name] - weights[1][name]).max()) for name in weights[0]))
    return largest


if __name__ == "__main__":
    main()
