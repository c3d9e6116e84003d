"""Runs of a plug-in: every later command finds the module where the run found it, or says what is missing."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments import cli
from search_spaces import FAMILIES
from search_spaces.sealed_json import sealed
from supernet.engine.supernet import SUPERNETS
from supernet.standalone import MODULES

MODULE = "own_family_of_test"
PLUGIN = """\
from dataclasses import dataclass

from search_spaces import FAMILIES, ViTSpace
from supernet.standalone import MODULES
from supernet.standalone.vit import ViT
from supernet.engine.supernet import SUPERNETS
from supernet.families.vit import ViTSupernet


@FAMILIES.register("own")
@dataclass(frozen=True)
class OwnSpace(ViTSpace):
    \"\"\"A family of a user.\"\"\"

    family = "own"


@SUPERNETS.register("own")
class OwnSupernet(ViTSupernet):
    \"\"\"Its supernet.\"\"\"


MODULES.register("own")(ViT)
"""
YAML = f"""\
plugins: [{MODULE}]
space: {{family: own, preset: small, depth: [1, 2], width: [16, 32], heads: [1, 2]}}
train: {{steps: 2, batch_size: 16, checkpoint_every: 2, evaluate_every: 2, diagnose_every: null}}
search: {{type: random, evaluations: 6}}
budgets: {{full: macs<=100%}}
export: {{stablehlo: false}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def supernest(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Runs each command as a new process would: no plug-in has been imported yet, and the directory is another one."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "path", list(sys.path))
            for registry in (FAMILIES, SUPERNETS, MODULES):
                patch.setattr(registry, "_entries", {k: v for k, v in dict(registry).items() if k != "own"})
            code = cli.main(arguments)
            sys.modules.pop(MODULE, None)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    monkeypatch.chdir(home)
    yield run
    sys.modules.pop(MODULE, None)


@pytest.fixture
def finished(home: Path, supernest: Any) -> Path:
    """A finished run `r`, whose plug-in lies in `code`."""
    if not (home / "r").exists():
        (home / "code").mkdir()
        (home / "code" / f"{MODULE}.py").write_text(PLUGIN)
        (home / "code" / "e.yaml").write_text(YAML)
        code, _, err = supernest("run", "code/e.yaml", "--out", "r")
        assert (code, err) == (0, "")
    return home / "r"


def test_a_run_remembers_where_its_plug_in_is(finished: Path, supernest: Any) -> None:
    place = json.loads((finished / "run.json").read_text())["plugins"][MODULE]
    assert place["path"] == str(finished.parent / "code" / f"{MODULE}.py")
    code, out, err = supernest("evaluate", "r/subnets/full", "--data", "digits", "--json")
    assert (code, err) == (0, "")
    summary = json.loads((finished / "summary.json").read_text())
    assert json.loads(out)["accuracy"] == summary["subnets"][0]["test_accuracy"]
    code, _, err = supernest("export", "r")
    assert (code, err) == (0, "")
    code, out, err = supernest("export", "r", "--budget", "macs<=60%")
    assert (code, err) == (0, "")
    assert (finished / "subnets" / "macs60%" / "manifest.json").is_file()


def test_a_changed_plug_in_is_said(finished: Path, supernest: Any) -> None:
    file = finished.parent / "code" / f"{MODULE}.py"
    file.write_text(PLUGIN + "# changed\n")
    try:
        for command in (
            ("evaluate", "r/subnets/full", "--data", "digits"),
            ("export", "r"),
            ("run", "code/e.yaml", "--out", "r"),
        ):
            code, _, err = supernest(*command)
            assert code == 0
            assert err == (
                f"note: the plug-in {MODULE} was changed since this run began ({file}); results may differ.\n"
            )
    finally:
        file.write_text(PLUGIN)


def test_a_plug_in_that_is_gone_can_be_named(finished: Path, supernest: Any) -> None:
    file = finished.parent / "code" / f"{MODULE}.py"
    moved = file.rename(finished.parent / f"{MODULE}.py")
    evaluate = ("evaluate", "r/subnets/full", "--data", "digits")
    try:
        for command in (evaluate, ("export", "r"), ("export", "r", "--budget", "macs<=50%")):
            code, _, err = supernest(*command)
            assert (code, err.count("\n")) == (2, 1)
            assert f"{MODULE!r} is no longer at {file}. Put it there, or name it: --plugin FILE" in err
            code, _, err = supernest(*command, "--plugin", f"{MODULE}.py")
            assert (code, err) == (0, "")
    finally:
        moved.rename(file)


def test_a_copy_of_an_export_names_its_plug_in(finished: Path, supernest: Any, tmp_path: Path) -> None:

    copy = shutil.copytree(finished / "subnets" / "full", tmp_path / "a" / "b" / "full")
    evaluate = ("evaluate", str(copy), "--data", "digits", "--json")
    code, _, err = supernest(*evaluate)
    assert (code, err.count("\n")) == (2, 1)
    assert "family 'own' is not known here" in err
    assert "--plugin FILE" in err
    assert supernest(*evaluate, "--plugin", f"code/{MODULE}.py")[0] == 0


def test_a_named_plug_in_is_listed(finished: Path, supernest: Any) -> None:
    code, out, _ = supernest("list", "families", "--json", "--plugin", f"code/{MODULE}.py")
    assert code == 0
    assert json.loads(out)["families"]["own"] == "A family of a user"
    code, _, err = supernest("list", "--plugin", "nowhere.py")
    assert (code, err) == (
        2,
        "error: --plugin: nowhere.py: no such file. Give a Python file, or the name of a module.\n",
    )


def test_a_damaged_memory_of_plug_ins_is_one_line(finished: Path, supernest: Any) -> None:
    path = finished / "run.json"
    whole = path.read_text()
    try:
        for damaged in ([], {MODULE: None}, {MODULE: {"path": 3, "sha256": ""}}):
            path.write_text(json.dumps(sealed({**json.loads(whole), "plugins": damaged})))
            code, _, err = supernest("export", "r")
            assert (code, err.count("\n")) == (2, 1)
            assert "run.json: plugins: is damaged" in err
    finally:
        path.write_text(whole)
