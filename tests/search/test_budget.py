"""Budgets: what parses, what it means, and what is refused."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search import Budget, Limit, ResolvedBudget
from search_spaces import CostModel, UserError
from tests.search_spaces.crooked import Crooked, Measured

limits = st.lists(st.sampled_from(CostModel.metrics), min_size=1, unique=True).flatmap(
    lambda metrics: st.tuples(
        *(
            st.one_of(
                st.builds(Limit, st.just(m), st.floats(0, 1e300, exclude_min=True), st.just(False)),
                st.builds(Limit, st.just(m), st.floats(0, 100, exclude_min=True), st.just(True)),
            )
            for m in metrics
        )
    )
)


@given(limits)
def test_the_text_of_a_budget_parses_to_it(given_limits):
    budget = Budget("b", given_limits)
    assert Budget.parse("b", str(budget)) == budget


@given(limits)
def test_a_mapping_and_a_text_say_the_same(given_limits):
    mapping = {m.metric: f"{m.amount!r}%" if m.percent else m.amount for m in given_limits}
    assert Budget.parse("b", mapping) == Budget("b", given_limits)


@given(st.text(max_size=30), st.one_of(st.text(max_size=40), st.dictionaries(st.text(max_size=8), st.text(max_size=8))))
def test_any_text_parses_or_is_a_user_error_of_one_line(name, spec):
    try:
        text = str(Budget.parse(name, spec))
    except UserError as error:
        text = str(error)
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "amount", "percent"),
    [
        ("100000", 100_000, False), ("1e5", 1e5, False), ("100k", 1e5, False), ("1.5M", 1.5e6, False),
        ("2G", 2e9, False), ("50%", 50, True), ("12.5 %", 12.5, True), (" 7 ", 7, False),
    ],
)  # fmt: skip
def test_amounts(text, amount, percent):
    assert Budget.parse("b", f"macs <= {text}").limits == (Limit("macs", amount, percent),)
    assert Budget.parse("b", {"macs": text}).limits == (Limit("macs", amount, percent),)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mac<=50%", r"b: 'mac' is no metric\. Did you mean 'macs'\?"),
        ({"latency_ms": 3}, r"b: 'latency_ms' is no metric\. .*Known: activation_bytes, macs, params"),
        ("macs<=0", r"b\.macs: '0' is not positive"),
        ({"macs": -5}, r"b\.macs: -5 is not positive"),
        ("macs<=120%", r"b\.macs: '120%' is more than the dearest subnet"),
        ("macs<=50%, macs<=1e6", r"b: 'macs<=50%' and 'macs<=1000000' limit macs twice"),
        ("macs<=fast", r"b\.macs: 'fast' is no amount"),
        ({"macs": True}, r"b\.macs: True is no amount"),
        ({"macs": None}, r"b\.macs: None is no amount"),
        ({"macs": float("nan")}, r"b\.macs: nan is no amount"),
        ("macs<=inf", r"b\.macs: 'inf' is no amount"),
        ("macs>=5", r"b: 'macs>=5' is no limit"),
        ("", r"b: '' is no limit"),
        ({}, r"b: no limit"),
        (5, r"b: 5 is no budget"),
    ],
)
def test_what_is_refused(spec, message):
    with pytest.raises(UserError, match=r"^search\.budgets\." + message):
        Budget.parse("b", spec)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" + "\n", 3])
def test_names_that_are_no_directory_are_refused(name):
    with pytest.raises(UserError, match=r"is no name"):
        Budget.parse(name, "macs<=50%")
    assert Budget.parse("50%", "macs<=50%").name == "50%"


def test_percent_is_of_the_largest_and_the_limit_itself_is_within(small):
    ends = small.cost(small.extremes)
    full = Budget.parse("full", "macs<=100%, params<=100%, activation_bytes<=100%").resolve(small)
    assert full.feasible(ends).tolist() == [True, True]
    assert full.excess(ends).tolist() == [0, 0]
    half = Budget.parse("half", {"macs": "50%", "params": 10**9}).resolve(small)
    assert dict(half.limits) == {"macs": ends["macs"][1] / 2, "params": 1e9}
    assert half.feasible(ends).tolist() == [True, False]
    assert half.excess(ends).tolist() == [0, 1]


def test_feasible_and_excess_take_the_worst_limit():
    budget = ResolvedBudget("b", (("macs", 100.0), ("params", 10.0)))
    costs = {"macs": np.array([100, 150, 50, 120]), "params": np.array([10, 5, 20, 13])}
    assert budget.feasible(costs).tolist() == [True, False, False, False]
    np.testing.assert_allclose(budget.excess(costs), [0, 0.5, 1.0, 0.3], rtol=1e-12)


def test_a_budget_below_the_smallest_says_what_the_smallest_costs(small):
    smallest = {metric: int(cost[0]) for metric, cost in small.cost(np.array([small.smallest.genes])).items()}
    for limit in ("1%", smallest["macs"] - 1):
        with pytest.raises(UserError) as error:
            Budget.parse("b", {"macs": limit, "params": "50%"}).resolve(small)
        assert str(error.value).startswith("search.budgets.b.macs: ")
        for metric, cost in smallest.items():
            assert f"{metric} {cost}" in str(error.value)
    assert Budget.parse("b", {"macs": smallest["macs"]}).resolve(small).limits == (("macs", smallest["macs"]),)


def _ladder(space, genes):
    """Costs that contradict each other: one falls with the first gene as the other rises."""
    first = np.asarray(genes)[:, 0].astype(float)
    return {"macs": 1 + first, "params": 3 - first, "activation_bytes": 5 + 0 * first}


def test_limits_that_contradict_each_other_are_named(small):
    def cost(genes):
        return _ladder(small, genes)

    budget = Budget.parse("b", "activation_bytes<=9, macs<=1, params<=1")
    with pytest.raises(UserError) as error:
        budget.resolve(small, cost)
    text = str(error.value)
    assert text.startswith("search.budgets.b: 'macs<=1' and 'params<=1' contradict each other: each can be met, but ")
    assert "activation_bytes<=9" not in text
    assert "the smallest costs macs 1 (33.3% of the dearest), params 3 (100% of the dearest)" in text
    assert Budget.parse("b", "macs<=2, params<=2").resolve(small, cost).limits == (("macs", 2), ("params", 2))
    # Nothing is refused for what another subnet than the smallest meets.
    assert Budget.parse("b", "params<=1").resolve(small, cost).limits == (("params", 1),)
    with pytest.raises(UserError, match=r"b\.params: 'params<=0.5' is below .* Raise the limit to 1 or more\."):
        Budget.parse("b", "params<=0.5").resolve(small, cost)


def test_three_limits_of_which_any_two_can_be_met(small):
    width = small.columns["width"]

    def cost(genes):
        kind = np.asarray(genes)[:, width]
        return {name: np.where(kind == i, 3.0, 1.0) for i, name in enumerate(("macs", "params", "activation_bytes"))}

    with pytest.raises(
        UserError, match=r"'macs<=1', 'params<=1' and 'activation_bytes<=1' contradict .* nearest subnet to all"
    ):
        Budget.parse("b", "macs<=1, params<=1, activation_bytes<=1").resolve(small, cost)


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([("macs",), ("latency_ms",), ("latency_ms", "memory_bytes")]))
def test_a_budget_is_refused_if_and_only_if_no_subnet_meets_it(seed, metrics):
    """Costs that do not grow with the genes: the smallest subnet need be neither the cheapest nor feasible."""
    space = Crooked(seed)
    cost = Measured(space, seed)
    costs = cost(space.members)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        amounts = {m: float(rng.choice(np.unique(costs[m])[:8])) + 0.01 for m in metrics}
        met = np.logical_and.reduce([np.asarray(costs[m]) <= most for m, most in amounts.items()])
        budget = Budget.parse("b", amounts, (*CostModel.metrics, "latency_ms", "memory_bytes"))
        if met.any():
            resolved = budget.resolve(space, cost)
            anchor = np.array([resolved.anchor or space.smallest.genes], np.int32)
            assert resolved.feasible(cost(anchor))[0]
            continue
        with pytest.raises(UserError) as error:
            budget.resolve(space, cost)
        text = str(error.value)
        alone = [m for m, most in amounts.items() if np.asarray(costs[m]).min() > most]
        if alone:
            assert text.startswith(f"search.budgets.b.{alone[0]}: ")
            assert re.search("is below (what any subnet costs; the cheapest|the smallest subnet, which) costs", text)
            (needed,) = map(float, re.findall(r"Raise the limit to (\S+) or more", text))
            assert np.asarray(costs[alone[0]]).min() == pytest.approx(needed, rel=1e-8)
        else:
            assert "contradict each other" in text


def test_percent_is_of_the_dearest_where_that_is_not_the_largest():
    space = next(
        s for s in map(Crooked, range(100)) if s.cost(s.members)["macs"].max() > s.cost(s.extremes)["macs"][1] > 0
    )
    most = space.cost(space.members)["macs"].max()
    whole = Budget.parse("b", "macs<=100%").resolve(space)
    assert whole.limits == (("macs", most),)
    assert whole.feasible(space.cost(space.members)).all()


def test_a_bounded_search_says_that_it_is_one(small):
    """A cost without tables, of a space that is too large to be listed."""
    budget = Budget.parse("b", "macs<=1")
    with pytest.raises(UserError, match=r"'macs<=1' is below all costs that a bounded search found; the cheapest"):
        budget.resolve(small, lambda genes: small.cost(genes))
