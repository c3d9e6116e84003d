"""Predictor: a regressor from architectures to one number each, with an honest figure of how well it ranks.

References:
    Cummings, Sarah, Nittur Sridhar, Szankin, Munoz, Sundaresan. A Hardware-Aware Framework for Accelerating Neural
    Architecture Search Across Modalities (LINAS). AutoML 2022, arXiv:2205.10358.
    Differs: the settings are fixed instead of searched for on a grid; genes that mean nothing have all-zero features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from search_spaces.errors import UserError, did_you_mean
from search_spaces.randomness import Purpose, stream
from search_spaces.space import Genes, SearchSpace


def _ridge(seed: int) -> Any:
    from sklearn.linear_model import Ridge  # scikit-learn takes a second to import, so only where it is used

    return Ridge(alpha=1.0)


def _svr(seed: int) -> Any:
    from sklearn.svm import SVR

    return SVR(kernel="rbf", gamma="auto", C=10.0, epsilon=0.0)


def _gradient_boosting(seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingRegressor

    return GradientBoostingRegressor(n_estimators=200, learning_rate=0.1, max_depth=3, random_state=seed)


def _random_forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(n_estimators=100, max_features=1 / 3, random_state=seed)


_REGRESSORS: dict[str, Callable[[int], Any]] = {
    "ridge": _ridge,
    "svr": _svr,
    "gradient_boosting": _gradient_boosting,
    "random_forest": _random_forest,
}

PREDICTORS = tuple(_REGRESSORS)
"""Kinds of predictors: `ridge` (penalty 1), `svr` (RBF kernel of width 1 ÷ features, C 10, no dead zone, as LINAS),
`gradient_boosting` (200 trees of depth 3, rate 0.1), `random_forest` (100 trees, a third of the features a split)."""


SCORED = ("parzc", "proxy_forest")
"""Kinds that learn from zero-cost proxies of the networks and not from genes: `parzc` (ParZC), `proxy_forest` (a random
forest as above). Who has networks gives what fits them."""

Predictions = Callable[[Genes], Float[np.ndarray, " a"]]
"""Predicts the target of each architecture."""
Fit = Callable[[Genes, Float[np.ndarray, " a"], int], Predictions]
"""Learns from architectures, their targets and a seed; predictions of some need only have the order of the targets."""


@dataclass(frozen=True)
class Predictor:
    """A fitted regressor over the one-hot genes of a space; made by `Predictor.fit`.

    The targets are brought to mean 0 and variance 1 before they are fitted, so no setting depends on their unit.

    Attributes:
        space: The space whose architectures it predicts.
        kind: One of `PREDICTORS`.
        regressor: The fitted scikit-learn regressor of the standardised targets.
        mean: Mean of the targets.
        scale: Standard deviation of the targets; 1 where they are all equal.
    """

    space: SearchSpace
    kind: str
    regressor: Any
    mean: float
    scale: float

    @classmethod
    def fit(
        cls, space: SearchSpace, genes: Genes, targets: Float[np.ndarray, " a"], kind: str = "ridge", seed: int = 0
    ) -> "Predictor":
        """Fits a predictor; the same arguments give the same one.

        Raises:
            UserError: The kind is not known, there are no rows, or a target is not finite.
        """
        if kind not in _REGRESSORS:
            raise UserError(f"predictor: {kind!r} is not known.{did_you_mean(kind, PREDICTORS)}")
        targets = _checked(targets)
        mean, scale = float(targets.mean()), float(targets.std())
        # Rounding leaves equal targets a scale of about 1e-17, which would blow noise up to variance 1.
        scale = scale if scale > 1e-12 * max(abs(mean), 1e-300) else 1.0
        regressor = _REGRESSORS[kind](seed).fit(one_hot(space, genes), (targets - mean) / scale)
        return cls(space, kind, regressor, mean, scale)

    def __call__(self, genes: Genes) -> Float64[np.ndarray, " a"]:
        """Predicts the target of each architecture."""
        if not len(genes):
            return np.zeros(0)
        return self.mean + self.scale * np.asarray(self.regressor.predict(one_hot(self.space, genes)), np.float64)


def one_hot(space: SearchSpace, genes: Genes) -> Float64[np.ndarray, "a features"]:
    """Encodes genes with one feature for each value of each gene; all zero for a meaningless gene."""
    starts = np.cumsum(space.cardinalities) - space.cardinalities
    rows, columns = np.nonzero(space.active(genes))
    features = np.zeros((len(genes), int(space.cardinalities.sum())))
    features[rows, starts[columns] + genes[rows, columns]] = 1
    return features


def cross_validated_tau(
    space: SearchSpace,
    genes: Genes,
    targets: Float[np.ndarray, " a"],
    kind: str = "ridge",
    folds: int = 5,
    seed: int = 0,
    fit: Fit | None = None,
) -> float:
    """Computes Kendall's tau-b between targets and cross-validated predictions.

    Nothing is scaled or chosen on the rows that are predicted, and rows of the same canonical architecture share a
    fold. Predictions of all folds are ranked together; a fold with high targets leaves a low mean to its predictor, so
    pure noise comes out slightly below 0, never above.

    Args:
        folds: Into how many parts the architectures are split, 2 or more.
        seed: Seed of the split and of the predictors.
        fit: Function that fits a predictor; a predictor of `kind` when None.

    Returns:
        Tau-b in -1…1; NaN where all targets or all predictions are equal, as nothing can be ranked.

    Raises:
        UserError: `Predictor.fit` raises it, or there are fewer distinct architectures than folds.
    """
    from scipy.stats import kendalltau

    targets = _checked(targets)
    distinct, group = np.unique(space.canonical(genes), axis=0, return_inverse=True)
    if not 2 <= folds <= len(distinct):
        raise UserError(
            f"predictor.folds: {folds} folds of {len(distinct)} distinct architectures. "
            f"Give 2 to {len(distinct)}, or more architectures."
        )
    fold = (stream(seed, Purpose.PREDICTOR_FOLDS).permutation(len(distinct)) % folds)[group.reshape(-1)]
    predicted = np.zeros(len(targets))
    fit = fit or (lambda some, values, seed: Predictor.fit(space, some, values, kind, seed))
    for held_out in range(folds):
        rest = fold != held_out
        predicted[~rest] = fit(genes[rest], targets[rest], seed)(genes[~rest])
    if np.ptp(targets) == 0 or np.ptp(predicted) == 0:
        return float("nan")
    return float(kendalltau(targets, predicted)[0])  # type: ignore[arg-type]


def _checked(targets: np.ndarray) -> np.ndarray:
    if not len(targets):
        raise UserError("predictor: no architectures to learn from. Give at least one.")
    bad = np.flatnonzero(~np.isfinite(targets))
    if bad.size:
        raise UserError(f"predictor: target {bad[0]} is {targets[bad[0]]}. Leave out what is not finite.")
    return np.asarray(targets, np.float64)
