"""A user's folder with the name of a package of ours: the message says which, and what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

import supernest as sn

HOME = Path(sn.__file__).parents[1]


def run(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    path = f"import sys; sys.path[:0] = [{str(directory)!r}, {str(HOME)!r}]; "
    return subprocess.run([sys.executable, "-S", "-c", path + code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["search/__init__.py", "experiments.py"])
def test_a_folder_of_the_user_s_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    shown = path.parent if path.name == "__init__.py" else path
    said = f"{shown}: has the name of a package of Supernest and stands before it on Python's path"
    python = run("import supernest; supernest.run", tmp_path)
    assert python.stderr.splitlines()[-1].startswith(f"ImportError: {said}"), python.stderr
    command = run("from supernest.command_line import program; sys.exit(program())", tmp_path)
    assert (command.returncode, command.stdout) == (2, "")
    assert command.stderr.startswith(f"error: {said}")
    assert len(command.stderr.splitlines()) == 1


def test_a_folder_without_modules_stands_in_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    found = run("from supernest.own_packages import check_own_packages as check; check()", tmp_path)
    assert found.returncode == 0, found.stderr
