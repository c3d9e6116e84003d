"""Learning curves: what a training will end at, from its first evaluations, and whether it may stop.

The forecast is Bayesian: many curves are drawn from LC-PFN's prior, and each counts as much as it explains what was
seen. LC-PFN trains a transformer to give this posterior in one pass; here it is computed by importance sampling, which
takes some hundredths of a second, and no weights have to be trained or kept.

References:
    Adriaensen, Rakotoarison, Müller, Hutter. Efficient Bayesian Learning Curve Extrapolation using Prior-Data Fitted
    Networks. NeurIPS 2023, arXiv:2310.20447 (the prior, as in its code).
    Domhan, Springenberg, Hutter. Speeding up Automatic Hyperparameter Optimization of Deep Neural Networks by
    Extrapolation of Learning Curves. IJCAI 2015 (a training stops that will probably not beat the best).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri

from search_spaces.randomness import Purpose, stream

POINTS = 100
"""Number of places of a curve that the prior knows, evenly spread from the first to the last step."""

_CURVES = 100_000
_DRAWN_AT_ONCE = 100_000
_FIRST = np.array([0, 1, 4, 19, POINTS - 1])  # places that refuse most draws before the others are computed
_LATEST = 80
_NOISES = 16
_NEGLIGIBLE = 30.0
_NEAREST, _EFFECTIVE, _BISECTIONS = 1000, 15, 12
_NOISE_MEAN, _NOISE_SPREAD = -4.0, 1.0  # of the logarithm of the noise's standard deviation
_BINS = 400
_LOW, _HIGH = -0.25, 1.25  # noisy values may leave the range of the curves


@dataclass(frozen=True)
class Forecast:
    """Distribution of a value that a training will reach, noise of its evaluation included.

    Attributes:
        edges: Increasing values.
        below: Probability of less than each of them; from about 0 to 1.
        effective: Number of equally good curves of the prior that stand behind it; few mean that the prior hardly knows
            such curves.
    """

    edges: Float[np.ndarray, " e"]
    below: Float[np.ndarray, " e"]
    effective: float

    def quantile(self, share: float) -> float:
        """Returns the quantile of the outcome at a probability."""
        return float(np.interp(share, self.below, self.edges))

    @property
    def median(self) -> float:
        """The middle of the distribution."""
        return self.quantile(0.5)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Returns the central interval that contains the outcome with this probability."""
        tail = (1 - confidence) / 2
        return self.quantile(tail), self.quantile(1 - tail)

    def above(self, value: float) -> float:
        """Returns the probability that the outcome exceeds a value."""
        return 1 - float(np.interp(value, self.edges, self.below, left=0.0, right=1.0))


