"""Plug-ins: modules of a user that register families, sources, samplers or searchers; found, imported, remembered."""

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.storage.run_files import RUN, is_run, read_run
from experiments.user_input.problems import Problem, ProblemsError, show
from search_spaces.errors import UserError

_PLUGINS, _PLACE = "plugins", ("path", "sha256")


def import_plugins(names: Any, directory: Path) -> None:
    """Imports the plug-ins that an experiment names, also from beside its file, or from where its run found them.

    Args:
        names: Names of modules; anything else is left to the validation.
        directory: Directory of the experiment file, or a run directory.

    Raises:
        ProblemsError: A module is not there, or cannot be used.
    """
    if not isinstance(names, list) or not all(
        isinstance(name, str) and all(part.isidentifier() for part in name.split(".")) for name in names
    ):
        return
    known = plugins_of_run(directory)
    if names:
        _search_in([directory, *(_root(name, place) for name, place in known.items())])
    for i, name in enumerate(names):
        try:
            _import(name, known.get(name))
        except UserError as error:
            raise ProblemsError([Problem((_PLUGINS, i), str(error))]) from error.__cause__


def import_plugin(given: str) -> None:
    """Imports a plug-in that the command line names.

    Args:
        given: A Python file, a directory of a package, or the name of a module.

    Raises:
        UserError: There is none, or it cannot be used.
    """
    path = Path(given).expanduser()
    is_file = path.suffix == ".py" or path.is_dir()
    if is_file and not path.exists():
        raise UserError(f"--plugin: {given}: no such file. Give a Python file, or the name of a module.")
    _search_in([path.absolute().parent if is_file else Path.cwd()])
    try:
        _import(path.stem if is_file else given, None)
    except UserError as error:
        raise UserError(f"--plugin: {error}") from None


def import_plugins_of_run(run: Path) -> None:
    """Imports the plug-ins that a run began with; nothing where `run` is no run directory.

    Raises:
        UserError: One of them is not where it was.
    """
    for name, place in plugins_of_run(run).items():
        _search_in([_root(name, place)])
        try:
            _import(name, place)
        except UserError as error:
            raise UserError(f"{run / RUN}: {error}") from None


def plugins_of_run(run: Path) -> Mapping[str, Mapping[str, str]]:
    """Returns the name of each plug-in that a run began with, its `path`, and the `sha256` that its code had."""
    if not is_run(run):
        return {}
    found = read_run(run).get(_PLUGINS, {})
    places = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(place, dict) and {type(place.get(key)) for key in _PLACE} == {str} for place in places):
        raise UserError(f"{run / RUN}: {_PLUGINS}: is damaged. Restore the file.")
    return found


def changed_plugins(run: Path) -> list[str]:
    """Returns a line about each plug-in whose code is another than when the run began."""
    known = plugins_of_run(run)
    now = places_of(name for name in known if name in sys.modules)
    return [
        f"the plug-in {name} was changed since this run began ({now[name]['path']}); results may differ."
        for name in now
        if now[name]["sha256"] != known[name]["sha256"]
    ]


def places_of(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Returns where each imported plug-in lies, and the SHA-256 of its code, for `run.json`."""
    found = {}
    for name in names:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is not None:
            path = Path(origin).absolute()
            found[name] = {"path": str(path), "sha256": _sha256(path)}
    return found


def _import(name: str, place: Mapping[str, str] | None) -> None:
    """Imports a module; `place` is where a run found it."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            text = f"{show(name)} needs the module {error.name!r}, which is not installed. Install it."
        elif place is not None:
            text = f"{show(name)} is no longer at {place['path']}. Put it there, or name it: --plugin FILE"
        else:
            text = f"{show(name)} is no module here. Install it, or put it beside the experiment file."
        raise UserError(text) from None
    except UserError as error:
        raise UserError(f"{show(name)} cannot be used: {error}") from None
    except Exception as error:
        raise UserError(f"{show(name)} {import_fault(error)}") from error
    if getattr(module.__spec__, "origin", None) is None:  # a namespace package: no code is there
        text = f"{show(name)} is a directory without {name.split('.')[-1]}/__init__.py. Name a module in it."
        raise UserError(text)


def import_fault(error: Exception) -> str:
    """Returns what to say of a module whose own code fails while it is imported: the error, and its last line there."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line, file = (error.lineno, error.filename) if isinstance(error, SyntaxError) else (last.lineno, last.filename)
    said = " ".join(str(error).split())
    return f"fails when it is imported: {type(error).__name__}: {said} ({file}, line {line}). Mend it there."


def _search_in(directories: Sequence[Path]) -> None:
    for directory in map(str, directories):
        if directory not in sys.path:
            sys.path.append(directory)


def _root(name: str, place: Mapping[str, str]) -> Path:
    """Returns the directory that a module of this name was imported from."""
    path = Path(place["path"])
    above = name.count(".") + (path.name == "__init__.py")
    return path.parents[above]


def _sha256(path: Path) -> str:
    """Returns the SHA-256 of a module's file; for a package that of all its Python files."""
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path.parent)}\n".encode() + file.read_bytes())
    return digest.hexdigest()
