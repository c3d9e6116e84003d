"""Fidelity figures: against hand-counted pairs, against SciPy, and what becomes of panels that tell nothing."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from experiments.ranking.fidelity import fidelity, kendall_tau, regret, spearman, top
from experiments.records import Estimate

TIED = np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0, 2.0])


def test_tau_b_of_hand_counted_pairs() -> None:
    # Pairs: 12 c, 13 c, 14 c, 23 tied in a, 24 d, 34 tied in b. So (3 - 1) / sqrt(5 * 5).
    assert kendall_tau(*TIED) == pytest.approx(2 / 5)
    # The third architecture drawn twice: its pair with itself counts nowhere, its other pairs count twice.
    a, b = (values[[0, 1, 2, 2, 3]] for values in TIED)
    # 12 c, 13 c, 13 c, 14 c, 23 and 23 tied in a, 24 d, 34 and 34 tied in b: (4 - 1) / sqrt(7 * 7).
    assert kendall_tau(a, b) == pytest.approx(3 / 7)


def test_spearman_of_hand_made_ranks() -> None:
    # Ranks 1 2.5 2.5 4 and 1 4 2.5 2.5, less their mean 2.5: -1.5 0 0 1.5 and -1.5 1.5 0 0.
    assert spearman(*TIED) == pytest.approx(2.25 / 4.5)


def test_regret_is_the_loss_of_the_first_choice_and_of_several_their_mean() -> None:
    truth = np.array([0.9, 0.8, 0.6, 0.7])
    assert regret(truth, np.array([1.0, 4.0, 2.0, 3.0])) == pytest.approx(0.1)
    assert regret(truth, np.array([4.0, 1.0, 4.0, 3.0])) == pytest.approx(0.9 - 0.75)
    assert regret(truth, truth) == 0


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_those_of_scipy(ties: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        a, b = rng.normal(size=(2, 30))
        b += a * rng.normal()
        if ties:
            a, b = np.round(a * 2), np.round(b * 2)
        assert kendall_tau(a, b) == pytest.approx(kendalltau(a, b)[0], abs=1e-12)
        assert spearman(a, b) == pytest.approx(spearmanr(a, b)[0], abs=1e-12)


def test_the_best_share_is_rounded_up_and_takes_ties_along() -> None:
    truth = np.array([5.0, 1.0, 4.0, 4.0, 2.0, 3.0, 0.0, -1.0, -2.0, -3.0])
    assert top(truth, 0.1).tolist() == [0]
    assert top(truth, 0.2).tolist() == [0, 2, 3]
    assert top(truth, 0.5).tolist() == [0, 2, 3, 4, 5]
    assert len(top(np.arange(24.0), 0.1)) == 3
    assert len(top(np.arange(30.0), 0.1)) == 3
    assert len(top(np.arange(31.0), 0.1)) == 4


def test_the_figures_of_the_best_are_of_the_truly_best() -> None:
    truth = np.arange(30.0)
    score = truth.copy()
    score[-3:] = score[-3:][::-1]  # the best three the wrong way round
    score[:15] = score[:15][::-1]  # and the worse half too
    found = fidelity(truth, score, truth, 200, 0)
    assert found["tau_top_10"].value == -1
    assert found["tau_top_50"].value == pytest.approx((105 - 2 * 3) / 105)
    assert found["kendall_tau"].value == pytest.approx(kendalltau(truth, score)[0])
    assert found["regret"].value == 2


def test_intervals_hold_the_value_and_shrink_with_the_panel() -> None:
    rng = np.random.default_rng(2)
    widths = []
    for size in (20, 320):
        truth = rng.normal(size=size)
        score = truth + rng.normal(size=size)
        found = fidelity(truth, score, truth, 400, 7)
        assert found == fidelity(truth, score, truth, 400, 7)
        assert found != fidelity(truth, score, truth, 400, 8)
        for name in ("kendall_tau", "spearman"):
            assert -1 <= found[name].low < found[name].value < found[name].high <= 1
        widths.append(found["kendall_tau"].high - found["kendall_tau"].low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.4)  # as 1 / sqrt(n)


def test_intervals_cover_the_true_tau() -> None:
    # Two normal variables of correlation r have tau = 2 / pi * asin(r).
    rng, r = np.random.default_rng(3), 0.6
    true, covered = 2 / math.pi * math.asin(r), 0
    for trial in range(120):
        truth = rng.normal(size=40)
        score = r * truth + math.sqrt(1 - r**2) * rng.normal(size=40)
        found = fidelity(truth, score, truth, 200, trial)["kendall_tau"]
        covered += found.low <= true <= found.high
    # 95 % less what a percentile interval of 40 points is known to lose; 120 trials have a spread of 2.5 points.
    assert 0.88 <= covered / 120 <= 1


@pytest.mark.parametrize(
    ("truth", "score", "reason"),
    [
        ([1.0, 2.0], [1.0, 2.0], "too few to judge an order: 2"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "all 3 architectures are equally good on their own"),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], "all 3 architectures are equally good with the supernet's weights"),
    ],
)
def test_a_panel_that_tells_nothing_gets_a_reason_and_no_number(
    truth: list[float], score: list[float], reason: str
) -> None:
    for name, estimate in fidelity(np.array(truth), np.array(score), np.array(truth), 100, 0).items():
        if name == "regret":
            assert not math.isnan(estimate.value)
            continue
        told = estimate.as_json()
        assert (told["value"], told["low"], told["high"]) == (None, None, None)
        assert ("too few" if name.startswith("tau_top") else reason) in told["reason"] or reason in told["reason"]


def test_plain_values_keep_numbers() -> None:
    assert Estimate(0.5, 0.25, math.nan).as_json() == {"value": 0.5, "low": 0.25, "high": None, "reason": ""}
