"""Ranking fidelity: how well the supernet's order of architectures agrees with the true one, with bootstrap intervals.

References:
    Kendall. The treatment of ties in ranking problems. Biometrika 33(3), 1945 (tau-b).
    Efron. Bootstrap methods: another look at the jackknife. Annals of Statistics 7(1), 1979 (percentile intervals).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.records import Estimate
from search_spaces.randomness import Purpose, stream

FEWEST = 3
"""Of fewer architectures no correlation is given."""

_PAIRED = 150  # architectures all of whose pairs are compared at once
_CONFIDENCE = 0.95
_TOPS = {"tau_top_10": 0.1, "tau_top_50": 0.5}

Values = Float[np.ndarray, " p"]


def fidelity(truth: Values, score: Values, quality: Values, resamples: int, seed: int) -> dict[str, Estimate]:
    """Computes all figures of a panel.

    Args:
        truth: Result of each architecture trained alone; higher is better.
        score: Result of each with the supernet's weights; higher is better.
        quality: Quantity in which regret is given, such as the true accuracy; higher is better.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        `kendall_tau`, `spearman`, `tau_top_10` and `tau_top_50` (tau-b among the truly best 10 % and 50 %), and
        `regret` (the true quality that the supernet's first choice loses against the best of the panel).
    """
    figures: dict[str, Callable[[np.ndarray], tuple[float, str]]] = {
        "kendall_tau": lambda rows: _defined(kendall_tau, truth[rows], score[rows]),
        "spearman": lambda rows: _defined(spearman, truth[rows], score[rows]),
        **{name: lambda rows, s=share: _among_the_best(truth[rows], score[rows], s) for name, share in _TOPS.items()},
        "regret": lambda rows: (regret(quality[rows], score[rows]), ""),
    }
    rng = stream(seed, Purpose.RESAMPLING)
    draws = rng.integers(0, len(truth), size=(resamples, len(truth)))
    everything = np.arange(len(truth))
    return {name: _estimate(figure, everything, draws) for name, figure in figures.items()}


def _estimate(figure: Callable[[np.ndarray], tuple[float, str]], everything: np.ndarray, draws: np.ndarray) -> Estimate:
    value, reason = figure(everything)
    if reason:
        return Estimate(math.nan, math.nan, math.nan, reason)
    resampled = np.array([figure(rows)[0] for rows in draws])
    resampled = resampled[~np.isnan(resampled)]  # of one repeated architecture there is no order
    if not resampled.size:
        return Estimate(value, math.nan, math.nan)
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def _among_the_best(truth: Values, score: Values, share: float) -> tuple[float, str]:
    best = top(truth, share)
    return _defined(kendall_tau, truth[best], score[best])


def _defined(figure: Callable[[Values, Values], float], truth: Values, score: Values) -> tuple[float, str]:
    if len(truth) < FEWEST:
        return math.nan, f"too few to judge an order: {len(truth)}, of at least {FEWEST}"
    for values, whose in ((truth, "on their own"), (score, "with the supernet's weights")):
        if np.all(values == values[0]):
            return math.nan, f"all {len(truth)} architectures are equally good {whose}"
    return figure(truth, score), ""


def top(truth: Values, share: float) -> np.ndarray:
    """Indices of the best `share` of the panel, rounded up; all that are as good as the last of them come along."""
    wanted = math.ceil(round(share * len(truth), 9))
    return np.flatnonzero(truth >= np.sort(truth)[-wanted])


def kendall_tau(a: Values, b: Values) -> float:
    """Returns tau-b: concordant less discordant pairs, over the geometric mean of the pairs not tied in `a` and in `b`.

    Pairs of one resampled architecture with itself are tied in both and so count nowhere. SciPy's takes about as long
    for 24 architectures as for 500; a bootstrap asks for thousands, so few architectures are compared here
    (`python -m experiments.benchmarks.correlations`; figures in `docs/results/figures.md`).
    """
    return tau_of_pairs(a, b) if len(a) <= _PAIRED else tau_of_scipy(a, b)


def tau_of_pairs(a: Values, b: Values) -> float:
    """Returns tau-b from the signs of all pairs; NaN where all of them are tied."""
    of_a, of_b = (np.sign(values[:, None] - values[None]) for values in (a, b))
    pairs = math.sqrt(np.count_nonzero(of_a) * np.count_nonzero(of_b))
    return float(np.sum(of_a * of_b) / pairs) if pairs else math.nan


def tau_of_scipy(a: Values, b: Values) -> float:
    """Returns SciPy's tau-b; NaN where all pairs are tied."""
    from scipy.stats import kendalltau  # takes most of a second to import, so only where it is used

    result: Any = kendalltau(a, b, method="asymptotic")
    return float(result[0])


def spearman(a: Values, b: Values) -> float:
    """Returns Pearson's correlation of the ranks; tied values share the mean of their ranks. NaN where all are tied."""
    if np.all(a == a[0]) or np.all(b == b[0]):
        return math.nan
    from scipy.stats import spearmanr  # as above

    result: Any = spearmanr(a, b)
    return float(result[0])


def regret(quality: Values, score: Values) -> float:
    """Computes the best true quality minus that of the architecture ranked first (mean over ties)."""
    return float(quality.max() - quality[score == score.max()].mean())
