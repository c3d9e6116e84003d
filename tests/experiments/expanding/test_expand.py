"""Blocks that are trained, expanded to another depth by `supernest expand`, and trained on."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.run_directory import RunDirectory
from experiments.storage.checkpoints import Checkpoints
from experiments.training.parent import checkpoints_of
from experiments.training.stage import initial, train_step, trained_params
from supernet.sharing.stage_expansion import StageExpansion

FILE = """\
data: {source: digits, train_limit: 40}
space: {family: vit, preset: small, width: [8], depth: [3], heads: [1], mlp_ratio: [1.0], head_dim: 8}
supernet: {sharing: stage_expansion, stages: [2, 1]}
sampler: {type: uniform}
train: {steps: 2, batch_size: 8, optimizer: {warmup_steps: 0}}
evaluation: {calibration_batches: 1, calibration_batch_size: 32}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two blocks, beside its file; its training is at its end, with fresh weights."""
    home = tmp_path_factory.mktemp("blocks")
    (home / "blocks.yaml").write_text(FILE, encoding="utf-8")
    experiment = build_experiment(load_config(home / "blocks.yaml"))
    RunDirectory.create_or_resume(home / "run", experiment.config).close()
    with Checkpoints(home / "run" / "checkpoints", 1, 0, experiment.config.identity) as saved:
        saved.save(experiment.steps, initial(experiment, train_step(experiment)))
    return home / "run"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_blocks_are_expanded_to_any_depth(run: Path, supernest: Any) -> None:
    code, out, err = supernest("expand", str(run), "--depth", "5", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["sharing"], found["depth"], found["blocks"]) == ("stage_expansion", 5, 2)
    assert found["params"] > 2 * found["stored_params"]
    assert found["file"] == "blocks_5_layers.yaml"
    parent = build_experiment(load_config(run / "config.yaml"))
    with checkpoints_of(parent, run) as saved:
        blocks = trained_params(parent, saved)
    child: Any = build_experiment(load_config(found["file"]))
    start: Any = initial(child, train_step(child)).train.params
    assert child.config.supernet.sharing == "entangled"
    assert child.space.depth == (5,)
    for own, layers in zip(jax.tree.leaves(blocks["layers"]), jax.tree.leaves(start["layers"]), strict=True):
        np.testing.assert_array_equal(layers, np.asarray(own)[[0, 0, 0, 1, 1]])

    code, _, err = supernest("expand", str(run), "--depth", "3", "--out", found["file"])
    assert code == 2
    assert "--out: blocks_5_layers.yaml exists, and is left as it is. Name a new file." in err


def test_an_expansion_is_trained_on(run: Path, supernest: Any) -> None:
    assert supernest("expand", str(run), "--depth", "2", "--out", "two.yaml")[0] == 0
    code, _, err = supernest("train", "two.yaml", "--out", "two", "--quiet")
    assert code == 0, err
    assert list(Path("two/checkpoints").glob("step_*2"))


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (0, "--depth: 0 is less than 1. Give the number of layers."),
        (1, "--depth: 1 is less than the 2 stages of stage_expansion, each of which has a layer or more. Give 2 or"),
    ],
)
def test_a_depth_that_cannot_be_given_is_one_line(run: Path, supernest: Any, depth: int, expected: str) -> None:
    code, _, err = supernest("expand", str(run), "--depth", str(depth))
    assert code == 2
    assert err.count("\n") == 1
    assert expected in err
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (("supernet={sharing: entangled, parent: RUN}", "space.depth=[1]"), "space.depth: 1 is less than the 2 stages"),
        (("supernet={sharing: entangled, parent: RUN}", "space.width=[16]"), "RUN is of another search space"),
        (
            ("supernet={sharing: entangled, parent: RUN}", "federation={rounds: 1, local_steps: 1, clients: {a: {}}}"),
            "supernet.parent: not for federation",
        ),
        (("supernet={sharing: entangled, stages: [2, 1]}",), "supernet.stages: is for sharing stage_expansion, and"),
        (("train.incubation={modules: 3, meta_steps: 1, module_steps: 1}",), "stage_expansion would change the"),
    ],
)
def test_what_does_not_fit_the_blocks_is_refused(
    run: Path, supernest: Any, changes: tuple[str, ...], expected: str
) -> None:
    given = [part for change in changes for part in ("--set", change.replace("RUN", str(run)))]
    code, _, err = supernest("check", str(run.parent / "blocks.yaml"), *given)
    assert code == 2
    assert err.count("\n") == 1
    assert expected.replace("RUN", str(run)) in err


def test_a_run_without_blocks_is_refused(run: Path, supernest: Any) -> None:
    code, _, err = supernest("expand", str(run.parent), "--depth", "2")
    assert code == 2
    assert "is no run. Give the directory of a trained run." in err


def test_stages_of_the_file_are_those_of_the_scheme(run: Path) -> None:
    scheme = build_experiment(load_config(run / "config.yaml")).net.sharing
    assert isinstance(scheme, StageExpansion)
    assert scheme.stages == (2, 1)
