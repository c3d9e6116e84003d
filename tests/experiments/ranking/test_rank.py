"""The stage and command `rank`: its figures and files, what it refuses, and that kills do not change its outcome."""

import importlib.util
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.ranking import report as rank_report
from experiments.ranking.stage import compare
from experiments.ranking.training import Truth
from experiments.records import Estimate, RankFigures
from supernet.training.evaluation import Scores

REPOSITORY = Path(__file__).resolve().parents[3]
KILLS = int(os.environ.get("SUPERNEST_KILLS", "1"))  # 20 is the whole test
CONFIG = """\
data: {source: digits, train_limit: 300}
space: {family: vit, preset: small, width: [16], depth: [1, 2], heads: [1, 2], mlp_ratio: [1.0, 2.0], head_dim: 8}
sampler: {type: uniform}
train: {steps: 12, batch_size: 16, checkpoint_every: 4, evaluate_every: 6}
rank: {panel: 6, bins: 3, steps: 8, bootstrap: 100}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the experiment `small.yaml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def test_a_ranking_leaves_its_figures_table_and_plot(
    supernest: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = supernest("rank", "small.yaml", "--out", "out")
    assert (code, err) == (2, "error: out: holds no run. Train first: supernest train small.yaml --out out\n")
    assert supernest("train", "small.yaml", "--out", "out")[0] == 0
    code, out, err = supernest("rank", "small.yaml", "--out", "out")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "6 architectures, by accuracy on 288 images"
    assert [line.split("  ")[0] for line in lines[1:-5]] == [*rank_report.NAMES.values()]
    assert re.fullmatch(r"by parameters: tau-b \S+, best 10 % -, regret \S+ points", lines[-5])
    assert lines[-4].startswith("by cheapest training: -  (no cheaper training of this panel is known")
    assert re.fullmatch(
        r"counted otherwise: isomorphic networks once \S+ \(6\), ties as pairs \(tau-a\) \S+", lines[-3]
    )
    assert lines[-2].startswith("plot ")

    found = json.loads((here / "out" / "rank" / "rank.json").read_text("utf-8"))
    alone, inherited = (
        np.array([network[key]["accuracy"] for network in found["networks"]]) for key in ("alone", "inherited")
    )
    assert len(alone) == 6
    assert found["kendall_tau"]["value"] == pytest.approx(kendalltau(alone, inherited)[0])
    assert found["regret"]["value"] == pytest.approx(alone.max() - alone[inherited == inherited.max()].mean())
    assert (here / "out" / "rank" / "scatter.svg").read_text("utf-8").count("<use") >= 6
    assert list((here / "out" / "tensorboard" / "rank").glob("events.*"))
    summary = json.loads((here / "out" / "summary.json").read_text("utf-8"))
    assert summary["rank"]["kendall_tau"] == found["kendall_tau"]
    assert summary["train"]["steps"] == 12

    # The panel is there, so another interval, a smaller panel or another objective trains nothing.
    monkeypatch.setattr("experiments.ranking.training.train", lambda *given, **named: 1 / 0)
    found_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "matplotlib" else found_spec(name))
    options = ("--set", "rank.panel=3", "--set", "rank.objective=loss", "--json")
    code, out, err = supernest("rank", "small.yaml", "--out", "out", *options)
    assert (code, err) == (0, "")
    again = json.loads(out)["rank"]
    assert (again["panel"], again["objective"], again["plot"]) == (3, "loss", None)
    code, out, _ = supernest("rank", "small.yaml", "--out", "out")
    assert code == 0
    assert "matplotlib is missing. Install it with: pip install 'supernest[plots]'" in out


def test_a_panel_is_shared_through_a_cache(supernest: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ("--set", "rank={panel: 3, bins: 1, steps: 3, cache: shared, bootstrap: 100}")
    for out in ("a", "b"):
        assert supernest("train", "small.yaml", "--out", out, *cache)[0] == 0
    assert supernest("rank", "small.yaml", "--out", "a", *cache)[0] == 0
    assert len(list((here / "shared").glob("*/result.json"))) == 3
    monkeypatch.setattr("experiments.ranking.training.train", lambda *given, **named: 1 / 0)
    assert supernest("rank", "small.yaml", "--out", "b", *cache)[0] == 0
    assert not (here / "b" / "rank" / "panel").exists()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("rank.panel=2", "error: --set: rank.panel: 2 is out of range. Give at least 3."),
        ("rank.strata=mac", "error: small.yaml: rank.strata: 'mac' is no cost. Did you mean 'macs'?"),
        ("rank.objective=acuracy", "error: --set: rank.objective: 'acuracy' is not known. Did you mean 'accuracy'?"),
        ("rank.bootstrap=9", "error: --set: rank.bootstrap: 9 is out of range. Give at least 100."),
        ("rank.pannel=9", "error: --set: rank.pannel: no such setting. Did you mean 'panel'?"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_check(supernest: Any, setting: str, expected: str) -> None:
    code, out, err = supernest("check", "small.yaml", "--set", setting)
    assert (code, out) == (2, "")
    assert err.startswith(expected)
    assert len(err.splitlines()) == 1


def test_a_panel_too_short_for_the_warm_up_is_refused(supernest: Any) -> None:
    code, _, err = supernest("check", "small.yaml", "--set", "train.optimizer={warmup_steps: 10}")
    assert code == 2
    assert "rank.steps: 8 is not more than the 10 steps of train.optimizer.warmup_steps. Give more." in err


def test_paths_of_the_cache_follow_the_file_and_the_working_directory(here: Path) -> None:
    (here / "below").mkdir()
    (here / "below" / "x.yaml").write_text(CONFIG.replace("rank: {", "rank: {cache: kept, "), encoding="utf-8")
    assert load_config("below/x.yaml").rank.cache == str(here / "below" / "kept")
    assert load_config("below/x.yaml", ["rank.cache=kept"]).rank.cache == str(here / "kept")


def test_by_loss_a_loss_that_is_no_number_ranks_last(here: Path) -> None:
    experiment = build_experiment(load_config("small.yaml", ["rank.objective=loss"]))
    truth = Truth(np.array([0.9, 0.8, 0.7]), np.array([0.3, 0.2, 0.1]), np.zeros(3))
    found = compare(experiment, Scores(np.zeros(3), np.array([0.3, 0.2, np.nan])), truth)
    # Truly best by loss is the third, which the supernet puts last, and the second first: 12 agree, 13 and 23 do not.
    assert found["kendall_tau"].value == pytest.approx((1 - 2) / 3)
    assert found["regret"].value == pytest.approx(0.1)


@pytest.mark.parametrize("objective", ["accuracy", "loss"])
def test_networks_that_failed_rank_last_whatever_their_likeliest_class(here: Path, objective: str) -> None:
    """The argmax of NaN is class 0, which is right for a tenth of the digits: more than the other two have right."""
    experiment = build_experiment(load_config("small.yaml", [f"rank.objective={objective}"]))
    truth = Truth(np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.2, 0.3]), np.zeros(3))
    inherited = Scores(np.array([0.09, 0.08, 0.1]), np.array([2.3, 2.4, np.nan]))
    found = compare(experiment, inherited, truth)
    assert found["kendall_tau"].value == 1
    assert found["regret"].value == 0


@pytest.mark.slow
def test_kills_do_not_change_the_outcome(here: Path) -> None:
    def start(stage: str, out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "experiments", stage, "small.yaml", "--out", out, "--quiet"]
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.DEVNULL)

    assert start("train", "undisturbed").wait() == 0
    shutil.copytree("undisturbed", "disturbed")
    begun = time.monotonic()
    assert start("rank", "undisturbed").wait() == 0
    seconds, moments, kills = time.monotonic() - begun, random.Random(0), 0
    for _ in range(6 * KILLS):
        if kills == 2 * KILLS:
            break
        process = start("rank", "disturbed")
        time.sleep(moments.uniform(0.3, 0.9) * seconds)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        if process.returncode == 0:  # the machine was slower before
            shutil.rmtree("disturbed/rank")
            seconds *= 0.7
    assert kills >= KILLS
    assert start("rank", "disturbed").wait() == 0
    for name in ("rank.json", "scatter.svg"):
        assert (here / "disturbed/rank" / name).read_bytes() == (here / "undisturbed/rank" / name).read_bytes()
    assert not list((here / "disturbed" / "rank").rglob("work"))


def test_figures_of_a_panel_without_an_order_say_why() -> None:
    nothing = Estimate(math.nan, math.nan, math.nan, "too few to judge an order: 1, of at least 3")
    estimates = {**dict.fromkeys(rank_report.NAMES, nothing), "regret": Estimate(0.125, 0.0, 0.25)}
    figures = RankFigures(6, "accuracy", 1200, estimates, plot="rank/scatter.svg")
    assert RankFigures.from_json(json.loads(json.dumps(figures.as_json()))).as_json() == figures.as_json()
    lines = rank_report.table(figures).splitlines()
    assert lines[0] == "6 architectures, by accuracy on 1,200 images"
    assert lines[3] == "tau-b, best 10 %  -  (too few to judge an order: 1, of at least 3)"
    assert lines[5].split("  ", 1)[1].strip() == "12.5 points  (95 %: 0.0 to 25.0)"
