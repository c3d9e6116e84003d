"""Forecasts of learning curves: what they promise holds on curves of their own prior, and rules do as they say."""

import numpy as np
import pytest

from search.learning_curves import POINTS, CurvePrior, EarlyStopping, Forecast, Outlook, rising


@pytest.fixture(scope="module")
def prior() -> CurvePrior:
    return CurvePrior(count=30_000)


@pytest.fixture(scope="module")
def held_out() -> np.ndarray:
    """Noisy curves of the prior that the forecasts do not know."""
    curves = CurvePrior(seed=1, count=160).curves
    rng = np.random.default_rng(2)
    return curves + np.exp(rng.normal(-4, 1, (len(curves), 1))) * rng.normal(size=curves.shape)


def times(count: int) -> list[float]:
    return [(i + 1) / POINTS for i in range(count)]


def test_curves_of_the_prior_rise_within_bounds(prior: CurvePrior) -> None:
    assert prior.curves.shape == (30_000, POINTS)
    assert prior.curves.min() >= 0
    assert prior.curves.max() <= 1
    assert (prior.curves[:, -1] > prior.curves[:, 0]).all()
    assert (CurvePrior(count=30_000).curves == prior.curves).all()


def test_intervals_hold_as_often_as_they_say_and_beat_the_last_value(prior: CurvePrior, held_out: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    inside, of_forecast, of_last = [], [], []
    for curve in held_out:
        seen = int(rng.integers(1, POINTS))
        forecast = prior.forecast(times(seen), curve[:seen].tolist())
        low, high = forecast.interval(0.9)
        inside.append(low <= curve[-1] <= high)
        of_forecast.append(abs(forecast.median - curve[-1]))
        of_last.append(abs(curve[seen - 1] - curve[-1]))
    assert 0.85 <= np.mean(inside) <= 0.97
    assert np.mean(of_forecast) < 0.8 * np.mean(of_last)


def test_more_of_a_curve_says_more(prior: CurvePrior, held_out: np.ndarray) -> None:
    def width(seen: int) -> float:
        ends = [prior.forecast(times(seen), curve[:seen].tolist()).interval(0.9) for curve in held_out[:40]]
        return float(np.mean([high - low for low, high in ends]))

    assert width(5) > width(30) > width(90)


def test_a_forecast_is_a_distribution_of_its_curves_and_their_noise() -> None:
    prior = CurvePrior(count=1000)
    forecast = prior.forecast([0.01], [0.3])
    assert (np.diff(forecast.below) >= 0).all()
    assert forecast.below[0] == pytest.approx(0, abs=1e-3)
    assert forecast.below[-1] == pytest.approx(1, abs=1e-3)
    assert 1 <= forecast.effective <= 1000
    assert forecast.above(forecast.median) == pytest.approx(0.5, abs=0.01)
    assert forecast.above(-1) == 1
    assert forecast.above(2) == 0


def test_of_two_curves_that_fit_alike_each_counts_half() -> None:
    prior = CurvePrior(count=2)
    prior.curves = np.stack([np.linspace(0.2, 0.4, POINTS), np.linspace(0.2, 0.8, POINTS)]).astype(np.float32)
    forecast = prior.forecast([0.01], [0.2])
    assert forecast.effective == pytest.approx(2)
    assert forecast.above(0.6) == pytest.approx(0.5, abs=0.01)
    assert prior.forecast([0.01, 0.5], [0.2, 0.5]).above(0.6) > 0.95


@pytest.mark.parametrize(
    ("at", "values", "said"),
    [([], [], "values"), ([0.1], [0.1, 0.2], "values"), ([0.1], [float("nan")], "values"), ([0.0], [0.1], "times"),
     ([1.1], [0.1], "times")],
)  # fmt: skip
def test_what_is_no_curve_is_refused(at: list[float], values: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CurvePrior(count=10).forecast(at, values)


def test_an_outlook_is_told_in_the_figure() -> None:
    losses = [2.0, 1.4, 1.2, 1.1, 1.05, 1.03]
    at = [0.01, *times(50)[9::10]]
    of_loss = Outlook.of(at, losses, higher=False)
    low, high = of_loss.interval(0.9)
    assert 0.8 < low < of_loss.figure < high < 1.4
    assert rising(losses, higher=False)[:2] == [0.0, pytest.approx(0.3)]
    of_accuracy = Outlook.of(times(5), [0.5, 0.6, 0.65, 0.68, 0.7], higher=True)
    assert 0.7 < of_accuracy.figure <= 1
    assert of_accuracy.interval(0.99)[1] <= 1


def test_nothing_is_forecast_of_a_first_loss_of_0() -> None:
    with pytest.raises(ValueError, match=r"the first of .* is 0"):
        rising([0.0, 0.0], higher=False)
    with pytest.raises(ValueError, match=r"the first of .* is 0"):
        Outlook.of([0.1, 0.2], [0.0, 0.1], higher=False)
    assert rising([0.0, 0.5], higher=True) == [0.0, 0.5]


def test_rules_follow_from_the_distribution() -> None:
    uniform = Forecast(np.array([0.4, 0.6]), np.array([0.0, 1.0]), 1.0)
    of_accuracy, of_loss = Outlook(uniform, 0.1, higher=True), Outlook(uniform, 2.0, higher=False)
    assert of_accuracy.interval(0.9) == pytest.approx((0.41, 0.59))
    assert of_loss.interval(0.9) == pytest.approx((0.82, 1.18))
    for outlook in (of_accuracy, of_loss):
        assert EarlyStopping(tolerance=0.1, confidence=0.9).certain(outlook)
        assert not EarlyStopping(tolerance=0.08, confidence=0.9).certain(outlook)
    rule = EarlyStopping(tolerance=0.0, confidence=0.9)
    assert rule.hopeless(of_accuracy, best=0.59)
    assert not rule.hopeless(of_accuracy, best=0.57)
    assert rule.hopeless(of_loss, best=0.82)
    assert not rule.hopeless(of_loss, best=0.86)
    assert not rule.hopeless(of_loss, best=float("inf"))
    assert EarlyStopping(tolerance=0.02, confidence=0.9).hopeless(of_accuracy, best=0.57)
