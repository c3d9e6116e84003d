"""Files of a run: figures that were changed or are of another run are refused, and a kill loses none of them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import supernest as sn
from experiments import cli
from supernest import UserError

YAML = """\
space: {family: vit, preset: small, depth: [1, 2], width: [16, 32], heads: [1, 2]}
train: {steps: 4, batch_size: 16, checkpoint_every: 2, evaluate_every: 2, diagnose_every: null}
search: {type: random, evaluations: 6}
budgets: {full: macs<=100%}
export: {stablehlo: false}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "e.yaml").write_text(YAML)
    assert cli.main(["run", str(home / "e.yaml"), "--out", str(home / "run")]) == 0
    assert cli.main(["train", str(home / "e.yaml"), "--out", str(home / "other"), "--set", "seed=1"]) == 0
    return home


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished / "run", tmp_path / "run")


def command(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    return called(["export", str(run)], capsys)


def called(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(arguments)
    return code, capsys.readouterr().err


def changed(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "train": {**content["train"], "probe_error": 0.0}}


DAMAGED = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda _: "",
    "of another kind": lambda _: "[]",
    "changed": lambda text: json.dumps(changed(json.loads(text))),
    "without its hash": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "sha256"}),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_summary_is_refused_and_kept(run: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "summary.json"
    path.write_text(damaged := DAMAGED[kind](path.read_text()))
    code, err = command(run, capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{path}: is damaged" in err
    assert "Delete it" in err
    assert path.read_text() == damaged
    with pytest.raises(UserError, match="is damaged"):
        _ = sn.Run(run).summary


def test_the_summary_of_another_run_is_refused(finished: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(finished / "other" / "summary.json", run / "summary.json")
    code, err = command(run, capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "is damaged or is of another run" in err


def test_a_lost_summary_is_written_again_whole(finished: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((run / "summary.json").read_text())
    (run / "summary.json").unlink()  # as a kill between the last checkpoint and the summary leaves it
    assert cli.main(["run", str(finished / "e.yaml"), "--out", str(run)]) == 0
    after = json.loads((run / "summary.json").read_text())
    assert after["train"] == before["train"]
    assert after["train"]["probe_error"] is not None
    for row in (*before["subnets"], *after["subnets"]):
        row.pop("directory")
    assert {**after, "sha256": ""} == {**before, "sha256": ""}


def test_a_lost_summary_is_not_taken_for_stages_that_were_not_run(
    finished: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "summary.json").unlink()
    for arguments in (
        ("report", str(run), "--out", str(run / "page.html")),
        ("status", str(run)),
        ("export", str(run)),
        ("search", str(run)),
        ("search", str(finished / "e.yaml"), "--from", str(run), "--out", str(run.parent / "another")),
    ):
        code, err = called(arguments, capsys)
        assert (code, err.count("\n")) == (2, 1), err
        assert "summary.json: missing, though the run has results" in err
        assert not (run / "summary.json").exists()
    assert not (run.parent / "another").exists()
    assert not (run / "page.html").exists()


def test_damaged_fronts_are_refused_by_readers_and_mended_by_the_run(
    finished: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "search" / "pareto.json"
    whole = path.read_text()
    for damaged in (whole.replace("params", "param_"), whole[:100], "[]"):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"pareto\.json: is damaged.*Search again"):
            _ = sn.Run(run).pareto
        code, err = command(run, capsys)
        assert (code, err) == (0, "")
        assert path.read_text() == whole


def test_a_changed_configuration_answers_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    for arguments in (
        ["export", str(run)],
        ["export", str(run), "--budget", "macs<=90%", "--show"],
        ["evaluate", str(run / "subnets" / "full"), "--data", str(path)],
        ["report", str(run)],
    ):
        capsys.readouterr()
        assert cli.main(arguments) == 2, arguments
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "config.yaml: was changed after the run began" in err
