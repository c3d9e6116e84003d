"""Records that benchmarks hand on: figures of hand-made seeds, and the JSON that is printed of them."""

import json

import numpy as np
import pytest

from experiments.benchmarks.early_stopping import OfRule
from experiments.benchmarks.gradient_search import Comparison, Network, Side, summarised
from experiments.benchmarks.gradients import OverSeeds
from experiments.benchmarks.peers.comparison import Times, _Taken
from experiments.benchmarks.search import Quartiles
from experiments.objective import OBJECTIVES
from experiments.records import GradientFigures

FIGURES = GradientFigures(
    steps=7, type="drnas", budget="half", architecture={}, costs={}, validation={},
    expected_cost_over_budget={"macs": 0.9}, mean_probability=0.5, genes_changed_for_budget=2, entropy={},
)  # fmt: skip


def comparison(inherited: tuple[float, float], alone: tuple[float, float]) -> Comparison:
    """Both sides of a seed, by their test accuracies."""
    sides = {
        name: Side(Network(np.array([0]), {"width": 16}, macs, 0.5, test), seconds, on_its_own)
        for name, test, on_its_own, macs, seconds in zip(
            ("gradient", "evolution"), inherited, alone, (100, 200), (1.0, 2.0), strict=True
        )
    }
    return Comparison(11, FIGURES, 3.0, sides)


def test_a_comparison_of_gradient_search_is_printed_and_summarised() -> None:
    objective, rows = OBJECTIVES["error"], [comparison((0.9, 0.8), (0.6, 0.7)), comparison((0.8, 0.8), (0.6, 0.9))]
    assert json.loads(json.dumps(rows[0].as_json(objective.shown))) == {
        "sandwich_steps": 11, "gradient_steps": 7, "expected_cost_over_budget": {"macs": 0.9},
        "genes_changed_for_budget": 2, "cpu_seconds": 3.0,
        "gradient": {
            "seconds": 1.0, "architecture": {"width": 16}, "macs": 100, "validation_accuracy_inherited": 0.5,
            "test_accuracy_inherited": 0.9, "test_accuracy_alone": 0.6,
        },
        "evolution": {
            "seconds": 2.0, "architecture": {"width": 16}, "macs": 200, "validation_accuracy_inherited": 0.5,
            "test_accuracy_inherited": 0.8, "test_accuracy_alone": 0.7,
        },
    }  # fmt: skip
    found = summarised(rows, objective)
    assert found["test_accuracy_inherited_gradient"] == pytest.approx(0.85)
    assert found["test_accuracy_inherited_spread"] == pytest.approx(np.std([0.9, 0.8], ddof=1))
    assert found["test_accuracy_inherited_difference"] == pytest.approx(0.05)
    assert found["test_accuracy_inherited_not_worse_than_the_spread"]
    assert found["test_accuracy_alone_difference"] == pytest.approx(-0.2)
    assert not found["test_accuracy_alone_not_worse_than_the_spread"]
    assert (found["seconds_evolution"], found["macs_gradient"]) == (2.0, 100.0)


def test_intervals_over_seeds_are_one_deviation_wide() -> None:
    found = OverSeeds.of([1.0, 3.0])
    assert (found.mean, found.values) == (2.0, [1.0, 3.0])
    assert (found.start, found.end) == pytest.approx((2 - 2**0.5, 2 + 2**0.5))
    assert OverSeeds.of([1.0]).std is None


def test_runs_that_reach_no_goal_count_as_infinite() -> None:
    assert Quartiles.of(np.array([1.0, 2.0, 3.0, np.inf])) == Quartiles(2.0, [1.0, 3.0], 3)
    assert Quartiles.of(np.array([1.0, np.inf, np.inf])) == Quartiles(None, [1.0, None], 1)


def test_a_rule_saves_the_harmonic_mean_of_epochs() -> None:
    found = OfRule.of(np.array([[2.0, 1.0, 0.0, 1.0], [4.0, 0.0, 0.5, 0.0]]))
    assert found.times_fewer_epochs == pytest.approx(2 / (1 / 2 + 1 / 4))
    assert (found.same_choice, found.loss_given_up_mean, found.kendall_tau) == (0.5, 0.25, 0.5)


def test_times_without_a_peer_have_no_ratio() -> None:
    assert Times.of(_Taken([0.1, 0.3, 0.2], [], [])) == Times(200.0)
    both = Times.of(_Taken([0.1, 0.2], [0.2, 0.4], []))
    assert both.ratio == pytest.approx(2)
    assert both.spread == pytest.approx((2, 2))
