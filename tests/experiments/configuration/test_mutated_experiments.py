"""Mutated experiments: no traceback, no hang, one line with file and key, exit code 2, nothing written by a refusal."""

from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks import mutations

_CASES = 250


def test_mutated_experiments_are_read_or_refused_in_one_line() -> None:
    broken, codes = mutations.run(_CASES, quick=True)
    assert not broken, broken[0]
    assert codes.total() == _CASES
    assert codes[0]
    assert codes[2] > 100


def test_a_refused_check_keeps_no_tokens(supernest: Any, here: Path) -> None:
    text = "To be, or not to be, that is the question. " * 200
    (here / "text.txt").write_text(text, "utf-8")
    experiment = (
        "data: {source: text, path: text.txt, context: 16, cache: tokens}\n"
        "space: {family: language, preset: small, depth: [1, 2]}\ntrain: {steps: 10}\n"
    )
    (here / "e.yaml").write_text(experiment, "utf-8")
    code, _, err = supernest("check", "e.yaml", "--set", "search.population=0")
    assert (code, err.count("\n")) == (2, 1)
    assert not (here / "tokens").exists()


def test_export_of_no_run_says_so(supernest: Any, here: Path) -> None:
    code, _, err = supernest("export", "runs/none", "--budget", "macs<=50%")
    assert (code, err) == (
        2, "error: runs/none: there is no such run. Give the directory that supernest run wrote.\n",
    )  # fmt: skip


def test_a_profile_takes_no_device(supernest: Any, here: Path) -> None:
    (here / "e.yaml").write_text("space: {family: vit, preset: small}\n", "utf-8")
    code, _, err = supernest("profile", "e.yaml", "--set", "device=notyet.json")
    assert (code, err.count("\n")) == (2, 1)
    assert "--set 'device=notyet.json': the device is what is measured. Leave it out" in err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
