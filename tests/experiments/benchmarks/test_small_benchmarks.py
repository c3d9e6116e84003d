"""Benchmarks in small: real products, real steps, real processes."""

import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import psutil
import pytest
from click.testing import CliRunner

from experiments.benchmarks import (
    correlations,
    evolution_strategy,
    faults,
    growth,
    products,
    rematerialization,
    sampling_cost,
    start,
)
from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from search_spaces import build_space


@pytest.mark.filterwarnings("ignore:Error writing persistent compilation cache entry for 'jit__onednn'")
def test_products_of_every_library_come_out_right_and_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_SHAPES", {"small": (300, 200, 100)})
    found = products.measure(1)
    assert found.keys() == {"small"}
    assert found["small"].keys() == {"forward", "input_gradient", "weight_gradient"}
    for of in found["small"].values():
        assert {"xla_gmacs_per_second", "torch_gmacs_per_second"} <= of.keys()
        assert all(float(rate) > 0 for name, rate in of.items() if name.endswith("_gmacs_per_second"))


def test_a_library_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_SHAPES", {"small": (60, 40, 20)})
    monkeypatch.setattr(products, "_xla", lambda a, b, turn_a, turn_b: products.jnp.zeros((60, 20)))
    with pytest.raises(SystemExit, match="xla: the product comes out wrong"):
        products.measure(1)


def test_why_a_library_was_not_timed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: Any, **turned: Any) -> Any:
        raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: no such call\nmore of it")

    monkeypatch.setattr(products, "_SHAPES", {"small": (60, 40, 20)})
    monkeypatch.setattr(products, "_onednn", unknown)
    for of in products.measure(1)["small"].values():
        assert of["onednn_error"] == "UNIMPLEMENTED: no such call"
        assert "onednn_gmacs_per_second" not in of


def test_growth_times_each_value_of_a_setting() -> None:
    base = {"layers": 1, "width": 16, "choices": 2, "batch": 2, "paths": 1}
    found = growth.measure("layers", (1, 2), base, rounds=1)
    assert found.keys() == {"1", "2"}
    assert all(one["step_ms"] > 0 and one["compile_seconds"] > 0 for one in found.values())


def test_what_is_computed_again_is_timed_and_weighed() -> None:
    settings = {"width": [16], "depth": [4], "heads": [1, 2], "mlp_ratio": [2.0], "head_dim": 8}
    found = rematerialization.measure(build_space("vit", "small", settings), 8, 2, 1)
    assert 0 < found["peak_bytes_again"] < found["peak_bytes_saved"]
    assert 0 < found["residual_bytes"] < found["peak_bytes_saved"]
    assert found["saved_ms"] > 0
    assert found["again_ms"] > 0


def test_both_correlations_are_timed() -> None:
    found = correlations.measure(4, 1)
    assert found["ratio"] == pytest.approx(found["scipy_us"] / found["pairs_us"])


def test_the_start_is_timed_in_fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_STEP", "print(0.5)")  # not the step itself: a minute of compilation
    result = CliRunner().invoke(start.main, ["--rounds", "1", "--json"])
    figures = json.loads(result.stdout)
    assert figures["first_step_seconds_cold"] == figures["first_step_seconds_warm"] == 0.5
    assert all(figures[name] > 0 for name in ("import_seconds", "help_seconds", "start_seconds_cold"))


def test_only_processes_below_the_nodes_that_were_started_are_killed() -> None:
    script = ["bash", "-c", "exec -a ray::TrainWorker sleep 60 & echo $!; wait"]
    raylets = [subprocess.Popen(script, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ours, other = (int(raylet.stdout.readline()) for raylet in raylets if raylet.stdout)
    try:
        while not all(psutil.Process(worker).cmdline()[:1] == ["ray::TrainWorker"] for worker in (ours, other)):
            time.sleep(0.01)
        node = SimpleNamespace(all_processes={"raylet": [SimpleNamespace(process=raylets[0])]})
        nodes = faults.Nodes(SimpleNamespace(address="", add_node=lambda **options: node))
        assert {process.pid for process in nodes.titled("TrainWorker")} == {ours}
    finally:
        for worker, raylet in zip((ours, other), raylets, strict=True):
            os.kill(worker, signal.SIGKILL)
            raylet.communicate()


@pytest.mark.parametrize("sampler", ["{type: pada}", "{type: attentive, score: loss}"])
def test_diagnostics_are_timed_with_samplers_that_learn_or_score(sampler: str, tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(f"""\
data: {{train_limit: 40}}
space: {{family: vit, preset: small, width: [16], depth: [1, 2], heads: [1, 2], mlp_ratio: [1.0], head_dim: 8}}
sampler: {sampler}
train: {{steps: 6, batch_size: 20, diagnose_every: 2, optimizer: {{warmup_steps: 1}}}}
""")
    assert math.isfinite(sampling_cost._of_diagnostics(build_experiment(load_config(file)), 4))


def test_members_of_an_evolution_strategy_are_timed_beside_plain_passes_and_copies() -> None:
    found = evolution_strategy.measure(width=16, images=2, rank=1, chunk=4, rounds=1)
    assert 0 < found["numbers_of_noise_a_member"] < found["weights"] / 2
    assert all(found[name] > 0 for name in ("member_ms", "full_copy_ms", "members_a_second_over_full_copies"))


def test_errors_of_users_are_lines_in_every_benchmark():
    root = Path(__file__).parents[3] / "experiments" / "benchmarks"
    commands = [path for path in root.rglob("*.py") if "@click.command" in path.read_text("utf-8")]
    assert len(commands) > 30
    assert [path.name for path in commands if "@click.command(cls=Benchmark" not in path.read_text("utf-8")] == []