class CurvePrior:
    """Curves from LC-PFN's prior: weighted sums of pow3, ilog2 and Janoschek that rise from step 1 to the last.

    LC-PFN's prior takes a loss that stays where it began, and falls late, for one that stays for good. Where `delayed`
    is given, that share of the curves keeps its first value for a while and rises then.

    Args:
        seed: Seed of the draws.
        count: Number of curves.
        delayed: Share of the curves that rise late; 0 is LC-PFN's prior.
    """

    def __init__(self, seed: int = 0, count: int = _CURVES, delayed: float = 0.0) -> None:
        rng = stream(seed, Purpose.CURVES)
        found: list[np.ndarray] = []
        while sum(map(len, found)) < count:
            found.append(_drawn(rng, _DRAWN_AT_ONCE))
        self.curves: Float[np.ndarray, "c p"] = np.concatenate(found)[:count]
        """Values between 0 and 1, before noise."""
        late = round(delayed * count)
        delays = rng.integers(1, _LATEST + 1, (late, 1))
        self.curves[:late] = np.take_along_axis(self.curves[:late], np.maximum(np.arange(POINTS) - delays, 0), axis=1)

    def forecast(self, times: Sequence[float], values: Sequence[float], at: float = 1.0) -> Forecast:
        """Returns what will be measured, given what was.

        Args:
            times: Shares of the steps, above 0 and at most 1, at which the curve was measured; at least one.
            values: Values measured there, as numbers that rise from 0 to 1 at most.
            at: Share of the steps to forecast.

        Raises:
            ValueError: Nothing was measured, times are out of range, or a value is not finite.
        """
        places, target = _places(times), int(_places([at])[0])
        measured = np.asarray(values, np.float32)
        if not len(measured) or len(measured) != len(places) or not np.isfinite(measured).all():
            raise ValueError(f"values: {list(values)!r} are not one finite number for each of {len(places)} times.")
        misfit = self.curves[:, places] - measured
        squares = np.einsum("ij,ij->i", misfit, misfit).astype(float)
        # At every noise, the others count less than exp(-_NEGLIGIBLE) of the nearest curve.
        reach = np.partition(squares, min(_NEAREST, len(squares) - 1))[min(_NEAREST, len(squares) - 1)]
        near = np.flatnonzero(squares <= max(reach, squares.min() + _NEGLIGIBLE * 2 * _NOISE.max() ** 2))
        logs = -len(measured) * np.log(_NOISE) - squares[near, None] / (2 * _NOISE**2)
        weights = _tempered(logs - logs.max(), min(_EFFECTIVE, len(self.curves) / 2))
        cells = np.minimum((self.curves[near, target] * _BINS).astype(int), _BINS - 1)
        edges, blur = _blur()
        below = np.zeros(len(edges))
        for column, smoothing in zip(weights.T, blur, strict=True):
            below += smoothing @ np.bincount(cells, column, minlength=_BINS)
        return Forecast(edges, np.maximum.accumulate(below), _effective(weights))


