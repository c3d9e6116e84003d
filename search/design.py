"""D-optimal designs: which networks tell most about a sum over genes, whatever their errors turn out to be.

References:
    Mitchell. An Algorithm for the Construction of D-Optimal Experimental Designs. Technometrics 16(2), 1974.
    Differs: rows are added one at a time and never exchanged; a ridge penalty makes the determinant positive from the
    first row on (Bayesian D-optimality, DuMouchel and Jones, Technometrics 36(1), 1994).
"""

import numpy as np
from jaxtyping import Float, Int


def d_optimal(candidates: Float[np.ndarray, "n f"], count: int, penalty: float) -> Int[np.ndarray, " c"]:
    """Picks rows one at a time, each of which raises the determinant of the penalised normal matrix most.

    Args:
        candidates: Features of the candidates; a constant is added to them.
        count: Number of rows wanted; all of them where there are fewer.
        penalty: Weight of the squared coefficients in the regression that follows.

    Returns:
        Numbers of different rows, in the order in which they were picked.
    """
    rows = np.concatenate([np.ones((len(candidates), 1)), candidates], axis=1)
    inverse = np.eye(rows.shape[1]) / penalty
    gains, chosen = np.einsum("nf,nf->n", rows @ inverse, rows), list[int]()
    for _ in range(min(count, len(rows))):
        best = int(np.argmax(gains))
        chosen.append(best)
        step = inverse @ rows[best]
        scale = 1 + rows[best] @ step
        inverse -= np.outer(step, step) / scale
        gains = gains - (rows @ step) ** 2 / scale
        gains[chosen] = -np.inf
    return np.array(chosen, np.int64)
