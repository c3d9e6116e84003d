"""The gradient stage: a run from end to end, resumed in the same bits, and what search and export make of it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import cli
from experiments.configuration.experiment_config import ExperimentConfig
from experiments.data import Examples
from experiments.data.digits import Digits
from experiments.experiment import build_experiment
from experiments.gradient.data import GradientBatches, parts
from experiments.gradient.stage import budget_of, gradient_search
from experiments.pipeline import run as pipeline
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.run_directory import RunDirectory
from experiments.storage.checkpoints import Checkpoints
from search import Archive
from search_spaces import UserError

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "data": {"source": "digits", "train_limit": 300, "augmentation": {"mixup": 0.2}},
    "space": {"family": "vit", "preset": "small", "width": (16, 24), "depth": (1, 2), "head_dim": 8},
    "train": {"steps": 10, "batch_size": 16, "checkpoint_every": 3, "evaluate_every": 5, "log_every": 2, "ema": 0.9},
    "search": {"evaluations": 6, "population": 4, "parents": 2},
    "gradient": {"budget": "half", "warmup": 0.2, "settle": 0.3, "every": 2},
    "budgets": {"full": "macs<=100%", "half": "macs<=50%, params<=60%"},
    "export": {"stablehlo": False},
}
MOBILENET = {
    "space": {
        "family": "mobilenet", "preset": "small", "resolution": (6, 8), "depth": (1, 2), "expand": (2, 3),
        "widths": (8, 16), "strides": (2, 1), "squeeze_excite": (False, True), "activations": ("relu", "hard_swish"),
    },
    "evaluation": {"calibration_batches": 2},
    "budgets": {"full": "macs<=100%", "half": "macs<=60%"},
}  # fmt: skip


class StopAt(StopRequest):
    """Asks to stop after it was read so many times."""

    def __init__(self, reads: int) -> None:
        super().__init__()
        self._left = reads

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left < 0


def config(gradient: Mapping[str, Any] = {}, **changes: Any) -> ExperimentConfig:
    """The tiny experiment, with other settings of its gradient search and whole other sections."""
    return ExperimentConfig.model_validate({**SETTINGS, **changes, "gradient": {**SETTINGS["gradient"], **gradient}})


def run(path: Path, settings: ExperimentConfig, *stages: str) -> Mapping[str, Any]:
    with RunDirectory.create_or_resume(path, settings) as directory:
        return pipeline.run(settings, directory, stages, quiet=True).as_json()


def outcome(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in ("gradient/architecture.json", "search/archive.jsonl")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gradient") / "run"
    run(path, config(), "gradient")
    return path


def test_ends_in_an_architecture_within_the_budget(finished: Path) -> None:
    experiment = build_experiment(config())
    found = json.loads((finished / "gradient" / "architecture.json").read_text())
    genes = np.array([found["genes"]], np.int32)
    half = next(budget for budget in experiment.budgets if budget.name == "half")
    assert half.feasible(experiment.space.cost(genes)).all()
    assert experiment.space.architecture(genes[0]).description == found["architecture"]
    assert found["budget"] == {"name": "half", "limits": dict(half.limits)}
    for choice in experiment.space.choices:
        given = np.array(found["probabilities"][choice.name])
        assert given.shape == (*experiment.space.columns[choice.name].shape, len(choice.values))
        np.testing.assert_allclose(given.sum(axis=-1), 1, atol=1e-5)


def test_the_summary_has_its_figures(finished: Path) -> None:
    figures = json.loads((finished / "summary.json").read_text())["gradient"]
    assert (figures["steps"], figures["type"], figures["budget"]) == (10, "drnas", "half")
    assert set(figures["expected_cost_over_budget"]) == {"macs", "params"}
    assert set(figures["entropy"]) == {"width", "depth", "heads", "mlp_ratio"}
    assert 0 <= figures["validation_error"] <= 1
    assert 1 / 3 < figures["mean_probability"] <= 1
    archive = Archive.read(finished / "search" / "archive.jsonl", build_experiment(config()).space)
    assert len(archive) == 1
    assert archive.errors[0] == figures["validation_error"]
    assert archive.costs["macs"][0] == figures["macs"]


def test_curves(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard" / "gradient"))
    events.Reload()
    names = set(events.Tags()["scalars"])
    assert {"loss/weights", "gradient/temperature", "gradient/entropy_weight", "entropy/depth"} <= names
    assert {f"{kind}/{metric}" for kind in ("expected_cost", "multiplier") for metric in ("macs", "params")} <= names
    assert [event.step for event in events.Scalars("entropy/width")] == [2, 4, 6, 8, 10]
    # Warm-up is one step of seven, and then the architecture has a step in two: of the steps that are logged, the 4th.
    assert [event.step for event in events.Scalars("loss/architecture")] == [2, 4, 6]


@pytest.mark.slow
def test_a_stopped_run_resumes_in_the_same_bits(finished: Path, tmp_path: Path) -> None:
    settings, path = config(), tmp_path / "run"
    experiment, messages = build_experiment(settings), []
    for reads in (4, 2, 100):  # while both learn, and while the architecture settles
        with (
            RunDirectory.create_or_resume(path, settings) as directory,
            Checkpoints(directory.checkpoints) as checkpoints,
        ):
            try:
                gradient_search(experiment, checkpoints, directory, StopAt(reads), quiet=True)
            except Interrupted as stopped:
                messages.append(str(stopped))
    assert messages == [f"stopped after gradient step {n} of 10; a checkpoint of it is saved" for n in (5, 8)]
    assert outcome(path) == outcome(finished)


@pytest.mark.slow
def test_search_and_export_go_on_from_it(finished: Path, tmp_path: Path) -> None:
    path = shutil.copytree(finished, tmp_path / "run")
    before = (path / "search" / "archive.jsonl").read_bytes()
    summary = run(path, config(), "train", "search", "export")
    after = (path / "search" / "archive.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 1 + 6
    assert summary["train"] == {"steps": 10}  # nothing left to train
    assert {row["budget"] for row in summary["subnets"]} == {"full", "half"}
    assert all(row["parity_error"] <= 1e-4 for row in summary["subnets"])
    assert run(path, config(), "gradient")["gradient"] == json.loads((path / "summary.json").read_text())["gradient"]
    assert (path / "search" / "archive.jsonl").read_bytes() == after


@pytest.mark.slow
def test_mobilenet_and_export(tmp_path: Path) -> None:
    settings = config(**MOBILENET, gradient={"type": "darts"})
    assert settings.space.family == "mobilenet"
    summary = run(tmp_path / "run", settings, "gradient", "export")
    assert {row["budget"] for row in summary["subnets"]} == {"full", "half"}


# ---------------------------------------------------------------- data


def test_weights_and_architecture_share_no_example() -> None:
    train = Digits().load(0, 0.2).train
    of_weights, of_architecture = parts(train, 0.3, 5)
    assert len(of_architecture) == round(0.3 * len(train))
    assert isinstance(train, Examples)
    assert isinstance(of_weights, Examples)
    assert isinstance(of_architecture, Examples)
    assert not set(of_weights.rows) & set(of_architecture.rows)
    assert set(of_weights.rows) | set(of_architecture.rows) == set(train.rows)
    sizes = np.bincount(train.labels)
    assert np.abs(np.bincount(of_architecture.labels) - 0.3 * sizes).max() < 1
    again, other = (parts(train, 0.3, seed)[0] for seed in (5, 6))
    assert isinstance(again, Examples)
    assert isinstance(other, Examples)
    assert set(again.rows) == set(of_weights.rows) != set(other.rows)


@pytest.mark.parametrize("fraction", [1e-4, 1 - 1e-4])
def test_an_empty_part_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=r"gradient\.architecture_data: .* leaves a part without any"):
        parts(Digits().load(0, 0.2).train, fraction, 0)


def test_batches_are_a_function_of_the_step() -> None:
    experiment = build_experiment(config())
    batches, again = (GradientBatches(experiment, 7, 1, 2) for _ in range(2))
    list(map(batches, range(4)))
    for step in (5, 8):
        for a, b in zip(jax.tree.leaves(batches(step)), jax.tree.leaves(again(step)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert [batches(step).architecture is not None for step in range(9)] == [0, 1, 0, 1, 0, 1, 0, 0, 0]


# ---------------------------------------------------------------- what is refused


def test_several_budgets_and_none_named() -> None:
    with pytest.raises(UserError, match=r"gradient\.budget: not set, and there are 2\. Name one of full, half\."):
        budget_of(build_experiment(config(gradient={"budget": None})))
    only = config(gradient={"budget": None}, budgets={"half": "macs<=50%"})
    assert budget_of(build_experiment(only)).name == "half"


def test_an_unknown_budget_is_refused_when_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("space: {family: vit, preset: small}\ntrain: {steps: 2}\ngradient: {budget: ful}\n")
    assert cli.main(["check", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {path}: gradient.budget: 'ful' is not known. Did you mean 'full'? Known: full.\n"
    )


def test_a_supernet_that_was_trained_otherwise_is_left_alone(finished: Path, tmp_path: Path) -> None:
    path = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(path / "gradient")
    with pytest.raises(UserError, match="its supernet was trained by `supernest train`"):
        run(path, config(), "gradient")


def test_a_damaged_architecture_stops_the_search(finished: Path, tmp_path: Path) -> None:
    path = shutil.copytree(finished, tmp_path / "run")
    (path / "gradient" / "architecture.json").write_text('{"genes": [9]}')
    with pytest.raises(UserError, match=r"architecture\.json: is damaged"):
        run(path, config(), "search")
    run(path, config(), "gradient")
    assert outcome(path) == outcome(finished)
