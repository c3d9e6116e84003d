"""Fits costs of pieces to costs of whole networks: a sum over pieces, or the most expensive piece."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from search_spaces.cost import product
from search_spaces.randomness import Purpose, stream
from search_spaces.sealed_json import JsonObject

STRENGTHS = (1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0)
"""Of the pull to the prior, from which cross-validation chooses."""

_FOLDS = 5
_REWEIGHTINGS = 4
_OUTLYING = 2.0  # median deviations

Counts = Int[np.ndarray, "a p"]
Measured = Float[np.ndarray, " a"]


@dataclass(frozen=True)
class PieceCosts:
    """Costs of networks as sums over their pieces.

    Attributes:
        kind: `sum`: `constant + counts @ values`. `peak`: `constant` and the value of the dearest piece.
        constant: Cost that every network has.
        values: Cost of each piece, 0 or more.
    """

    kind: str
    constant: int
    values: Int[np.ndarray, " p"]

    def __call__(self, counts: Counts) -> Int[np.ndarray, " a"]:
        """Costs of networks of so many pieces."""
        if self.kind == "sum":
            return self.constant + counts @ self.values
        return self.constant + np.where(counts > 0, self.values, 0).max(axis=1, initial=0)

    def as_dict(self) -> JsonObject:
        """Returns the costs as plain values."""
        return {"kind": self.kind, "constant": self.constant, "pieces": self.values.tolist()}


def fit_sum(counts: Counts, costs: Int[np.ndarray, "p 3"], measured: Measured) -> PieceCosts:
    """Fits a non-negative cost to each piece so that sums agree with measurements, by relative least squares.

    A piece has as prior a non-negative combination of its params, MACs, activation bytes and 1, fitted to the same
    measurements. Its value is pulled to the prior, in units of the prior, as strongly as predicts left-out networks
    best. So pieces that were measured seldom or never follow the others; the rest follow what was measured.

    Args:
        counts: Number of times that each measured network has each piece.
        costs: Params, MACs and activation bytes of the pieces.
        measured: A positive number a network, in a unit so small that whole numbers are precise enough.
    """
    errors = [
        left_out_error(lambda c, m, strength=strength: _ridge(c, costs, m, strength), counts, measured)
        for strength in STRENGTHS
    ]
    return _ridge(counts, costs, measured, STRENGTHS[int(np.argmin(errors))])


def fit_peak(counts: Counts, costs: Int[np.ndarray, "p 3"], measured: Measured) -> PieceCosts:
    """Fits each piece the most that it can cost if networks cost as much as their dearest piece.

    That is the least that any network with the piece was measured to cost; and not more, for its activation bytes, than
    the network that was measured to cost most for those of its largest piece. The second bound is for pieces that were
    measured beside larger ones only, or never.

    Args:
        counts: Number of times that each measured network has each piece.
        costs: Params, MACs and activation bytes of the pieces.
        measured: A positive number a network.
    """
    has = counts > 0
    least = np.where(has, measured[:, None], np.inf).min(axis=0)
    largest = np.where(has, costs[:, 2], 0).max(axis=1).clip(1)
    values = np.minimum(least, costs[:, 2] * (measured / largest).max())
    return PieceCosts("peak", 0, np.rint(values).astype(np.int64))


def left_out_error(
    fit: Callable[[Counts, Measured], PieceCosts], counts: Counts, measured: Measured, seed: int = 0
) -> float:
    """Returns the mean relative error of networks that were left out of a fit, one of five parts at a time."""
    folds = stream(seed, Purpose.PIECE_FOLDS).permutation(len(measured)) % _FOLDS
    errors = []
    for fold in range(_FOLDS):
        predicted = fit(counts[folds != fold], measured[folds != fold])(counts[folds == fold])
        errors.append(np.abs(predicted / measured[folds == fold] - 1))
    return float(np.concatenate(errors).mean())


def _ridge(counts: Counts, costs: np.ndarray, measured: Measured, strength: float) -> PieceCosts:
    from scipy.optimize import nnls

    relative, ones = 1 / measured[:, None], np.ones(len(measured))
    features = np.column_stack([costs, np.ones(len(costs))]).astype(float)
    features /= features.max(axis=0).clip(1)
    sums = np.column_stack([product(counts, features), ones])
    # Unknowns of about one size: a feature of mean 1 whose coefficient is a mean cost.
    size = sums.mean(axis=0) / measured.mean()
    coefficients = nnls(sums / size * relative, ones)[0] / size
    prior = np.append(product(features, coefficients[:-1]), coefficients[-1])
    # A prior of 0 would hold its piece at 0 whatever is measured.
    prior = np.maximum(prior, 1e-3 * measured.mean() / counts.sum(axis=1).mean())
    whole = np.column_stack([counts, ones]) * prior * relative
    pull = np.sqrt(strength) * np.eye(len(prior))
    weights, found = ones, np.ones(len(prior))
    for _ in range(_REWEIGHTINGS):
        rows = np.concatenate([whole * weights[:, None], pull])
        found = nnls(rows, np.concatenate([weights, np.sqrt(strength) * np.ones(len(prior))]))[0]
        # Huber's weights: a measurement that something disturbed counts less.
        off = np.abs(product(whole, found) - 1)
        weights = np.sqrt(np.minimum(1, max(_OUTLYING * float(np.median(off)), 1e-3) / off.clip(1e-12)))
    found = np.rint(found * prior).astype(np.int64)
    return PieceCosts("sum", int(found[-1]), found[:-1])
