"""Measures the time from no file to an eight-bit ONNX network under a latency limit, and its latency and accuracy.

Command: `python -m experiments.benchmarks.from_nothing --data PATH --json`; PATH holds Fashion-MNIST's four idx files.

Three commands are timed: `profile` of ONNX files on one thread with one image at a time; `run`, which trains a supernet
of `experiments/fashion_mnist_vit.yaml` and searches it under the latency limit; and `export --format onnx --quantize
int8`. The float file and the eight-bit file are then run in turn. A latency is the mean of the best third of the
rounds; each round is a few milliseconds of calls. Accuracies are those of the test split.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import onnx

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option, set_option
from search_spaces.sealed_json import JsonObject
from supernet.onnx.runtime import session

_EXPERIMENT = Path(__file__).resolve().parents[1] / "fashion_mnist_vit.yaml"
_ROUNDS, _SAMPLE_SECONDS = 60, 0.004


@click.command(cls=Benchmark)
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="Directory of the four idx files of Fashion-MNIST.",
)
@click.option(
    "--latency-ms", default=0.3, show_default=True, help="Latency limit of the float network in milliseconds."
)
@click.option(
    "--networks", default=60, show_default=True, help="Number of networks that the latency predictions are fitted to."
)
@click.option(
    "--held-out", default=30, show_default=True, help="Number of other networks that the predictions are tested on."
)
@click.option("--max-loss", default=1.0, show_default=True, help="Most points of accuracy that eight bits may lose.")
@set_option
@json_option
def main(
    data: Path,
    latency_ms: float,
    networks: int,
    held_out: int,
    max_loss: float,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Runs the commands and measures the networks that they write."""
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        common = ["--set", f"data.path={data.resolve()}", *(part for one in overrides for part in ("--set", one))]
        device = f"{{path: {here / 'device.json'}, min_tau: 0}}"
        budget = f"budgets={{shipped: {{latency_ms: {latency_ms}}}}}"
        commands = {
            "profile": ["profile", str(_EXPERIMENT), *common, "--runtime", "onnxruntime", "--threads", "1",
                        "--batch-sizes", "1", "--networks", str(networks), "--held-out", str(held_out),
                        "--out", str(here / "device.json")],
            "run": ["run", str(_EXPERIMENT), *common, "--set", f"device={device}", "--set", budget,
                    "--out", str(here / "run")],
            "export": ["export", str(here / "run"), "--format", "onnx", "--batch", "1"],
            "quantize": ["export", str(here / "run"), "--format", "onnx", "--batch", "1", "--quantize", "int8",
                         "--max-loss", str(max_loss)],
        }  # fmt: skip
        seconds = {name: _timed(command) for name, command in commands.items()}
        show({"seconds": round(sum(seconds.values())), "seconds_of": seconds, **_measured(here)}, as_json)


def _timed(command: list[str]) -> float:
    start = time.monotonic()
    if subprocess.run([sys.executable, "-m", "experiments", *command], stdout=sys.stderr).returncode:
        raise SystemExit(f"supernest {command[0]} failed; what it said is above.")
    return round(time.monotonic() - start, 1)


def _measured(here: Path) -> JsonObject:
    files = {"float32": here / "run/onnx/shipped", "int8": here / "run/onnx/shipped.int8"}
    report = json.loads((files["int8"] / "report.json").read_text("utf-8"))
    loaded = {name: session(onnx.load(path / "network.onnx"), threads=1) for name, path in files.items()}
    given = loaded["int8"].get_inputs()[0]
    image = {given.name: np.zeros(given.shape, np.uint8)}
    calls, taken = {}, {name: [] for name in loaded}
    for name, one in loaded.items():
        start = time.perf_counter()
        for _ in range(20):
            one.run(None, image)
        calls[name] = max(1, int(_SAMPLE_SECONDS * 20 / (time.perf_counter() - start)))
    for _ in range(_ROUNDS):
        for name, one in loaded.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                one.run(None, image)
            taken[name].append(1000 * (time.perf_counter() - start) / calls[name])
    latency = {name: round(float(np.mean(np.sort(times)[: _ROUNDS // 3])), 4) for name, times in taken.items()}
    accuracy = {name: report["quantization"]["test"][name] for name in loaded}
    cut = json.loads((here / "run/subnets/shipped/report.json").read_text("utf-8"))
    return {"latency_ms": latency, "test": accuracy, "costs": cut["costs"]}


if __name__ == "__main__":
    main()
