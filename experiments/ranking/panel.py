"""The panel of a ranking: architectures spread evenly over a cost, the same ones for every sampler and search."""

import numpy as np

from search_spaces import Genes, SearchSpace, UserError, did_you_mean
from search_spaces.extremes import highest, lowest
from search_spaces.randomness import Purpose, stream

_DRAWS, _UNIFORM, _ROUNDS = 4096, 8, 24


def choose(space: SearchSpace, count: int, metric: str, bins: int, seed: int) -> Genes:
    """Draws a panel: equal numbers from ranges of cost, the smallest and the largest among them.

    The ranges are equally wide on a logarithmic scale. (Equal on a linear scale, most of them hold the widest networks
    only, whose accuracies differ by less than those of two trainings.)

    Architectures are drawn uniformly, and sorted into the ranges; those that uniform draws do not reach are filled by
    draws that lean to small or to large values. What an empty range leaves over goes to the others. A larger panel
    of the same seed holds the smaller one, as far as every range is full.

    Args:
        space: The space.
        count: Number of architectures; the whole space where it has fewer.
        metric: Cost metric.
        bins: Number of ranges.
        seed: Seed of the draws.

    Returns:
        Distinct canonical genes in order of cost.

    Raises:
        UserError: `metric` is no cost of the space.
    """
    count = min(count, space.size)
    costs = space.cost(space.extremes)
    if metric not in costs:
        raise UserError(f"rank.strata: {metric!r} is no cost.{did_you_mean(metric, costs)}")
    ends = (lowest(space, space.cost, metric).value, highest(space, space.cost, metric).value)
    edges = np.geomspace(*ends, bins + 1)
    room = np.diff(np.round(np.linspace(0, count, bins + 1))).astype(int)
    rng = stream(seed, Purpose.PANEL)
    chosen: dict[tuple[int, ...], None] = {}
    spare: dict[tuple[int, ...], None] = {}
    for number in range(_ROUNDS):
        rows = space.extremes if number == 0 else _draw(space, rng, leaning=number > _UNIFORM)
        strata = np.clip(np.searchsorted(edges, space.cost(rows)[metric], side="right") - 1, 0, bins - 1)
        for row, stratum in zip(map(tuple, rows.tolist()), strata, strict=True):
            if row in chosen:
                continue
            if number == 0 or room[stratum] > 0:
                chosen[row] = None
                room[stratum] -= 1
            elif len(spare) < count:
                spare[row] = None
        if room.max() <= 0:
            break
    for row in spare:
        if len(chosen) >= count:
            break
        chosen[row] = None
    genes = np.array(list(chosen)[:count], np.int32)
    return genes[np.lexsort((*genes.T[::-1], space.cost(genes)[metric]))]


def _draw(space: SearchSpace, rng: np.random.Generator, leaning: bool) -> Genes:
    if not leaning:
        return space.sample(rng, _DRAWS)
    # One lean a network: at 0 every gene has its first value, at 1 its last, so all costs between are reached.
    drawn = rng.binomial(space.cardinalities - 1, rng.random((_DRAWS, 1)))
    if not space.ordered.all():  # first and last mean nothing there
        drawn = np.where(space.ordered, drawn, rng.integers(0, space.cardinalities, drawn.shape))
    return space.canonical(drawn.astype(np.int32))
