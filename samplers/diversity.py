"""Diversity of the members of an ensemble, and potential and diversity of each value of a gene.

References:
    Chen, Fu, Ling. One-Shot Neural Ensemble Architecture Search by Diversity-Guided Search Space Shrinking. CVPR 2021,
    arXiv:2104.00597 (operators are kept by their potential and by their diversity from the others of their layer).
    Differs: the authors' search code was not released; the two figures are measured as said here, and added up.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from search_spaces import SearchSpace

Distances = Float[np.ndarray, "r v v"]


def member_genes(space: SearchSpace, genes: Int[np.ndarray, "a g"]) -> Int[np.ndarray, "a k m"]:
    """Returns the genes of each member of ensembles, position by position; of shared layers, those of the first member.

    A member that is not there is like the first. Of a space of single networks, each is its only member.
    """
    first, *others = space.member_columns
    active, trunk = space.active(genes), genes[:, first]
    further = [np.where(active[:, columns], genes[:, columns], trunk) for columns in others]
    return np.stack([trunk, *further], axis=1)


def diversity_score(members: Int[np.ndarray, "a k m"], distances: Distances) -> Float[np.ndarray, " a"]:
    """Returns the mean distance between the values of two members, over all genes and all pairs of members.

    Args:
        members: Genes of the members of each ensemble; two or more.
        distances: Distances of all pairs of values of each gene; 0 of a value to itself.
    """
    first, second = np.triu_indices(members.shape[1], 1)
    between = distances[np.arange(members.shape[2]), members[:, first], members[:, second]]
    return between.mean(axis=(1, 2))


def value_scores(
    losses: Float[np.ndarray, " v"], distances: Float[np.ndarray, "v v"], alive: Bool[np.ndarray, " v"], weight: float
) -> Float[np.ndarray, " v"]:
    """Scores the values of one gene: potential plus `weight` times diversity, each 0 to 1 among those alive.

    Args:
        losses: Mean loss of the paths with each value, over that of all paths; NaN where there was none, which counts
            like the best.
        distances: Distances of all pairs of values.
        alive: Values that have not been dropped.
        weight: Weight of diversity.

    Returns:
        Scores; infinite for values that are not alive.
    """
    known = np.where(np.isnan(losses), np.inf, losses)
    seen = known[alive & np.isfinite(known)]
    low, span = (seen.min(), seen.max() - seen.min()) if seen.size else (0.0, 0.0)
    potential = np.ones(len(losses))
    measured = np.isfinite(known)
    potential[measured] = 1.0 if span == 0 else 1 - (known[measured] - low) / span
    others = alive[None] & ~np.eye(len(alive), dtype=bool)
    mean = np.where(others, distances, 0).sum(axis=1) / np.maximum(others.sum(axis=1), 1)
    largest = mean[alive].max(initial=0)
    diversity = mean / largest if largest > 0 else mean
    return np.where(alive, potential + weight * diversity, np.inf)
