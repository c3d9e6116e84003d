"""The front against brute force, the best for a budget, and `pareto.json`."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search import Archive, Budget, RandomSearch, ResolvedBudget, best, pareto_front, run_search, write_pareto
from search_spaces import UserError

value = st.one_of(st.integers(0, 4).map(float), st.just(float("nan")))
points = st.integers(1, 3).flatmap(lambda m: st.lists(st.tuples(*[value] * m), max_size=25))


@given(points)
def test_front_is_what_nothing_dominates(rows):
    objectives = np.array(rows, float).reshape(len(rows), -1 if rows else 2)

    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    usable = [i for i, row in enumerate(rows) if not np.isnan(row).any()]
    expected = {i for i in usable if not any(dominates(rows[j], rows[i]) for j in usable)}
    front = pareto_front(objectives)
    assert set(front.tolist()) == expected
    assert len(front) == len(expected)
    assert [rows[i] for i in front] == sorted(rows[i] for i in front)


@pytest.fixture(scope="module")
def archive(small, limits, landscape, tmp_path_factory):
    searcher = RandomSearch(small, limits(small, "macs<=100%", "macs<=40%"), 0)
    path = tmp_path_factory.mktemp("search") / "archive.jsonl"
    return run_search(searcher, landscape(small, fails=0.2), Archive.open(path, searcher), 200)


def test_best_answers_for_budgets_that_the_search_did_not_know(archive, small):
    for spec in ("macs<=30%", "params<=60%, macs<=70%", "activation_bytes<=50%"):
        budget = Budget.parse("new", spec).resolve(small)
        index = best(archive, budget)
        meets = [i for i in range(len(archive)) if budget.feasible({k: v[i : i + 1] for k, v in archive.costs.items()})]
        assert index in meets
        assert archive.errors[index] == min(archive.errors[i] for i in meets if not np.isnan(archive.errors[i]))
    assert best(archive, ResolvedBudget("none", (("macs", 1.0),))) is None
    with pytest.raises(UserError, match=r"search\.budgets\.fast: .* holds no 'latency_ms'"):
        best(archive, ResolvedBudget("fast", (("latency_ms", 1.0),)))


def test_ties_go_to_the_cheaper_then_to_the_first_genes(tiny, every, limits, tmp_path):
    """Whatever the order in which equal networks were evaluated, the same one is chosen."""
    budgets = limits(tiny, "macs<=100%, params<=100%")
    members = every(tiny)[::-1]
    members = members[(members[:, 0] == 1) & (members[:, 1] == 1)]
    searcher = RandomSearch(tiny, budgets, 0)
    chosen = set()
    for i, rows in enumerate((members, members[::-1], np.roll(members, 3, axis=0))):
        archive = Archive.open(tmp_path / str(i), searcher)
        errors = np.where((rows[:, 2:] == 0).all(axis=1), 0.5, 0.25)  # all tie but the cheapest
        archive.append(rows, errors[:, None], tiny.cost(rows), 0)
        index = best(archive, budgets[0])
        assert index is not None
        chosen.add(tuple(archive.genes[index].tolist()))
    costs = {tuple(row): int(cost) for row, cost in zip(members.tolist(), tiny.cost(members)["macs"], strict=True)}
    tied = {genes: cost for genes, cost in costs.items() if any(genes[2:])}
    cheapest = [genes for genes, cost in tied.items() if cost == min(tied.values())]
    params = {genes: int(tiny.cost(np.array([genes]))["params"][0]) for genes in cheapest}
    expected = min(cheapest, key=lambda genes: (params[genes], genes))
    assert chosen == {expected}
    assert len([g for g in cheapest if params[g] == params[expected]]) > 1, "no tie left to the genes"


def test_pareto_json(archive, small, limits, tmp_path):
    budgets = (*limits(small, "macs<=100%", "macs<=40%"), ResolvedBudget("none", (("macs", 1.0),)))
    path = tmp_path / "pareto.json"
    for _ in range(2):  # the second replaces the first
        write_pareto(path, archive, budgets)
    assert [p.name for p in tmp_path.iterdir()] == ["pareto.json"]
    content = json.loads(path.read_text())
    assert content["evaluated"] == 200
    assert content["failed"] == np.isnan(archive.errors).sum() > 0
    assert content["space"] == small.fingerprint
    assert content["budgets"]["none"] == {"limits": {"macs": 1.0}, "within": 0, "best": None}
    for budget in budgets[:2]:
        found = content["budgets"][budget.name]
        assert found["best"] == archive.record(best(archive, budget))
        assert found["best"]["costs"]["macs"] <= found["limits"]["macs"]
    for metric, front in content["fronts"].items():
        pairs = [(entry["objectives"]["error"], entry["costs"][metric]) for entry in front]
        assert len(pairs) > 1
        for (e1, c1), (e2, c2) in itertools.pairwise(pairs):
            assert e1 < e2
            assert c1 > c2
    with pytest.raises(UserError, match=r"pareto\.json: "):
        write_pareto(tmp_path / "missing" / "pareto.json", archive, budgets)
