"""Successive halving: most candidates of a generation are judged by a part of the validation split only.

References:
    Jamieson, Talwalkar. Non-stochastic Best Arm Identification and Hyperparameter Optimization. AISTATS 2016,
    arXiv:1502.07943.
    Sieberling, Kuznedelev, Kurtic, Alistarh. EvoPress. ICML 2025, arXiv:2410.14649 (multi-step selection).
    Differs: the parts of the split are nested and the same in every generation, so an architecture has one error at
    each rung; several budgets and objectives share a generation, so each budget keeps its own share, by front.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from search.nondominated import best_first
from search_spaces import Genes, UserError

Rungs = tuple[tuple[float, float], ...]
"""Before the whole validation split: share of the split, and share of the candidates that goes on from there."""

EvaluatePart = Callable[[Genes, float], Float[np.ndarray, " p"]]
"""Validation errors on a share of the split, NaN for one that failed; a larger share holds the smaller ones."""


class Halved(NamedTuple):
    """A generation after its last rung.

    Attributes:
        errors: On the whole split; NaN where the evaluation failed or stopped at a rung.
        fractions: Share of the split that was used; 1 unless the evaluation stopped at a rung.
        partial_errors: Error on that share where the evaluation stopped; NaN elsewhere.
    """

    errors: Float[np.ndarray, " p"]
    fractions: Float[np.ndarray, " p"]
    partial_errors: Float[np.ndarray, " p"]


def check_rungs(rungs: Rungs) -> None:
    """Refuses rungs that cannot work.

    Raises:
        UserError: Shares of the split that do not ascend between 0 and 1, or shares of candidates outside 0 to 1.
    """
    before = 0.0
    for rung in rungs:
        if len(rung) != 2 or not before < rung[0] < 1 or not 0 < rung[1] <= 1:
            raise UserError(
                f"search.halving: {rung!r} cannot follow {before:g} of the split. Give pairs of a share of the split, "
                "ascending between 0 and 1, and the share kept, above 0: [[0.0625, 0.25], [0.25, 0.25]]."
            )
        before = rung[0]


def in_parts(rungs: Rungs, parts: int) -> Rungs:
    """Returns rungs as they are evaluated: shares of the split rounded up to whole parts of it, such as batches.

    Of rungs that come out alike one is left, which keeps what all of them would; those that come out as the whole split
    are left out.
    """
    kept: dict[int, float] = {}
    for fraction, share in rungs:
        count = max(1, math.ceil(fraction * parts - 1e-9))  # rounding errors of 3 * 0.1 must not add a part
        kept[count] = kept.get(count, 1.0) * share
    return tuple((count / parts, share) for count, share in kept.items() if count < parts)


def halve(
    rungs: Rungs,
    genes: Genes,
    others: Float[np.ndarray, "p k"],
    meets: Bool[np.ndarray, "budgets p"],
    part: Callable[[Genes, float], Float[np.ndarray, " p"]],
    whole: Callable[[Genes], Float[np.ndarray, " p"]],
) -> Halved:
    """Evaluates a generation on growing shares of the split, each time only what is best so far.

    Of the candidates that meet a budget, each rung keeps the share that is best by front and crowding; a candidate goes
    on if any budget keeps it. One that fails goes no further.

    Args:
        rungs: Shares of the split and of the candidates.
        genes: The generation.
        others: Objectives besides the error.
        meets: Budgets that each candidate meets.
        part: Errors on a share of the split.
        whole: Errors on the whole split.
    """
    fractions, partial, errors = np.ones(len(genes)), np.full(len(genes), np.nan), np.full(len(genes), np.nan)
    alive = np.arange(len(genes))
    for fraction, share in rungs:
        partial[alive] = part(genes[alive], fraction)
        fractions[alive] = np.where(np.isnan(partial[alive]), 1.0, fraction)
        kept = np.zeros(len(genes), bool)
        for budget in meets:
            members = alive[budget[alive] & np.isfinite(partial[alive])]
            order = best_first(np.column_stack([partial[members], others[members]]))
            kept[members[order[: math.ceil(share * len(members))]]] = True
        alive = np.flatnonzero(kept)
    if alive.size:
        errors[alive] = whole(genes[alive])
    fractions[alive], partial[alive] = 1.0, np.nan
    return Halved(errors, fractions, partial)
