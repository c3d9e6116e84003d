"""Consensus of several rankings of the same networks: a network ranks high where none of them ranks it low.

References:
    Lee, Ham. AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search. CVPR 2024, arXiv:2403.19232 (the sum
    of logarithms of ranks).
    Differs: equal scores share the mean of their ranks.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

CONSENSUS = ("synflow", "expressivity", "progressivity", "transmission")
"""The proxies whose consensus `supernest rank --proxies` shows. Of all sets of up to five of eight proxies, this one
ranks one half of the cells of NAS-Bench-201 best (`docs/results/search.md`)."""


def consensus(scores: Sequence[Float[np.ndarray, " a"]]) -> Float[np.ndarray, " a"]:
    """Sums the logarithms of ranks, from 1 for the lowest score; higher is better.

    Args:
        scores: One array for each ranking with a score for each network; higher is better, not finite is lowest.
    """
    from scipy.stats import rankdata  # takes most of a second to import, so only where it is used

    return np.sum([np.log(rankdata(np.where(np.isfinite(of), of, -np.inf)) / len(of)) for of in scores], axis=0)
