"""Archive, checkpoint and exports of a run know one another: what another run left is refused, by every command."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest

from experiments import cli
from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.storage.checkpoints import Checkpoints
from experiments.training.stage import initial, train_step
from supernet.storage.manifest import write_manifest

YAML = """\
space: {family: vit, preset: small, depth: [1], width: [16], heads: [1, 2], head_dim: 8}
train: {steps: 4, batch_size: 16, checkpoint_every: 2, evaluate_every: 4, diagnose_every: null}
search: {type: random, evaluations: 6}
export: {stablehlo: false}
"""
EXPORT, NEW = ("export", "run"), ("export", "run", "--budget", "macs<=90%")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole runs, `run` and `other`, that differ in their seed."""
    here = tmp_path_factory.mktemp("runs")
    for name, seed in (("run", 0), ("other", 1)):
        (here / f"{name}.yaml").write_text(f"name: same\nseed: {seed}\n{YAML}", encoding="utf-8")
        assert cli.main(["run", str(here / f"{name}.yaml"), "--out", str(here / name), "--quiet"]) == 0
    return here


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of both runs, as the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    return tmp_path


def content(path: Path) -> dict[str, bytes]:
    """All that a run holds, but for what opening it touches."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != ".lock" and "cache" not in file.parts)
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def put(name: str) -> None:
    """Puts a part of the other run in the place of the run's own."""
    shutil.rmtree(Path("run", name)) if Path("run", name).is_dir() else Path("run", name).unlink()
    (shutil.copytree if Path("other", name).is_dir() else shutil.copy)(Path("other", name), Path("run", name))


def refused(supernest: Any, *arguments: str) -> str:
    """What a command says in one line that refuses and writes nothing."""
    before = content(Path("run"))
    code, out, err = supernest(*arguments)
    assert (code, len(err.splitlines())) == (2, 1), err
    # An answer from the run's own archive may come before its weights are read.
    assert out == "" or "checkpoint" in err or ": weights " in err
    assert content(Path("run")) == before
    return err


def test_exports_and_archive_say_which_weights_they_are_of(here: Path) -> None:
    header = json.loads((here / "run/search/archive.jsonl").read_text().partition("\n")[0])
    report = json.loads((here / "run/subnets/full/report.json").read_text())
    assert report["origin"] == header["run"]
    assert set(report["origin"]) == {"config", "weights"}
    other = json.loads((here / "other/subnets/full/report.json").read_text())["origin"]
    assert not set(other.values()) & set(report["origin"].values())


@pytest.mark.parametrize(
    "arguments", [("search", "run.yaml", "--out", "run", "--quiet"), EXPORT, NEW, (*NEW, "--show")]
)
@pytest.mark.parametrize("parts", [("archive.jsonl",), ("archive.jsonl", "archive.times", "space.json")])
def test_an_archive_of_another_run_is_refused(supernest: Any, here: Path, arguments: Any, parts: Any) -> None:
    for part in parts:
        put(f"search/{part}")
    assert "run/search/archive.jsonl:1: the archive is of another" in refused(supernest, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [("train", "run.yaml", "--out", "run", "--quiet"), ("search", "run.yaml", "--out", "run", "--quiet"), EXPORT, NEW],
)
def test_a_checkpoint_of_another_run_is_refused(supernest: Any, here: Path, arguments: Any) -> None:
    put("checkpoints")
    err = refused(supernest, *arguments)
    assert "run/checkpoints/step_00000004/checkpoint.json: a checkpoint of another run" in err
    assert "Delete the directory" in err


def test_all_of_another_run_but_its_configuration_is_refused(supernest: Any, here: Path) -> None:
    for part in ("checkpoints", "search", "subnets"):
        put(part)
    for arguments in (EXPORT, NEW):
        assert " of another run" in refused(supernest, *arguments)
    assert "another run" in refused(supernest, "run", "run.yaml", "--out", "run", "--quiet")


def test_a_checkpoint_that_says_of_no_run_is_refused_and_the_one_before_it_named(supernest: Any, here: Path) -> None:
    path = Path("run/checkpoints/step_00000004")
    description = json.loads((path / "checkpoint.json").read_text())
    del description["run"]
    (path / "checkpoint.json").write_text(json.dumps(description))
    write_manifest(path)
    err = refused(supernest, *EXPORT)
    assert err.rstrip().endswith("Delete the directory " + str(path.absolute()) + " to resume from step 2.")


def test_other_weights_of_the_same_configuration_are_refused(supernest: Any, here: Path) -> None:
    experiment = build_experiment(load_config(here / "run/config.yaml"))
    with Checkpoints("run/checkpoints", run=experiment.config.identity) as checkpoints:
        step, state = checkpoints.restore(initial(experiment, train_step(experiment)))
        checkpoints.save(step, jax.tree.map(lambda leaf: leaf * 2 if isinstance(leaf, jax.Array) else leaf, state))
    for arguments in (EXPORT, NEW):
        assert "run/search/archive.jsonl:1: the archive is of another run: weights " in refused(supernest, *arguments)
    # Nor is a subnet kept that was cut from other weights, where the archive is of these.
    shutil.rmtree("run/search")
    assert supernest("search", "run.yaml", "--out", "run", "--quiet")[0] == 0
    assert "report.json: cut from other weights than those of this run. Delete " in refused(supernest, *EXPORT)


def test_a_subnet_of_another_run_is_refused(supernest: Any, here: Path) -> None:
    put("subnets/full")
    assert "full/report.json: cut from other weights than those of this run. Delete" in refused(supernest, *EXPORT)


def test_an_error_that_was_changed_does_not_win(supernest: Any, here: Path) -> None:
    path = Path("run/search/archive.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    record = json.loads(lines[3])
    lines[3] = json.dumps(record | {"objectives": {"error": 0.0}}, sort_keys=True) + "\n"
    path.write_text("".join(lines))
    for arguments in (EXPORT, NEW, (*NEW, "--show"), ("search", "run.yaml", "--out", "run", "--quiet")):
        assert f"{path}:4: was changed after it was written" in refused(supernest, *arguments)


def test_a_run_that_is_moved_and_watched_otherwise_goes_on(supernest: Any, here: Path) -> None:
    weights = content(Path("run/subnets/full"))["weights.safetensors"]
    Path("run").rename("moved")
    shutil.rmtree("moved/subnets")
    shutil.rmtree("moved/checkpoints/step_00000004")
    settings = ("--set", "train.log_every=1")
    assert supernest("run", "run.yaml", "--out", "moved", "--quiet", *settings)[0] == 0
    assert content(Path("moved/subnets/full"))["weights.safetensors"] == weights
    code, _, err = supernest("export", "moved", "--budget", "macs<=90%")
    assert (code, err) == (0, "")
