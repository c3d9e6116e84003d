"""A supernet that is trained, divided, and trained on: `supernest split`, and the runs before and behind it."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.process.interrupt import StopRequest
from experiments.splitting.choice import Splitting, choose_split, write_experiment
from experiments.storage.checkpoints import Checkpoints
from experiments.training.parent import parent_of
from experiments.training.stage import initial, train_step, trained_params
from search_spaces import UserError
from supernet.sharing.split import ChoiceSplit, SplitSharing
from supernet.training.gradient_matching import GradientMatching

HALVES = ChoiceSplit("heads", ((1,), (2, 4)))

FILE = """\
data: {source: digits, train_limit: 100}
space: {family: vit, preset: small, width: [16], depth: [1, 2], heads: [1, 2, 4], mlp_ratio: [1.0, 2.0], head_dim: 4}
sampler: {type: uniform}
train: {steps: 8, batch_size: 8, checkpoint_every: 4, evaluate_every: 8, ema: 0.9, optimizer: {warmup_steps: 0}}
search: {evaluations: 4, population: 4, parents: 2}
evaluation: {calibration_batches: 1, calibration_batch_size: 32}
budgets: {full: {macs: 100%}}
export: {stablehlo: false}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a trained run `parent`."""
    from experiments.cli import main

    home = tmp_path_factory.mktemp("parent")
    (home / "vit.yaml").write_text(FILE, encoding="utf-8")
    assert main(["train", str(home / "vit.yaml"), "--out", str(home / "parent"), "--quiet"]) == 0
    return home


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(run: Path) -> Any:
    """The weights of a run, as search and export use them."""
    config = load_config(run / "config.yaml")
    experiment = build_experiment(config)
    with Checkpoints(run / "checkpoints", keep_last=9, keep_best=0, run=config.identity) as checkpoints:
        return experiment, jax.tree.map(np.asarray, trained_params(experiment, checkpoints))


def test_a_supernet_is_divided_by_gradients_and_trained_on(here: Path, supernest: Any) -> None:
    code, out, err = supernest("split", "parent", "--out", "child.yaml", "--draws", "2", "--quiet", "--json")
    assert code == 0, err
    found = json.loads(out)
    cuts = [candidate["cut"] for candidate in found["candidates"]]
    assert cuts == sorted(cuts, reverse=True)
    assert {candidate["choice"] for candidate in found["candidates"]} == {"heads", "mlp_ratio"}
    assert found["split"]["choice"] == found["candidates"][0]["choice"]
    assert found["sub_supernets"] == 2
    assert found["bytes"] == 2 * found["parent_bytes"]

    parent, params = weights(here / "parent")
    child = build_experiment(load_config(here / "child.yaml"))
    assert isinstance(child.net.sharing, SplitSharing)
    start = initial(child, train_step(child)).train.params
    for genes in parent.space.sample(np.random.default_rng(0), 6):
        architecture = parent.space.architecture(genes)
        jax.tree.map(
            np.testing.assert_array_equal,
            child.net.extract(start, architecture)[1],
            parent.net.extract(params, architecture)[1],
        )

    code, _, err = supernest("run", "child.yaml", "--out", "child", "--quiet")
    assert code == 0, err
    report = json.loads((here / "child" / "subnets" / "full" / "report.json").read_text())
    assert report["parity_error"] <= 1e-4
    _, whole = weights(here / "child")
    shutil.rmtree(here / "child" / "checkpoints" / "step_00000008")
    shutil.copytree(here / "child" / "checkpoints", here / "cut" / "checkpoints")
    for name in ("config.yaml", "run.json"):
        shutil.copyfile(here / "child" / name, here / "cut" / name)
    code, _, err = supernest("train", "child.yaml", "--out", "cut", "--quiet")
    assert code == 0, err
    jax.tree.map(np.testing.assert_array_equal, weights(here / "cut")[1], whole)


def test_a_split_that_was_chosen_is_written_once_and_can_be_divided_again(here: Path, supernest: Any) -> None:
    arguments = ("split", "parent", "--by", "exhaustive", "--choice", "heads", "--quiet", "--out", "child.yaml")
    code, out, err = supernest(*arguments)
    assert code == 0, err
    assert '"groups": [[1], [2], [4]]' in out
    assert "3 sub-supernets" in out
    code, _, err = supernest(*arguments)
    assert code == 2
    assert "--out: child.yaml exists, and is left as it is. Name a new file." in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("vit.yaml",), "vit.yaml: is no run. Give the directory of a trained run."),
        (("parent", "--choice", "head"), "--choice: 'head' is no choice of several values that every subnet has. Did"),
        (("parent", "--choice", "heads", "--groups", "4"), "--groups: no gene that every subnet has, and that is not"),
        (("parent", "--choice", "heads", "--position", "1"), "--position: 1: no gene that every subnet has"),
        (("parent", "--by", "exhaustive", "--groups", "3"), "--groups: is for --by gradients or random. Leave it out."),
        (("parent", "--by", "random", "--draws", "3"), "--draws: is for --by gradients. Leave it out."),
    ],
)
def test_what_cannot_be_split_is_one_line(
    here: Path, supernest: Any, arguments: tuple[str, ...], expected: str
) -> None:
    code, _, err = supernest("split", *arguments, "--out", "child.yaml")
    assert code == 2
    assert err.count("\n") == 1
    assert expected in err
    assert not (here / "child.yaml").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            ("supernet={sharing: entangled, parent: parent}",),
            "PARENT has sharing entangled. Give a run with linear",
        ),
        (("supernet={sharing: split, parent: vit.yaml}",), "is no run with a trained supernet. Train one"),
        (
            ("supernet={sharing: split, parent: parent}", "seed=1"),
            "parent: PARENT was trained with another data section",
        ),
        (
            ("supernet={sharing: split, parent: parent}", "space.depth=[1]"),
            "parent: PARENT is of another search",
        ),
        (("supernet={sharing: split, splits: [{choice: heads, groups: [[1]]}]}",), "splits[0].groups: [[1]] is no"),
        (("supernet={sharing: split, splits: [{choice: heads}]}",), "supernet.splits[0].groups: missing"),
        (
            ("supernet={sharing: split, splits: [{choice: heads, groups: [[1, true], [4]]}]}",),
            "supernet.splits[0].groups[0][1]: true is no number or text. Give values.",
        ),
    ],
)
def test_a_parent_or_split_that_does_not_fit_is_refused(
    here: Path, supernest: Any, changes: tuple[str, ...], expected: str
) -> None:
    code, _, err = supernest("check", "vit.yaml", *(part for change in changes for part in ("--set", change)))
    assert code == 2
    assert err.count("\n") == 1, err
    assert expected.replace("PARENT", str(here / "parent")) in err


def test_what_gave_the_parent_its_first_weights_is_left_out(here: Path) -> None:
    incubated = load_config(here / "vit.yaml", ["train.incubation={modules: 2, meta_steps: 1, module_steps: 1}"])
    write_experiment(build_experiment(incubated), Path("parent"), HALVES, Path("child.yaml"))
    written = load_config(here / "child.yaml")
    assert written.train.incubation is None
    assert written.start is None
    assert parent_of(build_experiment(written)) is not None


def test_check_says_the_size_of_the_sub_supernets(here: Path, supernest: Any) -> None:
    code, out, err = supernest("check", "vit.yaml", "--set", "supernet.sharing=split")
    assert code == 0, err
    assert "          2 sub-supernets of 39.9 KB of weights together\n" in out


def test_draws_are_read_when_they_are_needed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GradientMatching, "distances", lambda self, params, column, draws: next(draws).x * np.nan)
    settings = Splitting(here / "parent", draws=10**6)
    with pytest.raises(UserError, match="parent: has gradients that are not finite"):
        choose_split(settings, StopRequest(), quiet=True)


def test_too_many_partitions_are_refused_before_gradients(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supernet.training.gradient_matching.MOST_VALUES", 2)
    monkeypatch.setattr(GradientMatching, "distances", lambda *_: pytest.fail("measured"))
    with pytest.raises(UserError, match="groups: 3 values have too many partitions"):
        choose_split(Splitting(here / "parent", choice="heads"), StopRequest(), quiet=True)


def test_a_parent_that_has_changed_since_is_refused(here: Path, supernest: Any) -> None:
    assert supernest("split", "parent", "--by", "random", "--quiet", "--out", "child.yaml")[0] == 0
    assert supernest("train", "child.yaml", "--out", "child", "--quiet")[0] == 0
    shutil.rmtree(here / "parent" / "checkpoints" / "step_00000004")
    code, _, err = supernest("search", "child", "--quiet")
    assert code == 2
    assert "is not what the experiment began with. Restore it, or begin a new run." in err
