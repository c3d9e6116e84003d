"""Early stopping of a panel: what is known stops, what is not trains as before, and a stopped run goes on the same."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.ranking.early_stopping import CurveProbe
from experiments.ranking.panel import choose
from experiments.ranking.training import Truth, train_panel
from experiments.storage.tensorboard import EventLog
from experiments.training.stage import train_step
from search_spaces.sealed_json import sealed

CONFIG = """\
data: {source: digits, train_limit: 300}
space: {family: vit, preset: small, width: [16], depth: [1], heads: [1, 2], mlp_ratio: [1.0, 2.0], head_dim: 8}
sampler: {type: uniform}
train: {steps: 12, batch_size: 16, checkpoint_every: 2}
rank: {panel: 3, bins: 2, steps: 12, bootstrap: 100, early_stopping: {evaluations: 6, tolerance: 0.999}}
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    path = tmp_path_factory.mktemp("early") / "small.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return build_experiment(load_config(path, []))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the experiment `small.yaml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def with_rule(experiment: Experiment, **changes: Any) -> Experiment:
    """The same experiment with another rule, or with none at all."""
    rank = experiment.config.rank
    early = rank.early_stopping.model_copy(update=changes) if rank.early_stopping is not None and changes else None
    config = experiment.config.model_copy(update={"rank": rank.model_copy(update={"early_stopping": early})})
    changed = build_experiment(config, experiment.data)
    for part in ("net", "evaluator", "calibration"):
        vars(changed)[part] = getattr(experiment, part)
    return changed


def trained(experiment: Experiment, directory: Path, stop: StopRequest | None = None) -> Truth:
    genes = choose(experiment.space, 2, "macs", 2, 0)
    return train_panel(experiment, genes, directory, StopRequest() if stop is None else stop, quiet=True)


def test_what_is_known_well_enough_stops_and_its_figures_are_forecasts(experiment: Experiment, tmp_path: Path) -> None:
    truth = trained(experiment, tmp_path / "early")
    assert truth.steps.tolist() == [6, 6]  # after the third of six evaluations
    assert ((truth.figure >= 0) & (truth.figure <= 1)).all()
    results = [json.loads(path.read_text()) for path in (tmp_path / "early").glob("*/result.json")]
    assert all(result["interval"][0] <= result["accuracy"] <= result["interval"][1] for result in results)
    again = trained(experiment, tmp_path / "early")
    np.testing.assert_array_equal(again, truth)


def test_what_is_not_known_trains_to_the_end_as_without_a_rule(experiment: Experiment, tmp_path: Path) -> None:
    strict = trained(with_rule(experiment, tolerance=1e-9), tmp_path / "shared")
    without = trained(with_rule(experiment), tmp_path / "shared")
    np.testing.assert_array_equal(strict, without)
    assert strict.steps.tolist() == [12, 12]
    # What one rule has found is not taken for another's.
    assert len(list((tmp_path / "shared").glob("*/result.json"))) == 4


def test_a_stopped_training_goes_on_to_the_same_bits(experiment: Experiment, tmp_path: Path) -> None:
    undisturbed = trained(experiment, tmp_path / "undisturbed")

    class Later(StopRequest):
        """Asked for in the middle of the second network's training, after its second evaluation."""

        def __bool__(self) -> bool:
            curves = list((tmp_path / "stopped").glob("*/work/curve.json"))
            done = len(list((tmp_path / "stopped").glob("*/result.json")))
            return done == 1 and any(len(json.loads(path.read_text())["points"]) == 2 for path in curves)

    with pytest.raises(Interrupted, match="network 2 of 2 of the panel"):
        trained(experiment, tmp_path / "stopped", Later())
    np.testing.assert_array_equal(trained(experiment, tmp_path / "stopped"), undisturbed)


def test_a_loss_that_begins_at_0_is_not_forecast(experiment: Experiment, tmp_path: Path) -> None:
    early = experiment.config.rank.early_stopping
    assert early is not None
    genes = experiment.space.extremes[:1]
    points = [{"step": step, "figure": 1.0, "loss": 0.0} for step in (2, 4)]
    (tmp_path / "curve.json").write_text(json.dumps(sealed({"points": points})))
    probe = CurveProbe(experiment, genes, early, "loss", tmp_path)
    state = train_step(experiment).init(experiment.net.init(jax.random.key(0)))
    with EventLog(tmp_path, main_process=False) as log:
        errors = probe(state, log, 6)
    assert 0 <= errors["mean"] <= 1


def test_a_ranking_says_what_was_stopped(supernest: Any, here: Path) -> None:
    assert supernest("train", "small.yaml", "--out", "out")[0] == 0
    code, out, err = supernest("rank", "small.yaml", "--out", "out")
    assert (code, err) == (0, "")
    said = "early stopping    3 of 3 networks, whose figures are forecasts; 50% of the training steps were done"
    assert said in out.splitlines()
    figures = json.loads((here / "out" / "rank" / "rank.json").read_text())
    assert figures["early_stopping"] == {"stopped": 3, "share_of_steps": 0.5}
    assert [network["alone"]["steps"] for network in figures["networks"]] == [6, 6, 6]


def test_rules_that_cannot_be_are_refused(supernest: Any, here: Path) -> None:
    code, _, err = supernest("check", "small.yaml", "--set", "rank.early_stopping.tolerance=0")
    assert code == 2
    assert "rank.early_stopping.tolerance" in err