def _tempered(logs: np.ndarray, effective: float) -> np.ndarray:
    """Weights of curves and noises that sum to 1, flattened as little as leaves that many curves in effect.

    Where few of the curves come near to what was measured, the posterior itself would be too sure.
    """

    def weights(power: float) -> np.ndarray:
        found = np.exp(power * logs)
        return found / found.sum()

    low, high = 0.0, 1.0
    if _effective(weights(1.0)) >= effective:
        return weights(1.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _effective(weights(middle)) >= effective else (low, middle)
    return weights(low)


def _effective(weights: np.ndarray) -> float:
    return float(1 / np.square(weights.sum(axis=1)).sum())


def _drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    """Curves of the prior that are valid, of `count` draws."""

    def uniform(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (count, 1))

    def log_normal(mean: float, spread: float) -> np.ndarray:
        return np.exp(rng.normal(mean, spread, (count, 1)))

    parts: list[tuple[np.ndarray, Callable[..., np.ndarray], tuple[np.ndarray, ...]]] = [
        (uniform(0, 1), _pow3, (uniform(-0.6, 0.6), uniform(0, 1.25), log_normal(0, 2))),
        (uniform(0, 1), _ilog2, (uniform(-0.5, 0.5), uniform(0, 1))),
        (uniform(0, 1), _janoschek, (uniform(0, 1), uniform(0, 2), log_normal(-2, 1), log_normal(0, 0.5))),
    ]

    def values(places: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
        steps = np.log(places + 1.0)
        return sum((weight[rows] * part(steps, *(one[rows] for one in of)) for weight, part, of in parts), np.zeros(1))

    def valid(curves: np.ndarray) -> np.ndarray:
        inside = ((curves >= 0) & (curves <= 1)).all(axis=1)
        return inside & (curves[:, -1] > curves[:, 0])

    rows = np.flatnonzero(valid(values(_FIRST, slice(None))))
    curves = values(np.arange(POINTS), rows)
    return curves[valid(curves)].astype(np.float32)


def _pow3(log_x: np.ndarray, a: np.ndarray, c: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return c - a * np.exp(-alpha * log_x)


def _ilog2(log_x: np.ndarray, a: np.ndarray, c: np.ndarray) -> np.ndarray:
    return c - a / np.log(np.exp(log_x) + 1)


def _janoschek(log_x: np.ndarray, a: np.ndarray, b: np.ndarray, k: np.ndarray, d: np.ndarray) -> np.ndarray:
    return a - (a - b) * np.exp(-k * np.exp(d * log_x))


def _places(times: Sequence[float]) -> np.ndarray:
    shares = np.asarray(times, float)
    if not ((shares > 0) & (shares <= 1)).all():
        raise ValueError(f"times: {list(times)!r} are not shares of the steps, above 0 and at most 1.")
    return np.maximum(np.round(shares * POINTS).astype(int), 1) - 1


_NOISE = np.exp(_NOISE_MEAN + _NOISE_SPREAD * ndtri((np.arange(_NOISES) + 0.5) / _NOISES))
"""Standard deviations of the noise, equally probable."""


@cache
def _blur() -> tuple[np.ndarray, np.ndarray]:
    """Edges, and by noise the probability that a value of each cell, with noise, is below each edge."""
    edges = np.linspace(_LOW, _HIGH, round((_HIGH - _LOW) * _BINS) + 1)
    centres = (np.arange(_BINS) + 0.5) / _BINS
    return edges, ndtr((edges[:, None] - centres) / _NOISE[:, None, None])


@cache
def curve_prior() -> CurvePrior:
    """Returns the prior curves of all forecasts; they are the same in every process."""
    return CurvePrior()


@dataclass(frozen=True)
class Outlook:
    """Forecast of a figure at the last step of a training.

    Attributes:
        forecast: Forecast of the figure, turned so that it rises to 1 at most.
        first: Figure of the first evaluation.
        higher: Whether the figure is a share that is better the higher it is; otherwise an error or a loss.
    """

    forecast: Forecast
    first: float
    higher: bool

    @classmethod
    def of(
        cls, times: Sequence[float], figures: Sequence[float], higher: bool, prior: CurvePrior | None = None
    ) -> "Outlook":
        """Returns the outlook after some evaluations.

        Args:
            times: Shares of the steps, above 0, at which the figure was measured; one, or two of a loss.
            figures: Figures measured there.
            higher: Whether the figure is a share that is better the higher it is. Of a loss, the part of the first one
                that was won counts.
            prior: The curves that it rests on; those of `curve_prior` when None.

        Raises:
            ValueError: The first loss is 0, or as `CurvePrior.forecast` does.
        """
        rises, seen = rising(figures, higher), slice(0 if higher else 1, None)
        return cls((prior or curve_prior()).forecast(times[seen], rises[seen]), figures[0], higher)

    @property
    def figure(self) -> float:
        """Median of the figure."""
        return self._figure(self.forecast.median)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Returns the interval of figures that contains the outcome with this probability."""
        low, high = sorted(map(self._figure, self.forecast.interval(confidence)))
        return low, high

    def _figure(self, risen: float) -> float:
        return min(max(risen, 0.0), 1.0) if self.higher else (1 - risen) * self.first


def rising(figures: Sequence[float], higher: bool) -> list[float]:
    """Returns figures so that they rise to 1 at most: shares as they are, losses as what is won of the first.

    Raises:
        ValueError: The first loss is 0, of which no part can be won.
    """
    if higher:
        return list(figures)
    if not figures[0]:
        raise ValueError(f"figures: the first of {list(figures)!r} is 0, of which no part can be won.")
    return [1 - figure / figures[0] for figure in figures]


@dataclass(frozen=True)
class EarlyStopping:
    """When a training's outcome is known well enough.

    Attributes:
        tolerance: Most that the outcome may differ from its forecast, in the figure's unit as a share of 1: 0.01 is a
            point of accuracy, or a hundredth of the first loss.
        confidence: Probability with which the difference must stay within the tolerance.
    """

    tolerance: float = 0.01
    confidence: float = 0.9

    def certain(self, outlook: Outlook) -> bool:
        """Returns whether the outcome is known within the tolerance."""
        low, high = outlook.forecast.interval(self.confidence)
        return high - low <= 2 * self.tolerance

    def hopeless(self, outlook: Outlook, best: float) -> bool:
        """Returns whether an outcome better than a figure by more than the tolerance is improbable."""
        if not math.isfinite(best):
            return False
        risen = rising([outlook.first, best], outlook.higher)[1]
        return outlook.forecast.above(risen + self.tolerance) < 1 - self.confidence
