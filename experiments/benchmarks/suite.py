"""Time of the test suite: in all, by folder, and its slowest tests, from the tables of durations that it leaves.

Command: `make test test-all; python -m experiments.benchmarks.suite --json`

`fast_s` and `all_s` are the wall time of the last `make test` and `make test-all`, null where there was none. Times of
folders and tests are those of `make test-all`, added up over its processes; what else the machine does is in them.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click

from experiments.benchmarks.output import show
from experiments.commands.options import json_option
from search_spaces import UserError

_TABLES = {"fast_s": "tests_fast.xml", "all_s": "tests.xml"}
_SLOWEST = 25


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path(".cache"),
    show_default=True,
    help="Folder of the tables.",
)
@json_option
def main(directory: Path, as_json: bool) -> None:
    """Prints the figures of the last runs of the tests."""
    try:
        show(figures(directory), as_json)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def figures(directory: Path) -> dict[str, Any]:
    """Returns seconds of both runs, and of folders and tests of the longer one.

    Args:
        directory: Where pytest left its tables.

    Raises:
        UserError: There is no table of all tests.
    """
    tables = {name: directory / file for name, file in _TABLES.items()}
    if not tables["all_s"].is_file():
        raise UserError(f"{tables['all_s']}: no such file. It is left by make test-all: run that first.")
    suites = {name: _suite(path) for name, path in tables.items() if path.is_file()}
    found: dict[str, Any] = dict.fromkeys(_TABLES)
    found |= {name: float(suite.attrib["time"]) for name, suite in suites.items()}
    folders: dict[str, float] = defaultdict(float)
    tests: dict[str, float] = defaultdict(float)
    for case in suites["all_s"].iter("testcase"):
        module, seconds = case.attrib["classname"], float(case.attrib["time"])
        folders["/".join(module.split(".")[:-1])] += seconds
        tests[f"{module.replace('.', '/')}.py::{case.attrib['name']}"] += seconds
    return {
        **found,
        "tests": len(tests),
        "folders_s": _longest(folders, len(folders)),
        "slowest_s": _longest(tests, _SLOWEST),
    }


def _suite(path: Path) -> ElementTree.Element:
    return next(ElementTree.parse(path).iter("testsuite"))


def _longest(seconds: Mapping[str, float], count: int) -> dict[str, float]:
    return {name: round(seconds[name], 1) for name in sorted(seconds, key=lambda name: -seconds[name])[:count]}


if __name__ == "__main__":
    main()
