"""Incubation: modules between frozen layers, put together as the start of training, resumed to the same bits."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.incubation.members import Incubation
from experiments.incubation.stage import Trainer, incubate, start_of
from experiments.pipeline.check import validate
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.training.stage import TrainingDiverged
from search_spaces import UserError
from supernet.engine.modules import MODULE

EXPERIMENT = """\
data: {source: digits, train_limit: 200}
space: {family: vit, preset: small, width: [16], depth: [4], heads: [2], mlp_ratio: [1.0], head_dim: 8}
train:
  steps: 4
  batch_size: 16
  checkpoint_every: 2
  incubation: {modules: 2, meta_steps: 5, module_steps: 4}
search: {type: random, evaluations: 1}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.yaml").write_text(EXPERIMENT, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def incubated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    """An experiment, and the directory of its incubation."""
    home = tmp_path_factory.mktemp("incubated")
    (home / "e.yaml").write_text(EXPERIMENT, encoding="utf-8")
    experiment = build_experiment(load_config(home / "e.yaml"))
    incubate(experiment, home, StopRequest(), quiet=True)
    return experiment, home


def equal(one: Any, other: Any) -> bool:
    """Whether two trees are equal to the bit."""
    leaves = [[np.asarray(leaf).view(np.uint32) for leaf in jax.tree.leaves(tree)] for tree in (one, other)]
    return all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


def weights(experiment: Experiment, run: Path, index: int | None) -> Any:
    """What was trained: the meta-model's weights, or those of a module's hybrid."""
    incubation = Incubation(experiment)
    member = incubation.meta if index is None else incubation.module(index)
    return Trainer(experiment, run, experiment.config.identity)._weights(member)


def test_all_but_the_module_is_the_meta_model_to_the_bit(incubated: tuple[Experiment, Path]) -> None:
    experiment, home = incubated
    meta = weights(experiment, home, None)
    for index, frozen, row in ((0, "after", 1), (1, "before", 0)):
        hybrid = weights(experiment, home, index)
        rows = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], meta[MODULE])
        assert equal(hybrid[frozen], rows)
        others = ("norm", "head") if index == 0 else ("patch", "position")
        for name in ("patch", "position", "norm", "head"):
            assert equal(hybrid[name], meta[name]) is (name in others)


def test_training_starts_from_the_modules_one_after_the_other(incubated: tuple[Experiment, Path]) -> None:
    experiment, home = incubated
    start, hybrids = start_of(experiment, home), [weights(experiment, home, index) for index in range(2)]
    layers = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(h[MODULE]["layers"] for h in hybrids))
    expected = {
        "patch": hybrids[0]["patch"], "position": hybrids[0]["position"],
        "norm": hybrids[1]["norm"], "head": hybrids[1]["head"], "layers": layers,
    }  # fmt: skip
    assert jax.tree.structure(start) == jax.tree.structure(expected)
    assert equal(start, expected)
    assert not np.array_equal(layers["fc1"]["kernel"][0], layers["fc1"]["kernel"][2])


def test_parts_see_batches_in_orders_of_their_own(incubated: tuple[Experiment, Path]) -> None:
    incubation = Incubation(incubated[0])
    members = [incubation.meta, incubation.module(0), incubation.module(1)]
    seeds = {member.experiment.config.seed for member in members} | {incubated[0].config.seed}
    assert len(seeds) == 4


class Later(StopRequest):
    """Asked after so many reads."""

    def __init__(self, reads: int) -> None:
        super().__init__()
        self.reads = reads

    def __bool__(self) -> bool:
        self.reads -= 1
        return self.reads < 0


def test_a_stopped_incubation_goes_on_to_the_same_bits(incubated: tuple[Experiment, Path], tmp_path: Path) -> None:
    experiment, home = incubated
    with pytest.raises(Interrupted, match=r"after training step 2 of 5; .* \(meta-model of train.incubation\)"):
        incubate(experiment, tmp_path, Later(1), quiet=True)
    with pytest.raises(Interrupted, match=r"after training step 3 of 4; .* \(module 1 of 2 of train.incubation\)"):
        incubate(experiment, tmp_path, Later(5), quiet=True)
    incubate(experiment, tmp_path, StopRequest(), quiet=True)
    assert equal(start_of(experiment, tmp_path), start_of(experiment, home))


def test_a_run_incubates_trains_on_and_is_not_incubated_again(supernest: Any, here: Path) -> None:
    code, _, error = supernest("train", "e.yaml", "--out", "run")
    assert code == 0, error
    summary = json.loads((here / "run" / "summary.json").read_text("utf-8"))
    assert {"modules": 2, "meta_steps": 5, "module_steps": 4}.items() <= summary["incubation"].items()
    assert len(summary["incubation"]["hybrids"]) == 2
    assert 0 <= summary["incubation"]["assembled"] <= 1
    assert summary["train"]["steps"] == 4
    assert "assembled" in (here / "run" / "report.html").read_text("utf-8")
    code, told, _ = supernest("status", "run")
    assert [line for line in told.splitlines() if line.startswith("incubate")] == [
        "incubate meta, step 5 of 5", "incubate module 1, step 4 of 4", "incubate module 2, step 4 of 4",
    ]  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in (here / "run" / "incubation").rglob("*")}
    assert supernest("run", "e.yaml", "--out", "run")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (here / "run" / "incubation").rglob("*")} == before
    code, _, error = supernest("train", "e.yaml", "--out", "run", "--set", "train.incubation.meta_steps=6")
    assert code == 2
    assert "train.incubation.meta_steps: 5 → 6" in error
    # Runs of one seed that were incubated otherwise did not begin with the same weights.
    assert supernest("train", "e.yaml", "--out", "other", "--set", "train.incubation.meta_steps=6")[0] == 0
    code, _, error = supernest("soup", "run", "other", "--out", "soup")
    assert code == 2
    assert "other: began with other weights than run" in error


def test_widths_may_be_elastic_and_all_paths_start_from_the_largest_network(here: Path) -> None:
    experiment = build_experiment(load_config("e.yaml", ("space.width=[8, 16]", "space.heads=[1, 2]")))
    incubate(experiment, here, StopRequest(), quiet=True)
    start = start_of(experiment, here)
    assert jax.tree.map(np.shape, start) == jax.tree.map(lambda leaf: leaf.shape, experiment.net.shapes)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["train.incubation.modules=3"], "train.incubation.modules: 3 modules of two or more layers each do not"),
        (["train.incubation.modules=1"], "train.incubation.modules: 1 is out of range. Give at least 2"),
        (["space.depth=[2, 4]"], "space.depth: [2, 4] are several depths"),
        (["space={family: mobilenet, preset: small}"], "train.incubation: family mobilenet has no single stack"),
        (["train.incubation.meta_steps=0"], "train.incubation.meta_steps: 0"),
        (["train.optimizer={warmup_steps: 4}", "train.steps=9"],
         "train.incubation.warmup_steps: not set, and the 4 of train.optimizer are not less than the 4 steps"),
        (["train.incubation.warmup_steps=7"], "train.incubation.warmup_steps: 7 is not less than the 4 steps"),
        (["ray={workers: 2, storage: elsewhere}"], "ray.storage: not with train.incubation"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_line_before_anything_runs(supernest: Any, here: Path, settings, text) -> None:
    arguments = [part for setting in settings for part in ("--set", setting)]
    code, _, error = supernest("train", "e.yaml", "--out", "run", *arguments)
    assert code == 2
    assert text in error
    assert len(error.strip().splitlines()) == 1, error
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ((), "train.optimizer.learning_rate"),
        (("train.incubation.learning_rate=900",), "train.incubation.learning_rate"),
    ],
)
def test_a_part_that_diverges_is_named_with_the_key_in_force(here: Path, settings: tuple[str, ...], key: str) -> None:
    optimizer = "{type: sgd, learning_rate: 900, weight_decay: 0.0, clip_norm: null}"
    experiment = build_experiment(load_config("e.yaml", (f"train.optimizer={optimizer}", *settings)))
    with pytest.raises(TrainingDiverged) as error:
        incubate(experiment, here, StopRequest(), quiet=True)
    assert str(error.value).startswith("train.incubation: meta-model: the loss of the ")
    assert f"Lower {key} or set train.optimizer.clip_norm" in str(error.value)


def test_check_tells_of_the_parts(supernest: Any, here: Path) -> None:
    code, out, error = supernest("check", "e.yaml")
    assert code == 0, error
    assert "          after an incubation of 5 steps of the meta-model and 4 of each of 2 modules" in out.splitlines()


def test_gradient_search_does_not_incubate(here: Path) -> None:
    with pytest.raises(UserError, match=re.escape("train.incubation: not for gradient search")):
        validate(load_config("e.yaml"), ("gradient",))


def test_a_member_is_trained_alone_without_what_belongs_to_the_supernet(incubated: tuple[Experiment, Path]) -> None:
    experiment, _ = incubated
    member = Incubation(experiment).module(1).experiment
    train = member.config.train
    assert (train.ema, train.distillation.type, train.incubation, train.steps) == (None, "none", None, 4)
    assert member.sampler.paths_per_step == 1
    assert dataclasses.replace(member).space.cost(np.array([member.space.largest.genes])) is not None
