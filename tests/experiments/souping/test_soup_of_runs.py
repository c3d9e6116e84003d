"""`supernest soup` of runs: supernets that began with the same weights give a run that is searched and exported."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import supernest as sn
from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.run_directory import RunDirectory
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.run_files import identity_of
from experiments.training.stage import trained_params
from supernet.engine.supernet import Params

SECTIONS: dict[str, Any] = {
    "name": "runs",
    "data": {"train_limit": 200},
    "space": {"family": "vit", "preset": "small", "depth": [1], "width": [8], "heads": [1], "mlp_ratio": [1.0, 2.0]},
    "train": {
        "steps": 12, "batch_size": 32, "optimizer": {"learning_rate": 0.01, "warmup_steps": 3}, "ema": 0.9,
        "evaluate_every": 12, "checkpoint_every": 12, "diagnose_every": None,
    },
    "search": {"type": "random", "evaluations": 2},
    "export": {"stablehlo": False},
}  # fmt: skip


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return {**SECTIONS, **{name: {**SECTIONS[name], **value} for name, value in sections.items()}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with runs; `slow` began as `one` did, `other` did not."""
    directory = tmp_path_factory.mktemp("runs")
    slow = changed(train={"optimizer": {"learning_rate": 0.003, "warmup_steps": 3}})
    for name, sections in (("one", SECTIONS), ("slow", slow), ("other", {**SECTIONS, "seed": 1})):
        sn.Experiment(**sections).train(directory / name, progress=False)
    return directory


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def params(run: Path) -> Params:
    """The weights that a search of a run uses."""
    experiment = build_experiment(load_config(run / "config.yaml"))
    with Checkpoints(run / "checkpoints", run=identity_of(run)) as checkpoints:
        return trained_params(experiment, checkpoints)


def test_the_mean_is_a_run_that_is_searched_and_exported(supernest: Any, here: Path) -> None:
    code, out, err = supernest("soup", "one", "slow", "--method", "uniform", "--out", "mean", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert sorted(found["runs"]) == [str(here / "one"), str(here / "slow")]
    assert found["alone"].keys() == set(found["runs"])
    one, slow, mean = (params(Path(name)) for name in ("one", "slow", "mean"))
    expected = jax.tree.map(lambda a, b: ((np.float64(a) + np.float64(b)) / 2).astype(np.float32), one, slow)
    jax.tree.map(np.testing.assert_array_equal, mean, expected)
    for command in ("train", "search", "run"):
        assert supernest(command, "mean", "--quiet")[0] == 0
    report = json.loads((here / "mean" / "subnets" / "full" / "report.json").read_text())
    assert report["origin"]["config"] == found["identity"]
    # The same command finds it, and another one leaves it.
    code, out, _ = supernest("soup", "one", "slow", "--method", "uniform", "--out", "mean")
    assert (code, out.count("mean of 2")) == (0, 1)
    shutil.copytree("mean", "moved")
    code, out, _ = supernest("soup", "one", "slow", "--method", "uniform", "--out", "moved")
    assert (code, out.count(f"{here / 'moved'}: mean of 2")) == (0, 1)
    code, _, err = supernest("soup", "one", "--out", "mean")
    assert code == 2
    assert "--out: mean holds another soup, and is left as it is." in err


def test_the_greedy_soup_is_never_below_the_best_and_one_run_stays_what_it_is(supernest: Any, here: Path) -> None:
    found = json.loads(supernest("soup", "one", "slow", "--out", "greedy", "--json")[1])
    assert found["validation"] >= max(found["alone"].values())
    assert supernest("soup", "slow", "--out", "single")[0] == 0
    jax.tree.map(np.testing.assert_array_equal, params(Path("single")), params(Path("slow")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("one", "one/../one", "--out", "new"), "one is given twice"),
        (("one", "--out", "one"), "--out: one is one, lies in it or holds it."),
        (("one", "slow", "--out", "other"), "--out: other exists, and is no soup."),
        (("one", "nowhere", "--out", "new"), "nowhere: is no run, and others are."),
        (("one", "slow", "--tolerance", "1", "--out", "new"), "--data, --set, --tolerance: are for networks."),
        (("one", "other", "--out", "new"), "other: was trained with other data than one, or another split of them"),
    ],
)
def test_what_cannot_work_is_one_line(supernest: Any, here: Path, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = supernest("soup", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (here / "new").exists()


def test_a_run_of_another_supernet_or_without_training_is_refused(supernest: Any, here: Path) -> None:
    wide = changed(space={"width": [16]})
    sn.Experiment(**wide).train("wide", progress=False)
    code, _, err = supernest("soup", "one", "wide", "--out", "new")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "wide: has another supernet than one." in err
    (step,) = Path("wide/checkpoints").glob("step_*")
    step.rename("aside")
    code, _, err = supernest("soup", "wide", "--out", "new")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "trained for 0 of 12 steps" in err


def test_a_run_without_the_modules_that_it_began_with_is_refused(supernest: Any, here: Path) -> None:
    """As a soup of incubated runs is, and a run that took over an incubated one's weights."""
    incubated = changed(
        space={"depth": [2]},
        train={"incubation": {"modules": 2, "meta_steps": 5, "module_steps": 5, "warmup_steps": 1}},
    )
    RunDirectory.create_or_resume(here / "averaged", sn.Experiment(**incubated).config).close()
    code, _, err = supernest("soup", "averaged", "--out", "new")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "averaged: holds none of the modules of train.incubation from which its training started" in err


def test_weights_that_began_otherwise_are_refused(supernest: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds whose splits are the same, as of a source with a validation split of its own."""
    from experiments.configuration.data_section import DataSection

    monkeypatch.setattr(DataSection, "split_identity", lambda self, data, seed: "same")
    code, _, err = supernest("soup", "one", "other", "--out", "new")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "other: began with other weights than one (seed 1 and 0)." in err


def test_in_python_a_soup_of_runs_is_a_run(here: Path) -> None:
    found = sn.soup("one", "slow", out="python", method="uniform")
    assert isinstance(found, sn.Run)
    assert found.summary["train"]["taken_from"].count(str(here)) == 2
    wrong: Any = "Greedy"
    with pytest.raises(sn.UserError, match="--method: 'Greedy' is not known"):
        sn.soup("one", "slow", out="new", method=wrong)
