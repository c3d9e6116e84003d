"""Examples a second of two Ray workers of one core each, against one worker of one core; and what an all-reduce takes.

Command: `python -m experiments.benchmarks.scaling --set data.path=PATH --json`

Real Ray processes on loopback. One and two workers train in turn; a run has as many cores as it has workers, and all of
its processes share them. The figures are medians over the later half of each run, so compilation does not count.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from experiments.benchmarks.output import show

_FIGURES = ("train/examples_per_second", "workers/allreduce_share", "workers/balance")
_SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
_TIMES = 10


@click.command()
@click.option("--config", default="experiments/fashion_mnist_vit.yaml", show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
@click.option("--steps", default=100, show_default=True, help="Of each run.")
@click.option("--rounds", default=2, show_default=True, help="Runs of each number of workers, in turn.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(config: str, overrides: Sequence[str], steps: int, rounds: int, as_json: bool) -> None:
    """Runs the benchmark."""
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds):
            for workers, runs in found.items():
                out = Path(scratch, f"{workers}-{number}")
                _train(config, overrides, workers, steps, out, Path(scratch, "cache"))
                runs.append(_medians(out / "tensorboard" / "train"))
    rates = {workers: [run["train/examples_per_second"] for run in runs] for workers, runs in found.items()}
    figures: dict[str, Any] = {
        "speedup": median(two / one for one, two in zip(rates[1], rates[2], strict=True)),
        "allreduce_share": median(run["workers/allreduce_share"] for run in found[2]),
        "balance": median(run["workers/balance"] for run in found[2]),
        "examples_per_second": {str(workers): list(map(round, values)) for workers, values in rates.items()},
        "allreduce_seconds": _all_reduce_seconds(),
    }
    show(figures, as_json)


def _train(config: str, overrides: Sequence[str], workers: int, steps: int, out: Path, cache: Path) -> None:
    settings = [
        f"ray.workers={workers}", f"train.steps={steps}", "train.log_every=5", "train.optimizer.warmup_steps=0",
        f"train.checkpoint_every={steps}", f"train.evaluate_every={steps}", "train.diagnose_every=null",
    ]  # fmt: skip
    command = [sys.executable, "-m", "experiments", "train", config, "--out", str(out), "--quiet"]
    for setting in (*overrides, *settings):
        command += ["--set", setting]
    cores = sorted(os.sched_getaffinity(0))[:workers]
    subprocess.run(
        command,
        check=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )


def _medians(directory: Path) -> dict[str, float]:
    """Of each figure, over the later half of its entries."""
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
    """Median seconds of a sum of so many numbers over two processes of one core each, by their number."""
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
    """Runs in each of the two processes: prints the medians."""
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
