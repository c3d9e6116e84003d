"""The archive: what it holds, what it refuses, and that nothing is lost."""

import errno
import json
import os
from datetime import datetime

import numpy as np
import pytest

from search import Archive, RandomSearch, run_search
from search.archive import times_path
from search_spaces import UserError
from tests.search.digests import with_digests

NET = {"weights": "net"}


@pytest.fixture
def searcher(tiny, limits):
    return RandomSearch(tiny, limits(tiny, "macs<=100%"), seed=3, population=5)


@pytest.fixture
def path(searcher, tiny, landscape, tmp_path):
    """An archive of 12 entries, some failed."""
    path = tmp_path / "search" / "archive.jsonl"
    run_search(searcher, landscape(tiny, fails=0.25), Archive.open(path, searcher, NET), 12)
    return path


def test_entries_are_readable_and_complete(path, tiny, landscape):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["space"] == tiny.fingerprint
    assert lines[0]["budgets"].keys() == {"b0"}
    assert lines[0]["searcher"] == {"name": "RandomSearch", "population": 5}
    assert any(entry.get("failed") for entry in lines[1:])
    for i, entry in enumerate(lines[1:]):
        genes = np.array([entry["genes"]], np.int32)
        assert tiny.encode(entry["architecture"]).genes == tuple(entry["genes"])
        assert entry["costs"] == {metric: int(cost[0]) for metric, cost in tiny.cost(genes).items()}
        error = landscape(tiny, fails=0.25).errors(genes)[0]
        assert entry["objectives"] == {"error": None if np.isnan(error) else error}
        assert entry.get("failed", False) == np.isnan(error)
        assert (entry["seed"], entry["generation"]) == (3, i // 5)


def test_reading_gives_what_was_written_and_leaves_the_file_alone(path, searcher, tiny):
    written = Archive.open(path, searcher, NET)
    content = path.read_bytes()
    path.write_bytes(content + b'{"architecture": {"wid')
    read = Archive.read(path, tiny)
    assert path.read_bytes().endswith(b'{"wid')
    assert len(read) == 12
    for name in ("genes", "objectives", "generations"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert [read.record(i) for i in range(12)] == [_written(line) for line in content.splitlines()[1:]]
    assert Archive.open(path, searcher, NET).path.read_bytes() == content


def test_every_entry_has_a_time_whatever_a_kill_left(path, searcher):
    times = times_path(path)
    whole = times.read_bytes()

    def covered():
        batches = [json.loads(line) for line in times.read_text().splitlines()]
        return [number for batch in batches for number in range(batch["first"], batch["last"] + 1)]

    for size in (len(whole), len(whole) - 5, whole.index(b"\n") + 1, 3, 0):
        times.write_bytes(whole[:size])
        Archive.open(path, searcher, NET)
        assert covered() == list(range(2, 14))
    times.unlink()
    Archive.open(path, searcher, NET)
    assert covered() == list(range(2, 14))
    assert datetime.fromisoformat(json.loads(times.read_text())["time"]).timestamp() == pytest.approx(
        path.stat().st_mtime
    )


def _written(line):
    record = json.loads(line)
    del record["digest"]
    return record


def _replace(path, number, change):
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = change(lines[number - 1])
    path.write_bytes(b"\n".join(lines))


def _edit(**changes):
    return lambda line: json.dumps(json.loads(line) | changes).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[:-5],
        lambda line: b"",
        lambda line: b"[1, 2]",
        lambda line: b"\xff" + line,
        lambda line: b"[" * 100_000,
        _edit(genes=[9, 0, 0, 0, 0, 0]),
        _edit(genes=[0, 0, 0, 1, 0, 1]),
        _edit(genes=[0, 0, 0]),
        _edit(genes=[True, 0, 0, 0, 0, 0]),
        _edit(genes=None),
        _edit(architecture={}),
        _edit(objectives={}),
        _edit(objectives={"error": "low"}),
        _edit(costs={"macs": 1, "params": None, "activation_bytes": 1}),
        _edit(costs={"macs": float("nan"), "params": 1, "activation_bytes": 1}),
        _edit(generation="x"),
    ],
)
def test_a_corrupt_line_is_named(path, searcher, tiny, change):
    _replace(path, 5, change)
    before = path.read_bytes()
    for attempt in (lambda: Archive.read(path, tiny), lambda: Archive.open(path, searcher, NET)):
        with pytest.raises(UserError, match=r"archive\.jsonl:5: corrupt line"):
            attempt()
    assert path.read_bytes() == before


def _lower(line):
    return _edit(objectives={"error": 0.001})(line)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda lines: [*lines[:6], _lower(lines[6]), *lines[7:]], 7),  # an error that would win
        (lambda lines: [*lines[:-1], _lower(lines[-1])], 13),
        (lambda lines: [*lines[:6], *lines[7:]], 7),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3),
        (lambda lines: [_edit(run={"weights": "mine"})(lines[0]), *lines[1:]], 2),
        (lambda lines: [*lines[:6], _edit(generation=0)(lines[6]), *lines[7:]], 7),
    ],
)
def test_a_changed_line_is_named(path, searcher, tiny, change, named):
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*change(lines), b""]))
    before = path.read_bytes()
    for attempt in (lambda: Archive.read(path, tiny), lambda: Archive.open(path, searcher, NET)):
        with pytest.raises(UserError, match=rf"archive\.jsonl:{named}: was changed after it was written"):
            attempt()
    assert path.read_bytes() == before


