"""`supernest finetune`: an exported network is trained on and exported again; it resumes, and writes over nothing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import supernest as sn
from experiments.configuration.experiment_config import load_config
from experiments.exporting.lineage import TrainedOn
from experiments.finetuning.gain import Measured
from experiments.finetuning.settings import Finetuning
from experiments.finetuning.stage import finetune
from experiments.objective import OBJECTIVES
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.records import Interval
from search_spaces import UserError

SECTIONS: dict[str, Any] = {
    "name": "tune",
    "data": {"train_limit": 400},
    "space": {"family": "vit", "preset": "small", "depth": [1], "width": [8, 16], "heads": [1]},
    "train": {
        "steps": 30, "batch_size": 32, "optimizer": {"learning_rate": 0.01, "warmup_steps": 3}, "ema": 0.9,
        "evaluate_every": 30, "checkpoint_every": 30, "diagnose_every": None,
    },
    "search": {"type": "random", "evaluations": 3},
    "budgets": {"small": "macs<=60%"},
    "export": {"stablehlo": False},
}  # fmt: skip
SETS = ("--learning-rate", "0.005", "--steps", "60", "--quiet")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run."""
    directory = tmp_path_factory.mktemp("finetune")
    sn.Experiment(**SECTIONS).run(directory / "run", progress=False)
    return directory


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def test_a_network_wins_what_its_report_says(supernest: Any, here: Path) -> None:
    source = (here / "run" / "subnets" / "small" / "manifest.json").read_bytes()
    arguments = ("finetune", "run/subnets/small", "--out", "tuned", "--teacher", "run", *SETS)
    code, out, err = supernest(*arguments, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    before = json.loads((here / "run" / "subnets" / "small" / "report.json").read_text())
    after = json.loads((here / "tuned" / "report.json").read_text())
    for split in ("validation", "test"):
        assert found[split]["before"]["value"] == before[f"{split}_accuracy"]
        assert found[split]["after"]["value"] == after[f"{split}_accuracy"]
        gain = found[split]["gain"]
        assert gain["value"] == pytest.approx(after[f"{split}_accuracy"] - before[f"{split}_accuracy"])
        assert 0 < gain["low"] < gain["value"] < gain["high"]
    assert after["finetuned"]["teacher"] == str(here / "run")
    assert after["parity_error"] <= 1e-4
    assert (here / "run" / "subnets" / "small" / "manifest.json").read_bytes() == source
    assert not list(here.glob(".*"))
    # The same command finds it; what it is read as says the same.
    code, again, err = supernest(*arguments)
    assert (code, err) == (0, "")
    assert f"validation accuracy: {before['validation_accuracy']:.2%} (" in again
    code, out, _ = supernest("evaluate", "tuned", "--data", "run/config.yaml", "--json")
    assert json.loads(out)["accuracy"] == after["test_accuracy"]


def test_a_stopped_one_ends_in_the_same_bits(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Finetuning(
        Path("run/subnets/small"), Path("whole"), load_config("run/config.yaml"), "config", steps=4, learning_rate=0.01
    )
    finetune(settings, StopRequest(), quiet=True)
    halves = dataclasses.replace(settings, out=Path("halves"))
    stop = StopRequest()
    stop.asked = True
    with pytest.raises(Interrupted, match=r"stopped after training step 1 of 4; .* The same command resumes it\."):
        finetune(halves, stop, quiet=True)
    assert not (here / "halves").exists()
    finetune(halves, StopRequest(), quiet=True)
    whole, parts = (sn.load_subnet(name) for name in ("whole", "halves"))
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
    assert np.array_equal(whole.predict(images), parts.predict(images))
    assert (here / "whole" / "weights.safetensors").read_bytes() == (
        here / "halves" / "weights.safetensors"
    ).read_bytes()


def test_data_are_normalised_as_the_network_was_made_for(here: Path) -> None:
    subnet = sn.load_subnet("run/subnets/small")
    data = load_config("run/config.yaml", ["data.train_limit=20"]).data.load(1)
    own = (subnet.config["preprocessing"][name] for name in ("mean", "std"))
    adapted = data.for_network("data", subnet)
    assert [list(adapted.mean), list(adapted.std)] == list(own)  # type: ignore[attr-defined]
    assert adapted.mean != data.mean  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "run/subnets/small"), "--out: run/subnets/small is the network that is trained on, or in it."),
        (("--out", "run/subnets/small/more"), "is the network that is trained on, or in it"),
        (("--out", "run"), "--out: run exists, and is no exported network."),
        (("--out", "new", "--set", "space.width=[8, 24]"), "space: is not the one that run/subnets/small was cut from"),
        (("--out", "new", "--teacher", "nowhere"), "--teacher: nowhere is neither an exported network nor a run"),
        (("--out", "new", "--data", "missing.yaml"), "missing.yaml"),
    ],
)
def test_what_cannot_work_is_one_line(supernest: Any, here: Path, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = supernest("finetune", "run/subnets/small", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (here / "new").exists()
    assert not (here / ".new.finetuning").exists()


def test_other_data_make_it_another_one(here: Path) -> None:
    settings = Finetuning(Path("run/subnets/small"), Path("new"), load_config("run/config.yaml"), "config", steps=1)
    config = settings.experiment(400, None)
    one, another, split = TrainedOn("one", "a"), TrainedOn("another", "a"), TrainedOn("one", "b")
    assert settings.identity(config, one, None) == settings.identity(config, TrainedOn("one", "a"), None)
    assert len({settings.identity(config, data, None) for data in (one, another, split)}) == 3


def test_intervals_end_where_the_figure_does() -> None:
    before, after = (
        Measured({"accuracy": value}, OBJECTIVES["error"], np.array([value - 0.4, value + 0.4])) for value in (0.1, 0.9)
    )
    assert after.interval == Interval(0.9, 0.0, 1.0)
    assert dataclasses.astuple(after.gain(before)) == pytest.approx((0.8, 0.8, 0.8))


def test_another_finetuning_is_not_written_over(here: Path) -> None:
    settings = Finetuning(Path("run/subnets/small"), Path("once"), load_config("run/config.yaml"), "config", steps=1)
    finetune(settings, StopRequest(), quiet=True)
    with pytest.raises(UserError, match="once holds another network, and is left as it is"):
        finetune(dataclasses.replace(settings, steps=2), StopRequest(), quiet=True)
