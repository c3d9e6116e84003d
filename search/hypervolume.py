"""Hypervolume: how much of the objective space a set of architectures dominates; moocore computes it.

References:
    Zitzler, Thiele. Multiobjective Evolutionary Algorithms: A Comparative Case Study and the Strength Pareto Approach.
    IEEE Transactions on Evolutionary Computation 3(4), 1999.
"""

import numpy as np
from jaxtyping import Float

from search.archive import Archive
from search.budget import CostFunction
from search_spaces.extremes import highest


def hypervolume(objectives: Float[np.ndarray, "n m"], reference: Float[np.ndarray, " m"]) -> float:
    """Computes the volume between rows (all minimised) and a reference point, in the product of their units.

    Rows with a NaN, and what is worse than the reference in any objective, add nothing.
    """
    import moocore

    usable = np.isfinite(objectives).all(axis=1)
    if not usable.any():
        return 0.0
    return float(moocore.hypervolume(np.asarray(objectives[usable], float), ref=np.asarray(reference, float)))


def archive_hypervolume(
    archive: Archive, metric: str, cost: CostFunction | None = None, reference: float | None = None
) -> float:
    """Returns the hypervolume of error against a metric's share of the dearest network of the space.

    The reference point is the space's reference error at the cost of the dearest network, so archives of one space
    compare; within 0 to 1 where errors are shares. `cost` gives that cost, and `reference` another
    error; the space when None.
    """
    most = highest(archive.space, cost or archive.space.cost, metric).value
    shares = archive.costs[metric].astype(float) / (most or 1.0)  # an encoder has no key-value cache
    worst = archive.space.reference_error if reference is None else reference
    return hypervolume(np.stack([archive.errors, shares], axis=1), np.array([worst, 1.0]))
