"""The suite's times are read from the tables that pytest leaves."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments.benchmarks.suite import main

TABLE = """\
<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" tests="3" time="12.5">
<testcase classname="tests.search.test_a" name="test_one[x]" time="1.5" />
<testcase classname="tests.search.test_b" name="test_two" time="3.5"><skipped message="no browser" /></testcase>
<testcase classname="tests.experiments.data.test_c" name="test_one[x]" time="7.04" />
</testsuite></testsuites>
"""


def test_folders_and_slowest_tests_are_told(tmp_path: Path) -> None:
    (tmp_path / "tests.xml").write_text(TABLE)
    found = CliRunner().invoke(main, ["--directory", str(tmp_path), "--json"])
    assert json.loads(found.stdout) == {
        "fast_s": None,
        "all_s": 12.5,
        "tests": 3,
        "folders_s": {"tests/experiments/data": 7.0, "tests/search": 5.0},
        "slowest_s": {
            "tests/experiments/data/test_c.py::test_one[x]": 7.0,
            "tests/search/test_b.py::test_two": 3.5,
            "tests/search/test_a.py::test_one[x]": 1.5,
        },
    }


def test_without_a_table_it_says_what_to_run(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["--directory", str(tmp_path)])
    assert found.exit_code == 2
    assert found.stderr.endswith("tests.xml: no such file. It is left by make test-all: run that first.\n")
    assert found.stderr.startswith("error: ")


def test_what_takes_long_is_added_to_the_list(tmp_path: Path) -> None:
    (tmp_path / "tests_fast.xml").write_text(TABLE)
    listed = tmp_path / "slow.csv"
    listed.write_text("seconds,test\n4.0,tests/search/test_a.py::test_zero\n")
    assert CliRunner().invoke(main, ["--directory", str(tmp_path), "--list", str(listed)]).exit_code == 0
    assert listed.read_text().splitlines() == [
        "seconds,test",
        "7.0,tests/experiments/data/test_c.py::test_one[x]",
        "4.0,tests/search/test_a.py::test_zero",
        "3.5,tests/search/test_b.py::test_two",
    ]


@pytest.mark.parametrize("of", ["slow_tests", "complete_tests"])
def test_tests_that_are_listed_exist(of: str) -> None:
    with Path(f"tests/{of}.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    for row in listed:
        file_of, _, name = row["test"].partition("::")
        assert f"def {name.partition('[')[0]}(" in Path(file_of).read_text("utf-8"), row
        assert row.get("reason", "said by the seconds"), row
