"""What users write: scalars that can be read in two ways, names, paths and plug-ins, each refused in one short line."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.configuration.experiment_config import load_config
from experiments.user_input.yaml_files import dump_yaml, parse_yaml
from search_spaces import UserError

YAML = "space: {family: vit, preset: small}\ntrain: {steps: 8}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(tmp_path: Path, supernest: Any) -> Any:
    """Checks an experiment; returns its one line of error, in which the file and nothing long stands."""

    def check(more: str, *arguments: str) -> str:
        file = tmp_path / "e.yaml"
        file.write_text(YAML + more, "utf-8")
        before = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
        code, out, err = supernest("check", str(file), *arguments)
        assert (code, out) == (2, ""), err
        assert err.count("\n") == 1, err
        assert len(err) < 600
        assert {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts} == before
        return err

    return check


@pytest.mark.parametrize(
    "scalar", ["1:30", "1:30.5", "010", "08", "00", "0o17", "1_000", "1_0.5", "0x10", "0b1", "yes", "No", "on", "OFF"]
)
def test_a_scalar_that_can_be_read_otherwise_is_refused_unless_it_is_quoted(scalar: str) -> None:
    with pytest.raises(UserError, match=r"^f: line 1, column 4: a: '.*; write [^a].*in quotes"):
        parse_yaml(f"a: {scalar}", "f")
    assert parse_yaml(f"a: '{scalar}'", "f") == {"a": scalar}
    assert yaml.safe_load(dump_yaml({"a": scalar})) == {"a": scalar}
    assert parse_yaml(dump_yaml({"a": scalar, "b": [scalar]}), "f") == {"a": scalar, "b": [scalar]}


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [
        ("1:30", "90"),
        ("-1:30.5", "-90.5"),
        ("010", "10 or 8"),
        ("09", "9"),
        ("1_0", "10"),
        ("0b11", "3"),
        ("0x1F", "31"),
    ],
)
def test_a_scalar_that_can_be_read_otherwise_is_refused_with_what_to_write(scalar: str, plain: str) -> None:
    with pytest.raises(UserError, match=rf"b\[1\]\.c: '{scalar}' .*; write {plain}, or '{scalar}' in quotes"):
        parse_yaml(f"b: [1, {{c: {scalar}}}]", "f")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: " + "9" * 5000, "a: '9.* has 5000 digits"),
        ("a: 2024-13-40", "a: '2024-13-40' is no date"),
        ("a: =", "a: '=' is no value"),
        ('a: "\\ud800"', "a: '.ud800' holds half of a surrogate pair"),
        ("a: !!binary aGk=", "line 1, column 4: could not determine a constructor for 'tag:yaml.org,2002:binary'"),
        ("a: !!bool x", "line 1, column 4: could not determine"),
        ("a: !!str {b: 1}", "line 1, column 4: could not determine"),
        ("<<: {a: 1}", "'<<' is a merge key"),
        ("? [a]\n: 1", "line 1, column 3: a list or a group is no key"),
        ("a: 1\nb: \x00", "unacceptable character U\\+0000 in line 2"),
        (": :", "line 1, column 1: "),
    ],
)
def test_what_yaml_would_end_in_a_message_of_its_own_is_said_in_ours(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        parse_yaml(text, "f")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("text", "at"), [(".nan", "here"), ("{a: [1, .nan]}", "here: a[1]")])
def test_a_number_that_is_not_finite_is_named_by_its_place(text: str, at: str) -> None:
    with pytest.raises(UserError) as error:
        parse_yaml(text, "here")
    assert str(error.value) == f"{at}: nan is not finite. Give a number."


def test_every_error_of_a_user_is_one_line_that_can_be_printed() -> None:
    said = str(UserError(f"a\nb\u2028{chr(0xD800)}\x1b[0m: {'x' * 10_000}. Mend it."))
    assert said.startswith("a\\nb\\u2028\\ud800\\x1b[0m: xx")
    assert said.endswith("x. Mend it.")
    assert said.isprintable()
    assert len(said) < 1600


def test_a_pipe_is_not_waited_for(supernest: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    code, _, err = supernest("check", str(tmp_path / "pipe.yaml"))
    assert (code, err.count("\n")) == (2, 1)
    assert "is a pipe" in err


@pytest.mark.parametrize("scalar", ["0", "10", "-3", "0.5", "1.0e-3", "true", "null", "3x3", "mpd-7", "192.168.0.1"])
def test_all_other_scalars_are_what_yaml_makes_of_them(scalar: str) -> None:
    assert parse_yaml(f"a: {scalar}", "f") == yaml.safe_load(f"a: {scalar}")


def test_set_keeps_the_rule(refused: Any) -> None:
    assert "--set train.steps: " in refused("", "--set", "train.steps=1_000")
    assert "is not of the form" in refused("", "--set", "train.steps: :")


@pytest.mark.parametrize("name", ["..", ".", "-x", ".hidden", "a/b", "a" * 101, "a\nb", "a\0b", ""])
def test_names_that_would_be_other_directories_are_refused(refused: Any, name: str) -> None:
    assert "--set: name: " in refused("", "--set", f"name={yaml.safe_dump(name)}".strip())
    budgets = yaml.safe_dump({"budgets": {name: "macs<=50%"}})
    assert "budgets" in refused(budgets)


@pytest.mark.parametrize("path", ["", "a\nb", "a\0b", "x" * 256, "y/" * 2500, "\ud800"])
def test_paths_that_no_file_can_have_are_refused(refused: Any, path: str) -> None:
    quoted = yaml.safe_dump(path, width=10**6).strip().removesuffix("\n...")
    assert "rank.cache: " in refused(f"rank: {{cache: {quoted}}}\n")
    assert "device.path: " in refused(f"device: {{path: {quoted}}}\n")
    assert "start.path: " in refused(f"start: {{path: {quoted}}}\n")
    assert "teachers" in refused("", "--set", f"train.distillation={{type: none, teachers: [{quoted}]}}")
    assert "data" in refused(f"data: {{source: npz, path: {quoted}}}\n")


def test_paths_on_the_command_line_keep_the_rule(supernest: Any, tmp_path: Path) -> None:
    os.symlink("loop", tmp_path / "loop")
    for path in ("a\nb", "x" * 300, str(tmp_path / "loop"), os.fsdecode(b"a\xff")):
        for command in (("check", path), ("run", "e.yaml", "--out", path), ("export", path), ("evaluate", path)):
            code, _, err = supernest(*command)
            assert code == 2
            assert err.count("\n") == 1, err
            assert len(err) < 400


@pytest.mark.parametrize("plugin", ["", ".x", "a-b", "a..b", "a b", "/x", "1x"])
def test_plug_ins_are_modules(refused: Any, plugin: str) -> None:
    assert "e.yaml: plugins[0]: " in refused(f"plugins: ['{plugin}']\n")


def test_a_directory_beside_the_file_is_no_plug_in(refused: Any, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "folder_of_mine").mkdir()
    assert "is a directory without" in refused("plugins: [folder_of_mine]\n")


@pytest.mark.parametrize("code", ["def f(:\n", "1 / 0\n", "raise TypeError('first\\nsecond')\n", "import\x00\n"])
def test_a_plug_in_whose_code_fails_is_named_with_its_line(refused: Any, tmp_path: Path, code: str) -> None:
    name = f"failing_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code, "utf-8")
    assert f"plugins[0]: '{name}' fails when it is imported: " in refused(f"plugins: [{name}]\n")


def test_what_has_no_end_or_is_too_large_is_not_read_whole(supernest: Any, tmp_path: Path) -> None:
    code, _, err = supernest("check", "/dev/zero")
    assert code == 2
    assert "too large" in err
    large = tmp_path / "large.yaml"
    large.write_text("a: 1\n" * 100_000, "utf-8")
    code, _, err = supernest("check", str(large))
    assert code == 2
    assert "too large" in err


def test_deep_nesting_and_long_values_are_short_lines(refused: Any) -> None:
    assert "line 3, column" in refused("rank: " + "[" * 200 + "]" * 200 + "\n")
    assert "e.yaml: rank.panel: " in refused(f"rank: {{panel: {'x' * 5000}}}\n")
    assert "no such setting" in refused(f"{'k' * 1000}: 1\n")


def test_every_experiment_of_the_repository_is_still_read() -> None:
    root = Path(__file__).resolve().parents[3] / "experiments"
    for file in sorted([*root.glob("*.yaml"), *root.glob("benchmarks/panels/*.yaml")]):
        text = file.read_text("utf-8")
        assert isinstance(parse_yaml(text, str(file)), dict)
    assert load_config(root / "digits.yaml").name == "digits"
