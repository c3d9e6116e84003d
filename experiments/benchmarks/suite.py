"""Time of the test suite: total, by folder, and its slowest tests, from the tables of durations that pytest writes.

Command: `make test test-all; python -m experiments.benchmarks.suite --json`

`fast_s` and `all_s` are the wall times of the last `make test` and `make test-all`, null if there was none. Times of
folders and tests are sums over the processes of `make test-all`; other jobs on the machine lengthen them.

`--list tests/slow_tests.csv` writes the list of tests that `make test` leaves out because of their time, in addition to
marked tests. Run it on an idle machine, and remove entries that `make test` should run anyway.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import click

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from search_spaces import UserError
from search_spaces.sealed_json import JsonObject

_TABLES = {"fast_s": "tests_fast.xml", "all_s": "tests.xml"}
_SLOWEST = 25
_FAST_S = 1.5


@click.command(cls=Benchmark)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path(".cache"),
    show_default=True,
    help="Directory of the duration tables that pytest writes.",
)
@click.option(
    "--list",
    "listed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Add to FILE the tests of the last make test that took more than {_FAST_S} seconds.",
)
@json_option
def main(directory: Path, listed: Path | None, as_json: bool) -> None:
    """Prints the figures of the last runs of the tests."""
    if listed is not None:
        write_slow(directory / _TABLES["fast_s"], listed)
    else:
        show(figures(directory), as_json)


def figures(directory: Path) -> JsonObject:
    """Returns seconds of both runs, and of folders and tests of the longer one.

    Args:
        directory: Directory of the tables of pytest.

    Raises:
        UserError: The table of all tests is missing.
    """
    tables = {name: directory / file for name, file in _TABLES.items()}
    if not tables["all_s"].is_file():
        raise UserError(f"{tables['all_s']}: no such file. It is left by make test-all: run that first.")
    suites = {name: _suite(path) for name, path in tables.items() if path.is_file()}
    found: dict[str, float | None] = dict.fromkeys(_TABLES)
    found |= {name: float(suite.attrib["time"]) for name, suite in suites.items()}
    folders: dict[str, float] = defaultdict(float)
    tests: dict[str, float] = defaultdict(float)
    for test, seconds in _times(suites["all_s"]):
        folders[str(Path(test.partition("::")[0]).parent)] += seconds
        tests[test] += seconds
    return {
        **found,
        "tests": len(tests),
        "folders_s": _longest(folders, len(folders)),
        "slowest_s": _longest(tests, _SLOWEST),
    }


def write_slow(table: Path, listed: Path) -> None:
    """Adds the slow tests of a table to the list that `make test` leaves out.

    Args:
        table: Table of the last `make test`.
        listed: The list, CSV with `seconds` and `test`.

    Raises:
        UserError: The table is missing.
    """
    if not table.is_file():
        raise UserError(f"{table}: no such file. It is left by make test: run that first.")
    known: dict[str, float] = {}
    if listed.is_file():
        with listed.open(encoding="utf-8", newline="") as file:
            known = {row["test"]: float(row["seconds"]) for row in csv.DictReader(file)}
    known |= {test: round(seconds, 1) for test, seconds in _times(_suite(table)) if seconds > _FAST_S}
    with listed.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("seconds", "test"), *((known[test], test) for test in sorted(known))])


def _times(suite: ElementTree.Element) -> Iterator[tuple[str, float]]:
    """Yields each test and its seconds."""
    for case in suite.iter("testcase"):
        yield f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}", float(case.attrib["time"])


def _suite(path: Path) -> ElementTree.Element:
    return next(ElementTree.parse(path).iter("testsuite"))


def _longest(seconds: Mapping[str, float], count: int) -> dict[str, float]:
    return {name: round(seconds[name], 1) for name in sorted(seconds, key=lambda name: -seconds[name])[:count]}


if __name__ == "__main__":
    main()
