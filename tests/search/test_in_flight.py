"""Several batches in flight: the outcome does not depend on how long each takes, nor on a kill."""

import itertools
import json
import threading
import time
from typing import Any

import numpy as np
import pytest

from search import SEARCHERS, Archive, RandomSearch, RegularizedEvolution, run_search
from search_spaces import UserError

ASYNCHRONOUS = sorted(name for name in SEARCHERS if SEARCHERS[name].asynchronous)


def entries(path):
    """Entries of an archive without their digests, which cover the header too."""
    records = [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
    return [{name: value for name, value in record.items() if name != "digest"} for record in records]


@pytest.fixture
def make(small, limits):
    def of(name, in_flight):
        settings: dict[str, Any] = {"population": 12, "in_flight": in_flight}
        if name == "regularized_evolution":
            settings["children"] = 4
        return SEARCHERS[name](small, limits(small, "macs<=100%", "macs<=40%"), 0, **settings)

    return of


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_slow_and_fast_evaluations_give_one_archive(name, make, landscape, small, tmp_path):
    errors = landscape(small).errors
    for which, seconds in (("even", [0.0]), ("uneven", [0.03, 0.0, 0.01])):
        turns, lock = itertools.cycle(seconds), threading.Lock()

        def evaluate(genes, turns=turns, lock=lock):
            with lock:
                pause = next(turns)
            time.sleep(pause)
            return errors(genes)

        searcher = make(name, 3)
        run_search(searcher, evaluate, Archive.open(tmp_path / which, searcher), 90, batch=5)
    assert (tmp_path / "even").read_bytes() == (tmp_path / "uneven").read_bytes()


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_a_stopped_one_resumes_exactly(name, make, landscape, small, tmp_path):
    errors, searcher = landscape(small, fails=0.1).errors, make(name, 3)
    run_search(searcher, errors, Archive.open(tmp_path / "whole", searcher), 80)
    for until in (5, 30, 61, 80):

        def stop(progress, until=until):
            if progress.evaluated >= until:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_search(searcher, errors, Archive.open(tmp_path / "stopped", searcher), 80, stop, batch=2)
    run_search(searcher, errors, Archive.open(tmp_path / "stopped", searcher), 80)
    assert (tmp_path / "stopped").read_bytes() == (tmp_path / "whole").read_bytes()


def test_several_are_evaluated_at_the_same_time(make, landscape, small, tmp_path):
    together = threading.Barrier(3, timeout=20)

    def evaluate(genes):
        together.wait()  # comes back only when three are here
        return landscape(small).errors(genes)

    searcher = make("random", 3)
    archive = run_search(searcher, evaluate, Archive.open(tmp_path / "a", searcher), 36)
    assert len(archive) == 36


def test_random_search_asks_for_the_same_either_way(make, landscape, small, tmp_path):
    for in_flight in (1, 4):
        searcher = make("random", in_flight)
        run_search(searcher, landscape(small).errors, Archive.open(tmp_path / str(in_flight), searcher), 50)
    assert entries(tmp_path / "1") == entries(tmp_path / "4")


def test_regularised_evolution_breeds_from_what_was_told(make, landscape, small, tmp_path):
    errors = landscape(small).errors
    for in_flight in (1, 4):
        searcher = make("regularized_evolution", in_flight)
        run_search(searcher, errors, Archive.open(tmp_path / str(in_flight), searcher), 400)
    found = [Archive.read(tmp_path / str(in_flight), small).errors for in_flight in (1, 4)]
    # Told later, it breeds from older members; both go far below what its random start holds.
    assert entries(tmp_path / "1") != entries(tmp_path / "4")
    assert all(of.min() < np.quantile(of[:12], 0.01) for of in found)


def test_what_waits_for_all_results_refuses(small, limits):
    budgets = limits(small, "macs<=100%")
    waiting = next(kind for kind in SEARCHERS.values() if not kind.asynchronous)
    with pytest.raises(UserError, match=r"search.in_flight: 2, but this searcher waits .* Set it to 1."):
        waiting(small, budgets, 0, in_flight=2, halving=())
    with pytest.raises(UserError, match=r"search.in_flight: 2, but successive halving waits"):
        RandomSearch(small, budgets, 0, in_flight=2, halving=((0.5, 0.5),))
    with pytest.raises(UserError, match=r"search.in_flight: 0 is less than 1"):
        RegularizedEvolution(small, budgets, 0, in_flight=0)
