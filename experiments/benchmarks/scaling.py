"""Compares two Ray workers of one core each with one: examples and candidates a second; and times an all-reduce.

Command: `python -m experiments.benchmarks.scaling --set data.path=PATH --json`

Ray processes run on the loopback interface. Three settings take turns: one worker and all other processes of the run on
one core; one worker on a core of its own, with the other processes on a second core; and two workers that share two
cores with the other processes. Each setting trains, and then searches the trained weights. Figures are medians over the
second half of a training, and the rate of the second half of a search, so compilation does not count. `speedup`
compares the third setting with the first (one core a worker in both); `speedup_over_helped` compares it with the
second.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import click

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option, set_option
from experiments.storage.event_records import Event
from search.archive import times_path

_FIGURES = ("train/examples_per_second", "workers/allreduce_share", "workers/balance")
_SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
_TIMES = 10
_SETTINGS = {"one": (1, 1), "helped": (1, 2), "two": (2, 2)}  # workers and cores


@click.command(cls=Benchmark)
@click.option("--config", default="experiments/fashion_mnist_vit.yaml", show_default=True)
@set_option
@click.option("--steps", default=100, show_default=True, help="Number of training steps in each run.")
@click.option("--rounds", default=2, show_default=True, help="Number of runs for each number of workers, in turn.")
@click.option(
    "--candidates", default=400, show_default=True, help="Number of candidates in each search; 0 skips the search."
)
@json_option
def main(config: str, overrides: Sequence[str], steps: int, rounds: int, candidates: int, as_json: bool) -> None:
    """Runs the benchmark."""
    trained: dict[str, list[dict[str, float]]] = {name: [] for name in _SETTINGS}
    searched: dict[str, list[float]] = {name: [] for name in _SETTINGS}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds):
            for name, (workers, cores) in _SETTINGS.items():
                out = Path(scratch, f"{name}-{number}")
                settings = [*overrides, f"ray.workers={workers}", *_training(steps), *_searching(candidates)]
                _run("train", config, settings, cores, out, Path(scratch, "cache"))
                trained[name].append(_medians(out / "tensorboard" / "train"))
                if candidates:
                    _run("search", config, settings, cores, out, Path(scratch, "cache"))
                    searched[name].append(_rate(times_path(out / "search" / "archive.jsonl")))
    rates = {name: [run["train/examples_per_second"] for run in runs] for name, runs in trained.items()}
    figures = {
        "speedup": _ratio(rates["two"], rates["one"]),
        "speedup_over_helped": _ratio(rates["two"], rates["helped"]),
        "search_speedup": _ratio(searched["two"], searched["one"]) if candidates else None,
        "search_speedup_over_helped": _ratio(searched["two"], searched["helped"]) if candidates else None,
        "allreduce_share": median(run["workers/allreduce_share"] for run in trained["two"]),
        "balance": median(run["workers/balance"] for run in trained["two"]),
        "examples_per_second": rates,
        "candidates_per_second": searched,
        "allreduce_seconds": _all_reduce_seconds(),
    }
    show(figures, as_json)


def _training(steps: int) -> list[str]:
    return [
        f"train.steps={steps}", "train.log_every=5", "train.optimizer.warmup_steps=0", "train.diagnose_every=null",
        f"train.checkpoint_every={steps}", f"train.evaluate_every={steps}",
    ]  # fmt: skip


def _searching(candidates: int) -> list[str]:
    """Returns settings of a search whose batches are as large as a generation of evolution."""
    return [f"search={{type: random, evaluations: {max(candidates, 1)}, batch: 50}}"]


def _run(stage: str, config: str, settings: Sequence[str], cores: int, out: Path, cache: Path) -> None:
    command = [sys.executable, "-m", "experiments", stage, config, "--out", str(out), "--quiet"]
    for setting in settings:
        command += ["--set", setting]
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    subprocess.run(
        command,
        check=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )


def _ratio(first: Sequence[float], second: Sequence[float]) -> float:
    return median(a / b for a, b in zip(first, second, strict=True))


def _rate(times: Path) -> float:
    """Returns entries a second over the second half of the batches of an archive."""
    batches = [json.loads(line) for line in times.read_text(encoding="utf-8").splitlines()]
    first, last = batches[len(batches) // 2 - 1], batches[-1]
    seconds = datetime.fromisoformat(last["time"]) - datetime.fromisoformat(first["time"])
    return (last["last"] - first["last"]) / seconds.total_seconds()


def _medians(directory: Path) -> dict[str, float]:
    """Returns the median of each figure over the second half of its entries."""
    series: dict[str, list[float]] = {name: [] for name in _FIGURES}
    for event in _events(directory):
        for value in event.summary.value:
            if value.tag in series:
                series[value.tag].append(value.simple_value)
    return {name: median(values[len(values) // 2 :]) for name, values in series.items()}


def _events(directory: Path) -> Iterator[Any]:
    for file in sorted(directory.glob("events.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):  # length, its checksum, the event, its checksum
            (length,) = struct.unpack_from("<Q", content, at)
            yield Event.FromString(content[at + 12 : at + 12 + length])
            at += length + 16


def _all_reduce_seconds() -> dict[str, float]:
    """Measures the median seconds of an all-reduce over two processes of one core each, by the number of values."""
    code = "from experiments.benchmarks.scaling import time_sums; time_sums()"
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "NPROC": "1", "JAX_PLATFORMS": "cpu", "RANK": str(rank), "PORT": str(port)},
            stdout=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    texts = [process.communicate()[0] for process in processes]
    return json.loads(texts[0].splitlines()[-1])  # Gloo prints too


def time_sums() -> None:
    """Times all-reduces in one of the two processes and prints the medians."""
    import jax

    jax.distributed.initialize(f"127.0.0.1:{os.environ['PORT']}", 2, int(os.environ["RANK"]))
    import jax.numpy as jnp

    from experiments.distributed.workers import Workers

    workers = Workers()
    found = {}
    for size in _SIZES:
        seconds = []
        for _ in range(_TIMES + 1):
            before = workers.seconds
            workers.sum(jnp.ones(size))
            seconds.append(workers.seconds - before)
        found[str(size)] = median(seconds[1:])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
