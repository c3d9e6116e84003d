"""Run directories as stages leave them, made by hand, for tests of the report."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.records import Summary
from experiments.storage.run_files import read_run_config, write_summary
from experiments.storage.run_identity import run_identity
from experiments.storage.tensorboard import VISITS, EventLog
from search.archive_lines import DIGEST, chained, line_of
from search_spaces.sealed_json import sealed
from supernet.storage.manifest import write_manifest

ESTIMATE = {"value": 0.2, "low": 0.1, "high": 0.7, "reason": None}
HOSTILE = "</script><img src=x onerror=alert(1)>&<b>"


def write_run(path: Path, candidates: int = 60, name: str = HOSTILE) -> Path:
    """Writes a run with everything that a report can show; its names are hostile."""
    rng = np.random.default_rng(0)
    (path / "search").mkdir(parents=True)
    begin_run(path, name)
    records = [_record(rng, name) for _ in range(candidates)]
    header: dict[str, Any] = {"format": "header", "run": {"config": run_identity(read_run_config(path))}}
    digest, lines = chained("", header), [line_of(header)]
    for record in records:
        digest = chained(digest, record)
        lines.append(line_of(record | {DIGEST: digest}))
    (path / "search" / "archive.jsonl").write_bytes(b"".join(lines) + b'{"torn')
    budgets = {"full": {"macs": 1000.0}, name: {"macs": 500.0}}
    found = {"budgets": {b: {"limits": limits} for b, limits in budgets.items()}}
    _write(path / "search" / "pareto.json", sealed(found))
    write_summary(path, _summary(name, budgets))
    for budget in ("full", "small"):
        subnet = path / "subnets" / budget
        subnet.mkdir(parents=True)
        _write(subnet / "architecture.json", {"architecture": records[0]["architecture"] if records else {}})
        _write(subnet / "report.json", {"test_by_class": {"cat": [40, 50], HOSTILE: [45, 50]}})
        write_manifest(subnet)
    _write(
        path / "rank" / "rank.json",
        sealed(
            {
                "settings": {"strata": "macs"},
                "networks": [
                    {"alone": {"accuracy": 0.5 + i / 20}, "inherited": {"accuracy": 0.4 + i / 20}, "costs": {"macs": i}}
                    for i in range(6)
                ],
            }
        ),
    )
    with EventLog(path / "tensorboard" / "train") as log:
        for step in (10, 20):
            log.scalars(step, {f"validation_error/{size}": 1 / step for size in ("smallest", "random", "largest")})
            log.scalars(step, {f"loss_by_macs/{part}_of_5": 2 / step for part in range(1, 6)})
        log.text(20, VISITS, json.dumps({"genes": ["width", "heads 1"], "shares": [[0.5, 0.5], [0.2, 0.3, 0.5]]}))
        log.text(20, "warnings/smallest_end_collapses", "the smallest subnet collapses")
    return path


def begin_run(path: Path, name: str, more: str = "") -> None:
    """Writes the two files that a run begins with; `more` is added to its configuration."""
    config = f"name: {json.dumps(name)}\n{more}"
    (path / "config.yaml").write_text(config, "utf-8")
    sha256 = hashlib.sha256(config.encode()).hexdigest()
    run = {"name": name, "seed": 7, "versions": {"jax": "0.10.0"}, "config_sha256": sha256}
    _write(path / "run.json", sealed(run))


def _record(rng: np.random.Generator, name: str) -> dict[str, Any]:
    macs = int(rng.integers(100, 1000))
    architecture = {"width": 32, "heads": [1, 2, 4], "expand": [[3, 6], [4]], "op": name}
    costs = {"macs": macs, "params": macs // 2}
    return {
        "architecture": architecture, "objectives": {"error": float(rng.random() * 100 / macs)}, "costs": costs,
        "generation": 0,
    }  # fmt: skip


def _summary(name: str, budgets: dict[str, dict[str, float]]) -> Summary:
    rows = [
        {
            "budget": budget, "limits": limits, "params": 400, "macs": 800, "validation_accuracy": 0.9,
            "test_accuracy": 0.85, "directory": f"/elsewhere/subnets/{directory}",
            "predicted": {"latency_ms": 1.25, "memory_bytes": 5000.0, "batch_size": 1, "device": name},
            "memory": {"bytes": 4096, "batch_size": 1, "platform": "cpu"}, "parity_error": 1e-6,
        }
        for directory, (budget, limits) in zip(("full", "small"), budgets.items(), strict=True)
    ]  # fmt: skip
    names = ("kendall_tau", "spearman", "tau_top_10", "tau_top_50", "regret")
    rank = {"panel": 6, "objective": "accuracy", "examples": 300, "plot": None, **dict.fromkeys(names, ESTIMATE)}
    return Summary.from_json(
        {
            "name": name, "objective": "error", "chance": 0.9, "space": {"family": "vit", "size": 1793340},
            "train": {"steps": 40}, "search": {"evaluated": 60, "failed": 0}, "subnets": rows, "rank": rank,
        }
    )  # fmt: skip


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")
