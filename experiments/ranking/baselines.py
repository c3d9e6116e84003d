"""Baselines of a ranking: the number of parameters, and the cheapest real training; and tau where ties count otherwise.

References:
    White, Khodak, Tu, Shah, Bubeck, Dey. A Deeper Look at Zero-Cost Proxies for Lightweight NAS. ICLR Blog Track 2022
    (the number of parameters and of multiply-adds are competitive).
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from experiments.ranking.fidelity import FEWEST, kendall_tau, regret, top
from experiments.records import BaselineFigures, OtherCounts
from search_spaces import Genes, SearchSpace

NO_TRAINING = "no cheaper training of this panel is known; a truth table has one"
Values = Float[np.ndarray, " p"]


def baselines(
    truth: Values, quality: Values, params: Values, cheap: tuple[str, Values] | None
) -> Mapping[str, BaselineFigures]:
    """Returns the figures of the two rankings that need no supernet, by name.

    Args:
        truth: Result of each architecture trained alone; higher is better.
        quality: Quantity in which regret is given.
        params: Number of parameters of each.
        cheap: Name and figures of the cheapest real training of the same architectures; None where none is known.
    """
    found = {"parameters": _figures(truth, quality, params)}
    if cheap is None:
        return {**found, "cheapest training": BaselineFigures(reason=NO_TRAINING)}
    return {**found, cheap[0]: _figures(truth, quality, cheap[1])}


def counted_otherwise(space: SearchSpace, genes: Genes, truth: Values, score: Values) -> OtherCounts:
    """Returns Kendall's tau where what is alike counts in another way."""
    _, classes = np.unique(space.isomorphic(genes), axis=0, return_inverse=True)
    classes = classes.reshape(-1)
    members = np.bincount(classes)
    each = [np.bincount(classes, weights=values) / members for values in (truth, score)]
    once = _number(kendall_tau(*each)) if len(members) >= FEWEST else None
    return OtherCounts(_number(tau_a(truth, score)), once, len(members))


def tau_a(a: Values, b: Values) -> float:
    """Computes concordant minus discordant pairs over all pairs."""
    n, tau = len(a), kendall_tau(a, b)
    if math.isnan(tau):
        return math.nan
    free = [n * (n - 1) - int(np.sum(count * (count - 1))) for count in map(_tied, (a, b))]
    return tau * math.sqrt(free[0] * free[1]) / (n * (n - 1))


def _tied(values: Values) -> np.ndarray:
    return np.unique(values, return_counts=True)[1].astype(np.int64)


def _figures(truth: Values, quality: Values, score: Values) -> BaselineFigures:
    best = top(truth, 0.1)
    of_best = _number(kendall_tau(truth[best], score[best])) if len(best) >= FEWEST else None
    return BaselineFigures(_number(kendall_tau(truth, score)), of_best, regret(quality, score))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def report_lines(
    by_name: Mapping[str, BaselineFigures], otherwise: OtherCounts | None, scale: float, unit: str
) -> list[str]:
    """Returns the baselines and counts of a ranking as lines to read; `scale` and `unit` are those of regret."""

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    told = []
    for name, of in by_name.items():
        if of.regret is None:
            told.append(f"by {name}: -  ({of.reason})")
            continue
        taus = f"tau-b {shown(of.kendall_tau)}, best 10 % {shown(of.tau_top_10)}"
        told.append(f"by {name}: {taus}, regret {scale * of.regret:.3g}{unit}")
    if otherwise is not None:
        once = f"isomorphic networks once {shown(otherwise.isomorphic_once)} ({otherwise.networks:,})"
        told.append(f"counted otherwise: {once}, ties as pairs (tau-a) {shown(otherwise.tau_a)}")
    return told
