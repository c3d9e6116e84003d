"""Architectures whose cost lies in a narrow window, also where one in 10¹⁵ does: rejection, then multilevel splitting.

Rejection finds the windows that uniform draws reach. For the others, the uniform draws nearest to the window are the
first of a series of populations, each uniform over the architectures within some distance of the window: the nearer
half of a population is duplicated and then walks at random inside the smaller distance, until the distance is 0. The
moves are symmetric and accepted exactly if they stay within the distance, so the walk leaves the uniform distribution
over those architectures as it is; and as populations and not single chains come closer, parts of the window that no
walk would cross between (such as two depths at one cost) keep their shares.

References:
    Au, Beck. Estimation of small failure probabilities in high dimensions by subset simulation. Probabilistic
    Engineering Mechanics 16 (2001).
    Botev, Kroese. Efficient Monte Carlo simulation via the generalized splitting method. Statistics and Computing 22
    (2012). Differs from both: crossover between the members of a population is a further symmetric move.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int32

CostOf = Callable[[Int32[np.ndarray, "a g"]], Float[np.ndarray, " a"]]

_POOL = 1 << 17  # uniform draws for rejection; spaces with fewer gene vectors are enumerated
_SWEEPS = 6  # of moves after each duplication
_SETTLE = 48  # more of them inside the window
_STALLED = 20  # populations in a row without an architecture nearer to the window


class EmptyWindow(ValueError):
    """No architecture costs what a window asks for.

    Attributes:
        window: Index of the window.
        nearest: The reachable cost nearest to it.
    """

    def __init__(self, window: int, nearest: float) -> None:
        super().__init__(f"window {window} is empty; the nearest cost is {nearest}")
        self.window = window
        self.nearest = nearest


@dataclass(frozen=True)
class Drawn:
    """Example drawn from a window.

    Attributes:
        genes: Gene vectors as they were drawn, so genes that mean nothing are random too.
        probability: Probability that a uniform gene vector falls in the window: exact for a space that was enumerated,
            else the share of uniform draws, times the share that each population kept where rejection did not reach.
    """

    genes: Int32[np.ndarray, "a g"]
    probability: float


@dataclass(frozen=True)
class Box:
    """All gene vectors between two bounds.

    Attributes:
        low: Least value of each gene.
        end: One more than the largest.
    """

    low: Int32[np.ndarray, " g"]
    end: Int32[np.ndarray, " g"]

    @property
    def size(self) -> int:
        """Number of gene vectors."""
        return math.prod((self.end - self.low).tolist())

    def sample(self, rng: np.random.Generator, count: int) -> Int32[np.ndarray, "a g"]:
        """Draws gene vectors uniformly."""
        # Scaled uniform numbers are several times as fast as integers with bounds of their own, and no less uniform
        # than float32 (2**-24) is fine.
        return self.low + (rng.random((count, len(self.low)), np.float32) * (self.end - self.low)).astype(np.int32)

    def all(self) -> Int32[np.ndarray, "a g"]:
        """Returns every gene vector once."""
        sides = tuple((self.end - self.low).tolist())
        return self.low + np.stack(np.unravel_index(np.arange(self.size), sides), axis=1).astype(np.int32)


def draw(
    box: Box,
    cost: CostOf,
    windows: list[tuple[float, float]],
    count: int,
    rng: np.random.Generator,
    enumerate_up_to: int = _POOL,
    pool: int = _POOL,
) -> list[Drawn]:
    """Draws `count` gene vectors of each window, distributed as uniform ones of the box given that they fall in it.

    Args:
        box: Box to draw from.
        cost: One number a gene vector.
        windows: Lowest and highest cost of each.
        count: Gene vectors a window.
        rng: Source of all randomness.
        enumerate_up_to: Boxes of at most so many gene vectors are enumerated.
        pool: Uniform draws before rejection gives up.

    Raises:
        EmptyWindow: No architecture is in a window: surely so where the box was enumerated; otherwise after
            populations stopped coming nearer to it.
    """
    exact = box.size <= enumerate_up_to
    genes = box.all() if exact else box.sample(rng, max(pool, count))
    costs = cost(genes)
    found = []
    for number, (low, high) in enumerate(windows):
        inside = np.flatnonzero((costs >= low) & (costs <= high))
        if exact and not len(inside):
            raise EmptyWindow(number, _nearest(costs, low, high))
        if exact or len(inside) >= count:
            rows = rng.choice(inside, count, replace=exact)
            found.append(Drawn(genes[rows], len(inside) / len(genes)))
        else:
            found.append(_split(box, cost, (low, high), count, rng, genes, costs, number))
    return found


def _nearest(costs: np.ndarray, low: float, high: float) -> float:
    return float(costs[np.argmin(_distance(costs, low, high))])


def _distance(costs: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.maximum(np.maximum(low - costs, costs - high), 0)


def _split(
    box: Box,
    cost: CostOf,
    window: tuple[float, float],
    count: int,
    rng: np.random.Generator,
    pool: np.ndarray,
    pool_costs: np.ndarray,
    number: int,
) -> Drawn:
    """Populations ever nearer to the window; the first one is the part of the uniform pool that is nearest to it."""
    distances = _distance(pool_costs, *window)
    nearest = np.argpartition(distances, count - 1)[:count]
    genes, distances = pool[nearest], distances[nearest]
    reached = distances.max()
    probability, stalled = count / len(pool), 0
    while reached > 0:
        nearer = distances[distances < reached]
        if len(nearer):
            reached, stalled = min(np.median(distances), nearer.max()), 0
            kept = np.flatnonzero(distances <= reached)
            probability *= len(kept) / count
            parents = np.resize(rng.permutation(kept), count)
            genes, distances = genes[parents], distances[parents]
        else:
            stalled += 1
            if stalled == _STALLED:
                raise EmptyWindow(number, _nearest(cost(genes), *window))
        genes, distances = _walk(box, cost, window, genes, distances, reached, rng, _SWEEPS)
    return Drawn(_walk(box, cost, window, genes, distances, 0.0, rng, _SETTLE)[0], probability)


def _walk(
    box: Box,
    cost: CostOf,
    window: tuple[float, float],
    genes: np.ndarray,
    distances: np.ndarray,
    reached: float,
    rng: np.random.Generator,
    sweeps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Sweeps of one redraw and one crossover; both leave a population uniform within the distance as it is."""
    genes, distances = genes.copy(), distances.copy()
    half = len(genes) // 2
    for _ in range(sweeps):
        changed = _chosen_genes(rng, *genes.shape)
        proposal = np.where(changed, box.sample(rng, len(genes)), genes)
        new = _distance(cost(proposal), *window)
        accepted = new <= reached
        genes[accepted], distances[accepted] = proposal[accepted], new[accepted]

        order = rng.permutation(len(genes))
        one, other = order[:half], order[half : 2 * half]
        swapped = _chosen_genes(rng, half, genes.shape[1])
        pair = np.concatenate(
            [np.where(swapped, genes[other], genes[one]), np.where(swapped, genes[one], genes[other])]
        )
        new = _distance(cost(pair), *window)
        # A swap is one move of both, so it is made only if both stay.
        accepted = np.tile((new[:half] <= reached) & (new[half:] <= reached), 2)
        rows = order[: 2 * half][accepted]
        genes[rows], distances[rows] = pair[accepted], new[accepted]
    return genes, distances


def _chosen_genes(rng: np.random.Generator, rows: int, genes: int) -> Bool[np.ndarray, "a g"]:
    """Which genes a move changes: from about one to all, every order of magnitude as often."""
    rate = np.float32(genes) ** -rng.random((rows, 1), np.float32)
    return rng.random((rows, genes), np.float32) < rate
