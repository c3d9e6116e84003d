"""What every registered searcher must do."""

import dataclasses
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from search import SEARCHERS, Archive, Budget, ResolvedBudget, Searcher, best, run_search
from search_spaces import UserError, build_space
from tests.marks import slow_but
from tests.search_spaces.crooked import Crooked, Measured


@pytest.fixture(params=list(SEARCHERS))
def make(request):
    """Builds the searcher; settings that it does not have are left out."""
    cls = SEARCHERS[request.param]
    known = {field.name for field in dataclasses.fields(cls)}

    def build(space, budgets, seed=0, cost=None, **settings: Any) -> Searcher:
        settings = {"inner": 200, **settings}  # a predictor is asked that often, not thousands of times
        return cls(space, budgets, seed, cost, **{k: v for k, v in settings.items() if k in known})

    return build


def generations(searcher: Searcher, evaluate, count: int):
    """Asks and tells; yields what was known and what was asked."""
    state = searcher.init()
    for _ in range(count):
        genes = searcher.ask(state)
        yield state, genes
        objectives = np.zeros((len(genes), len(searcher.objectives)))
        objectives[:, 0] = evaluate(genes)
        for i, metric in enumerate(searcher.objectives[1:], start=1):
            objectives[:, i] = searcher.costs(genes)[metric]
        state = searcher.tell(state, genes, objectives)


@pytest.mark.parametrize("fails", [0.0, 0.3, 1.0])
def test_candidates_are_canonical_new_and_within_a_budget(make, small, limits, landscape, fails):
    budgets = limits(small, "macs<=100%", "macs<=50%, params<=50%", "macs<=20%")
    searcher = make(small, budgets)
    for state, genes in generations(searcher, landscape(small, fails=fails), 6):
        assert genes.dtype == np.int32
        assert len(genes) > 0
        assert small.contains(genes).all()
        np.testing.assert_array_equal(genes, small.canonical(genes))
        both = np.concatenate([state.genes, genes])
        assert len(np.unique(both, axis=0)) == len(both)
        costs = small.cost(genes)
        assert budgets[0].feasible(costs).all()
        # Every budget gets its share of each generation, the tight ones too; a few may meet several.
        for budget in () if searcher.designs_first and not state.generation else budgets:
            assert budget.feasible(costs).sum() >= len(genes) // 3


def test_no_candidate_is_outside_all_budgets(make, small, limits, landscape):
    budgets = limits(small, "macs<=30%", "params<=25%")
    for _, genes in generations(make(small, budgets), landscape(small), 5):
        costs = small.cost(genes)
        assert (budgets[0].feasible(costs) | budgets[1].feasible(costs)).all()


def test_asking_depends_on_seed_and_state_alone(make, small, limits, landscape):
    def asked(seed: int) -> list[np.ndarray]:
        searcher = make(small, limits(small, "macs<=100%", "macs<=40%"), seed)
        steps = list(generations(searcher, landscape(small), 4))
        for state, genes in steps:
            np.testing.assert_array_equal(searcher.ask(state), genes)
        return [genes for _, genes in steps]

    first = asked(0)
    np.random.seed(1)  # noqa: NPY002  (that it does not matter is the test)
    for a, b in zip(first, asked(0), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], asked(1)[0])


@pytest.mark.parametrize("specs", [["macs<=100%"], ["macs<=60%"], ["macs<=60%", "params<=55%"]])
def test_exhausts_a_small_space_exactly_once(make, tiny, every, limits, landscape, tmp_path, specs):
    budgets = limits(tiny, *specs)
    searcher = make(tiny, budgets, population=7)
    evaluate = landscape(tiny, fails=0.2)
    archive = run_search(searcher, evaluate, Archive.open(tmp_path / "archive.jsonl", searcher), 10_000)
    members = every(tiny)
    costs = tiny.cost(members)
    feasible = np.logical_or.reduce([budget.feasible(costs) for budget in budgets])
    assert 3 < feasible.sum() <= tiny.size
    assert sorted(evaluate.asked) == sorted(tuple(row) for row in members[feasible].tolist())
    assert len(archive) == feasible.sum()
    # The archive of an exhausted space resumes to nothing.
    run_search(searcher, evaluate, Archive.open(archive.path, searcher), 10_000)
    assert len(evaluate.asked) == feasible.sum()


@pytest.mark.parametrize("seed", slow_but([0], range(4)))
def test_exhausts_a_budget_whose_networks_are_islands(make, landscape, tmp_path, seed):
    """Costs that do not grow with the genes: single changes need not lead from one network of a budget to another."""
    space = Crooked(seed, span=100)
    cost = Measured(space, seed)
    latency = cost(space.members)["latency_ms"]
    budgets = (Budget.parse("b", {"latency_ms": float(np.sort(latency)[24])}, ("latency_ms",)).resolve(space, cost),)
    searcher = make(space, budgets, cost=cost, population=7)
    evaluate = landscape(space)
    run_search(searcher, evaluate, Archive.open(tmp_path / "archive.jsonl", searcher), 10_000)
    within = space.members[budgets[0].feasible(cost(space.members))]
    assert sorted(evaluate.asked) == sorted(map(tuple, within.tolist()))


