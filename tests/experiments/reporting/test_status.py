"""`supernest status`: how far a run is, finished, going or just begun."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.configuration.experiment_config import load_config
from experiments.process import progress
from experiments.run_directory import RunDirectory

YAML = """\
space: {family: vit, preset: small, depth: [1], width: [16], heads: [1, 2]}
train: {steps: 4, batch_size: 16, checkpoint_every: 2, evaluate_every: 2, diagnose_every: null}
search: {type: random, evaluations: 2}
budgets: {full: macs<=100%}
export: {stablehlo: false}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an experiment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.yaml").write_text(YAML)
    return tmp_path


def test_every_stage_says_how_far_it_is(supernest: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> dict[str, Any]:
        code, out, err = supernest("status", "run", "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    with RunDirectory.create_or_resume("run", load_config("e.yaml")):
        begun = found()
    assert begun["process"] > 0
    assert [begun[stage] for stage in ("incubation", "train", "search", "export", "rank")] == [None] * 5
    monkeypatch.setattr(progress, "SECONDS", 0)
    code, _, err = supernest("train", "e.yaml", "--out", "run")
    assert code == 0
    said = err.splitlines()
    assert any(line.startswith("train (compiling program 1 of 1, once): 0 of 4 steps") for line in said)
    assert said[-1].startswith("train: 4 of 4 steps")
    assert all("loss=" in line and "accuracy=" in line for line in said if line.startswith(("train: 3", "train: 4")))
    assert all(line.startswith(("train", "warning: ")) for line in said)
    trained = found()
    assert (trained["process"], trained["search"]) == (None, None)
    assert {name: trained["train"][name] for name in ("step", "steps", "checkpoint", "ended")} == {
        "step": 4, "steps": 4, "checkpoint": 4, "ended": True,
    }  # fmt: skip
    assert 0 <= trained["train"]["validation_error/largest"] <= 1
    assert supernest("run", "e.yaml", "--out", "run", "--quiet")[0] == 0
    code, out, _ = supernest("status", "run")
    assert code == 0
    lines = dict(line.split(None, 1) for line in out.splitlines() if not line.startswith(" "))
    assert lines == {
        "name": "e", "process": "none is at work", "train": "step 4 of 4, ended", "search": "2 of 2 subnets",
        "export": "full",
    }  # fmt: skip


def test_what_is_no_run_is_one_line(supernest: Any, here: Path) -> None:
    code, _, err = supernest("status", ".")
    assert (code, err) == (2, "error: .: is no run directory. Give the directory that supernest run wrote.\n")
