"""Non-dominated sorting and crowding distance: which of many candidates are better, and which lie alone. moocore ranks.

References:
    Deb, Pratap, Agarwal, Meyarivan. A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II. IEEE Transactions on
    Evolutionary Computation 6(2), 2002.
"""

import numpy as np
from jaxtyping import Float, Int


def ranks(objectives: Float[np.ndarray, "n m"]) -> Int[np.ndarray, " n"]:
    """Returns the front of each row: 0 for rows that no other dominates, 1 for rows dominated only by front 0, etc.

    A row dominates another if it is nowhere larger and somewhere smaller. Rows that are not finite get rank n.
    """
    import moocore

    found = np.full(len(objectives), len(objectives))
    usable = np.isfinite(objectives).all(axis=1)
    if usable.any():
        found[usable] = moocore.pareto_rank(np.asarray(objectives[usable], float))
    return found


def crowding(objectives: Float[np.ndarray, "n m"], rank: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns how alone each row is in its front: the sum over objectives of its neighbours' gap ÷ the range.

    The ends of a front are infinitely alone. An objective in which a front does not vary adds nothing to the others.
    """
    distance = np.zeros(len(objectives))
    for front in np.unique(rank):
        members = np.flatnonzero(rank == front)
        for column in objectives[members].T:
            order = np.argsort(column, kind="stable")
            values = column[order]
            distance[members[order[[0, -1]]]] = np.inf
            if values[-1] > values[0]:
                distance[members[order[1:-1]]] += (values[2:] - values[:-2]) / (values[-1] - values[0])
    return distance


def best_first(objectives: Float[np.ndarray, "n m"]) -> Int[np.ndarray, " n"]:
    """Indices of all rows: by front, in a front the lonelier ones first; those that are not finite come last."""
    rank = ranks(objectives)
    return np.lexsort((-crowding(objectives, rank), rank))