@pytest.mark.slow
def test_a_kill_at_any_byte_leaves_the_same_archive(make, request, tiny, limits, landscape, tmp_path, monkeypatch):
    """Cut the archive after each of its bytes: opening it gives the whole lines, and resuming gives all of it again.

    What resuming does depends on the whole lines alone, so it is run for the cuts around each line end and for some
    between. Opening is the same for all searchers: one opens it for every byte, as all do for `SUPERNEST_KILLS=20`.
    """
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a kill of the process, not of the machine
    searcher = make(tiny, limits(tiny, "macs<=100%", "macs<=60%"), population=4)
    path = tmp_path / "archive.jsonl"
    evaluate = landscape(tiny, fails=0.25)
    run_search(searcher, evaluate, Archive.open(path, searcher, {"weights": "run"}), 7)
    content = path.read_bytes()
    assert b'"failed": true' in content
    header = content.index(b"\n") + 1
    for cut in range(len(content) + 1):
        resumed = b"\n" in content[max(cut - 2, 0) : cut + 1] or cut % 101 == 0
        if not (resumed or request.node.callspec.params["make"] == "evolution" or "SUPERNEST_KILLS" in os.environ):
            continue
        path.write_bytes(content[:cut])
        whole = content[: max(content.rfind(b"\n", 0, cut) + 1, header)]
        archive = Archive.open(path, searcher, {"weights": "run"})
        assert path.read_bytes() == whole, cut
        held = whole.count(b"\n") - 1
        assert len(archive) == held
        if resumed:
            again = landscape(tiny, fails=0.25)
            run_search(searcher, again, archive, 7, batch=2)
            assert path.read_bytes() == content, cut
            assert again.asked == evaluate.asked[held:]


def test_a_longer_search_extends_a_shorter_one(make, small, limits, landscape, tmp_path):
    searcher = make(small, limits(small, "macs<=100%", "macs<=50%"), population=20)
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    run_search(searcher, landscape(small), Archive.open(whole, searcher), 75)
    for evaluations in (0, 1, 33, 60, 75):
        archive = run_search(searcher, landscape(small), Archive.open(parts, searcher), evaluations)
        assert len(archive) == evaluations
    assert parts.read_bytes() == whole.read_bytes()


def test_failed_candidates_never_win(make, small, limits, landscape, tmp_path):
    budgets = limits(small, "macs<=100%", "macs<=50%")
    searcher = make(small, budgets)
    archive = run_search(searcher, landscape(small, fails=0.5), Archive.open(tmp_path / "half.jsonl", searcher), 150)
    failed = np.isnan(archive.errors)
    assert 20 < failed.sum() < 130
    for budget in budgets:
        index = best(archive, budget)
        assert index is not None
        within = budget.feasible(archive.costs)
        assert archive.errors[index] == np.nanmin(archive.errors[within])
    searcher = make(small, budgets, seed=1)
    archive = run_search(
        searcher, lambda genes: np.full(len(genes), np.inf), Archive.open(tmp_path / "all", searcher), 60
    )
    assert np.isnan(archive.errors).all()
    assert best(archive, budgets[0]) is None


def test_a_budget_that_rejection_cannot_meet(make, landscape, tmp_path):
    """Within 2 % of the smallest of 10^13 networks: uniform draws (1e5 of them) never land there."""
    space = build_space("vit", "autoformer_base")
    smallest = space.cost(np.array([space.smallest.genes]))["macs"][0]
    budget = ResolvedBudget("tight", (("macs", 1.02 * smallest),))
    drawn = space.sample(np.random.default_rng(0), 100_000)
    assert not budget.feasible(space.cost(drawn)).any()
    searcher = make(space, (budget,))
    archive = run_search(searcher, landscape(space), Archive.open(tmp_path / "archive.jsonl", searcher), 120)
    assert len(archive) == 120
    assert budget.feasible(archive.costs).all()


def test_costs_may_hold_further_metrics(make, small, landscape, tmp_path):
    def cost(genes):
        return {**small.cost(genes), "latency_ms": 1 + genes.sum(axis=1) / 3}

    searcher = make(small, (ResolvedBudget("fast", (("latency_ms", 4.0),)),), cost=cost)
    archive = run_search(searcher, landscape(small), Archive.open(tmp_path / "archive.jsonl", searcher), 60)
    assert len(archive) == 60
    assert archive.costs["latency_ms"].max() <= 4
    read = Archive.read(archive.path, small)
    np.testing.assert_array_equal(read.costs["latency_ms"], cost(read.genes)["latency_ms"])


def test_is_a_frozen_dataclass_that_checks_its_budgets(make, tiny, limits):
    budgets = limits(tiny, "macs<=100%")
    searcher = make(tiny, budgets)
    assert [field.name for field in dataclasses.fields(searcher)][:4] == ["space", "budgets", "seed", "cost"]
    assert searcher.objectives[0] == "error"
    with pytest.raises(dataclasses.FrozenInstanceError):
        searcher.seed = 1
    with pytest.raises(UserError, match=r"search\.seed: -1 is less than 0"):
        make(tiny, budgets, seed=-1)
    with pytest.raises(UserError, match=r"search\.budgets: none"):
        make(tiny, ())
    with pytest.raises(UserError, match=r"search\.budgets: two are called 'b0'"):
        make(tiny, budgets * 2)


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'evolution'"):
        SEARCHERS["evolutoin"]


def test_importing_does_not_import_jax():
    code = "import sys, search; list(search.SEARCHERS); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