def test_costs_that_are_not_those_of_the_architecture_are_named(path, searcher, tiny):
    lines = path.read_bytes().splitlines()
    costs = json.loads(lines[4])["costs"]
    lines[4] = _edit(costs=costs | {"macs": costs["macs"] - 1})(lines[4])
    path.write_bytes(with_digests(lines))
    for attempt in (lambda: Archive.read(path, tiny), lambda: Archive.open(path, searcher, NET)):
        with pytest.raises(UserError, match=rf"archive\.jsonl:5: macs is {costs['macs'] - 1}, and the cost model says"):
            attempt()
    assert Archive.read(path, tiny, lambda genes: {"latency_ms": np.zeros(len(genes))}).costs["macs"].size == 12


def test_an_archive_that_was_cut_short_is_not_read_as_a_whole_one(path, searcher, tiny):
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:9]))
    with pytest.raises(UserError, match=r"archive\.jsonl: holds 8 architectures, fewer than archive\.times tells of"):
        Archive.read(path, tiny)
    assert len(Archive.open(path, searcher, NET)) == 8  # the search goes on from there
    assert len(Archive.read(path, tiny)) == 8


def test_an_archive_of_another_run_is_not_read(path, tiny):
    assert len(Archive.read(path, tiny, run=NET)) == 12
    with pytest.raises(UserError, match=r"archive\.jsonl:1: .* of another run: weights net there and other here"):
        Archive.read(path, tiny, run={"weights": "other"})
    with pytest.raises(UserError, match=r"archive\.jsonl:1: .* of another run: config none there and mine here"):
        Archive.read(path, tiny, run={**NET, "config": "mine"})


@pytest.mark.parametrize("line", [b"{", b"[1, 2]", b"\xff", b'{"first": 7}', b'{"first": 7, "last": "11"}'])
def test_a_corrupt_line_of_the_times_is_named(path, searcher, line):
    times = times_path(path)
    _replace(times, 2, lambda _: line)
    before = times.read_bytes()
    with pytest.raises(UserError, match=r"archive\.times:2: corrupt line"):
        Archive.open(path, searcher, NET)
    assert times.read_bytes() == before
    times.unlink()
    assert len(Archive.open(path, searcher, NET)) == 12


def test_a_line_that_comes_twice_is_named(path, tiny):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[3]]))
    with pytest.raises(UserError, match=r"archive\.jsonl:14: an architecture that an earlier line holds"):
        Archive.read(path, tiny)


def test_other_searches_are_refused(path, tiny, small, limits):
    budgets = limits(tiny, "macs<=100%")
    others = {
        "space": (RandomSearch(small, limits(small, "macs<=100%"), 3, population=5), NET, "another search space"),
        "seed": (RandomSearch(tiny, budgets, 4, population=5), NET, "seed is 3 there and 4 here"),
        "budgets": (RandomSearch(tiny, limits(tiny, "macs<=90%"), 3, population=5), NET, "budgets is"),
        "searcher": (RandomSearch(tiny, budgets, 3, population=6), NET, "searcher is"),
        "run": (
            RandomSearch(tiny, budgets, 3, population=5),
            {"weights": "other"},
            "run.weights is 'net' there and 'other' here",
        ),
    }
    before = path.read_bytes()
    for searcher, run, message in others.values():
        with pytest.raises(UserError, match=rf"archive\.jsonl:1: .*{message}"):
            Archive.open(path, searcher, run)
    with pytest.raises(UserError, match=r"archive\.jsonl:1: .*another search space"):
        Archive.read(path, small)
    assert path.read_bytes() == before


def test_a_file_that_is_no_archive_is_left_alone(searcher, tiny, tmp_path):
    for content in (b"notes without a line end", b"notes\n", b'{"format": "else"}\n'):
        path = tmp_path / "notes.txt"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"notes\.txt:1: "):
            Archive.open(path, searcher)
        assert path.read_bytes() == content
    with pytest.raises(UserError, match=r"missing\.jsonl: No such file"):
        Archive.read(tmp_path / "missing.jsonl", tiny)
    with pytest.raises(UserError, match=r"notes\.txt"):
        Archive.open(tmp_path / "notes.txt" / "archive.jsonl", searcher)


def test_a_full_disk_is_reported_and_survived(path, searcher, tiny, landscape, monkeypatch):
    run_search(searcher, landscape(tiny, fails=0.25), Archive.open(path, searcher, NET), 30)
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:13]))
    archive = Archive.open(path, searcher, NET)

    def full(descriptor):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 40)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"archive\.jsonl: No space left on device"):
            run_search(searcher, landscape(tiny, fails=0.25), archive, 30)
    run_search(searcher, landscape(tiny, fails=0.25), Archive.open(path, searcher, NET), 30)
    assert path.read_bytes() == whole
