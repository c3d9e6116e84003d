"""The samplers' leaderboard: hand-made seeds, its tables, and a run over two samplers that is not repeated."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from experiments.benchmarks import samplers
from experiments.benchmarks.leaderboard import leaderboard, markdown, text
from supernet.training.evaluation import Scores

CONFIG = """\
data: {source: digits, train_limit: 300}
space: {family: vit, preset: small, width: [16], depth: [1], heads: [1, 2], mlp_ratio: [1.0, 2.0], head_dim: 8}
sampler: {type: uniform}
train: {steps: 16, batch_size: 16, log_every: 2, ema: null, optimizer: {warmup_steps: 4}}
rank: {panel: 4, bins: 2, steps: 6, bootstrap: 100}
"""
ROWS = {
    "uniform": [{"kendall_tau": 0.5, "test_25%": 0.8}, {"kendall_tau": 0.7, "test_25%": 0.9}],
    "better": [{"kendall_tau": 0.9, "test_25%": 0.7}, {"kendall_tau": 0.9}],
    "nothing": [{"kendall_tau": math.nan}, {"kendall_tau": math.nan}],
}
TRAINED = {name: {"steps": 100, "paths": 1.0} for name in ROWS}


def test_means_spreads_and_differences_of_hand_made_seeds() -> None:
    board = leaderboard(ROWS, TRAINED)
    assert list(board) == ["better", "uniform", "nothing"]
    assert board["uniform"]["kendall_tau"]["mean"] == pytest.approx(0.6)
    assert board["uniform"]["kendall_tau"]["std"] == pytest.approx(math.sqrt(0.02))
    assert "difference" not in board["uniform"]["kendall_tau"]
    # Standard deviations 0 and sqrt(0.02): root mean square 0.1.
    assert board["better"]["kendall_tau"]["difference"] == pytest.approx(0.3)
    assert board["better"]["kendall_tau"]["over_spread"] == pytest.approx(3.0)
    assert board["better"]["test_25%"]["values"] == [0.7, None]
    assert board["better"]["test_25%"]["over_spread"] is None
    assert board["nothing"]["kendall_tau"] == {
        "mean": None, "std": None, "values": [None, None], "difference": None, "over_spread": None,
    }  # fmt: skip


def test_tables_say_the_same_in_text_and_markdown() -> None:
    figures: dict[str, Any] = {
        "passes": 1000, "seeds": 2, "panel": 24, "panel_steps": 500, "panel_accuracy": [0.61, 0.83], "ceiling": 0.812,
        "samplers": leaderboard(ROWS, TRAINED), "refused": {"pada": "sampler.tau: too short."},
    }  # fmt: skip
    told, document = text(figures), markdown(figures)
    for shown in (told, document):
        assert shown.startswith("1,000 forward-backward passes a supernet, 2 seeds; panel of 24 networks, 500 steps")
        assert "agrees with tau-b 0.812" in shown
        assert "pada" in shown.splitlines()[-1]
    assert "| better | 100 x 1 | 0.900 ± 0.000 | 70.0 |" in document
    assert "| better | +0.300 (+3.0) | -15.0 | - |" in document
    assert "better" in told.splitlines()[3]


def test_the_best_candidate_is_looked_for_inside_the_budget() -> None:
    macs = np.array([10, 20, 40, 100])
    scores = Scores(np.array([0.5, 0.6, 0.6, 0.55]), np.array([1.0, 0.9, 0.8, 0.7]))
    assert samplers.best_within(macs, scores, (0.05, 0.1, 0.25, 1.0)) == {0.1: 0, 0.25: 1, 1.0: 2}


def run(*arguments: str) -> Result:
    """Runs the command in this process."""
    return CliRunner().invoke(samplers.main, arguments)


def test_samplers_are_trained_once_with_equal_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.setattr("experiments.benchmarks.samplers.use_compilation_cache", lambda path: None)
    common = ("--config", str(tmp_path / "x.yaml"), "--out", str(tmp_path / "out"), "--samplers", "uniform,sandwich")
    result = run(*common, "--seeds", "2", "--json", "--ceiling")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert {name: (f["steps"], f["paths"]) for name, f in figures["samplers"].items()} == {
        "uniform": (16, 1.0), "sandwich": (4, 4.0),
    }  # fmt: skip
    for found in figures["samplers"].values():
        assert {"kendall_tau", "regret", "test_100%", "gradient_variance", "path_cosine"} <= found.keys()
        assert len(set(found["gradient_variance"]["values"])) == 2
        assert 0 <= found["test_100%"]["mean"] <= 1
    assert -1 <= figures["ceiling"] <= 1
    assert "[4/4] sandwich, seed 1: tau-b" in result.stderr

    monkeypatch.setattr("experiments.benchmarks.samplers.train", lambda *given, **options: 1 / 0)
    again = run(*common, "--seeds", "2", "--json", "--ceiling")
    assert json.loads(again.stdout) == figures
    assert isinstance(run(*common, "--seeds", "3").exception, ZeroDivisionError)
    assert isinstance(run(*common, "--passes", "20").exception, ZeroDivisionError)


def test_a_sampler_that_cannot_be_trained_so_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.yaml").write_text(CONFIG.replace("depth: [1]", "depth: [1, 2]"), encoding="utf-8")
    monkeypatch.setattr("experiments.benchmarks.samplers.use_compilation_cache", lambda path: None)
    common = ("--config", str(tmp_path / "x.yaml"), "--out", str(tmp_path / "out"), "--seeds", "1", "--passes", "3")
    result = run(*common, "--samplers", "progressive,uniform")
    assert result.exit_code == 0, result.output
    assert "progressive: not measured: sampler: " in result.stdout
    assert "stages do not fit into" in result.stdout
    misspelt = run(*common, "--samplers", "unifrom")
    assert (misspelt.exit_code, misspelt.stderr.count("\n")) == (2, 1)
    assert misspelt.stderr.startswith("error: sampler: 'unifrom' is not known")
