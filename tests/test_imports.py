"""The layering of the packages, and what importing them costs."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ALLOWED = {
    "search_spaces": {"search_spaces"},
    "supernet": {"search_spaces", "supernet"},
    "samplers": {"search_spaces", "samplers"},
    "search": {"search_spaces", "search"},
    "experiments": {"search_spaces", "supernet", "samplers", "search", "experiments"},
    "supernest": {"search_spaces", "supernet", "experiments", "supernest"},
}


def imported_packages(source: str) -> set[str]:
    """Returns the top-level names that Python source imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("package", ALLOWED)
def test_package_imports_only_what_is_below_it(package: str) -> None:
    files = sorted((REPOSITORY / package).rglob("*.py"))
    assert files
    for path in files:
        ours = imported_packages(path.read_text("utf-8")) & ALLOWED.keys()
        assert ours <= ALLOWED[package], f"{path.relative_to(REPOSITORY)} imports {ours - ALLOWED[package]}"


def rooms_of(package: str) -> dict[str, set[str]]:
    """Returns for each folder and file of a package the others that it imports; benchmarks are left out."""
    root, arrows = REPOSITORY / package, {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] == "benchmarks":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            rooms = {name.split(".")[1] for name in modules if name.startswith(f"{package}.")}
            arrows.setdefault(parts[0], set()).update(rooms - {parts[0]})
    return arrows


@pytest.mark.parametrize(
    ("package", "some"),
    [("experiments", {"training", "searching", "pipeline", "storage"}), ("supernet", {"layers", "engine", "families"})],
)
def test_no_arrow_between_rooms_runs_back_up(package: str, some: set[str]) -> None:
    """Rooms can be put in an order in which each imports only what is below it."""
    left = rooms_of(package)
    assert some <= left.keys()
    while left:
        bottom = [room for room, below in left.items() if not below & left.keys()]
        assert bottom, f"imports run in a circle: {left}"
        left = {room: below for room, below in left.items() if room not in bottom}


def test_stages_meet_in_the_pipeline() -> None:
    """A stage imports another one only where it continues it: panels train, exports follow search."""
    stages = {
        "training", "searching", "gradient", "ranking", "exporting", "profiling", "finetuning", "souping", "incubation",
        "federation",
        "splitting",
    }  # fmt: skip
    continues = {
        "ranking": {"training"}, "gradient": {"training", "searching"}, "exporting": {"training", "searching"},
        "finetuning": {"training", "exporting"}, "incubation": {"training"},
        "federation": {"exporting"},
        "splitting": {"training"},
        "souping": {"training", "searching", "exporting", "finetuning", "incubation"},
    }  # fmt: skip
    arrows = rooms_of("experiments")
    for stage in stages:
        others = arrows[stage] & stages
        assert others <= continues.get(stage, set()), f"{stage} imports {others}"


def test_nothing_imports_tests_or_relatively() -> None:
    for package in ALLOWED:
        for path in (REPOSITORY / package).rglob("*.py"):
            tree = ast.parse(path.read_text("utf-8"))
            relative = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
            assert not relative, f"{path} imports relatively; the folder is the import"
            assert "tests" not in imported_packages(path.read_text("utf-8")), path


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b\ndef f():\n    from c.d import e\n    if f:\n        import g as h\nfrom . import i\n"
    assert imported_packages(source) == {"a", "c", "g"}


@pytest.mark.parametrize("package", ["search_spaces", "samplers", "search", "supernest"])
def test_numpy_packages_do_not_import_jax(package: str) -> None:
    result = run_python(f"import sys, {package}; assert 'jax' not in sys.modules and 'flax' not in sys.modules")
    assert result.returncode == 0, result.stderr


def test_search_spaces_import_quickly() -> None:
    code = "import time, numpy; t = time.process_time(); import search_spaces; print(time.process_time() - t)"
    seconds = min(float(run_python(code).stdout) for _ in range(5))  # other processes only add to it
    assert seconds < 0.3, f"import search_spaces takes {seconds:.2f} s of the processor on top of NumPy"


def test_help_is_quick_and_does_not_import_jax() -> None:
    code = (
        "import sys; from experiments.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'jax', 'flax', 'numpy', 'pydantic', 'sklearn'} & sys.modules.keys(); assert not heavy, heavy\n"
        "import time; print(time.process_time())"
    )
    seconds = []
    for _ in range(3):
        result = run_python(code)
        assert result.returncode == 0, result.stderr
        *shown, own = result.stdout.splitlines()
        assert any("run" in line for line in shown)
        seconds.append(float(own))
    assert min(seconds) < 0.5, f"supernest --help takes {min(seconds):.2f} s of the processor"


def test_a_run_imports_nothing_that_it_may_not_need() -> None:
    """Each of these takes a second or two of the processor, in every command and in every worker."""
    heavy = {"torch", "scipy.stats", "sklearn", "transformers", "datasets", "matplotlib", "ray"}
    code = (
        "import sys, experiments.pipeline.run, experiments.pipeline.open_run, experiments.commands.stages\n"
        f"heavy = {heavy} & sys.modules.keys(); assert not heavy, heavy\n"
        "import experiments.storage.event_records, torch; torch.ones(1)"  # it is hidden for that moment only
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_every_package_is_installed() -> None:
    """A package that the list leaves out works in a checkout and is missing from an installation."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    found = [
        ".".join(path.parent.relative_to(REPOSITORY).parts)
        for package in ALLOWED
        for path in (REPOSITORY / package).rglob("__init__.py")
    ]
    assert sorted(listed) == sorted(found)
