"""Breeding: children of architectures, by mutation and crossover, that meet a budget and were not evaluated before."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

from search.budget import CostFunction, ResolvedBudget
from search.sampling import Unseen, shrink
from search_spaces import Genes, SearchSpace

Children = Int[np.ndarray, "p g"]
"""Canonical genes; another number of rows than the parents."""

_TRIES = 10


def breed(
    space: SearchSpace,
    rng: np.random.Generator,
    children: Callable[[int], Children],
    count: int,
    budget: ResolvedBudget,
    cost: CostFunction,
    unseen: Unseen,
) -> int:
    """Adds up to `count` children that meet a budget, and says how many.

    Children over budget are rejected, up to ten tries for each that is wanted; if too few are left, rejected ones are
    shrunk to the budget.

    Args:
        children: Makes as many canonical children as it is asked for.
    """
    made = children(_TRIES * count)
    feasible = budget.feasible(cost(made))
    added = unseen.add(made[feasible], count)
    if added < count:
        added += unseen.add(shrink(space, rng, made[~feasible], budget, cost), count - added)
    return added


def with_new_layers(space: SearchSpace, rng: np.random.Generator, genes: Genes) -> Int[np.ndarray, "a g"]:
    """Draws the genes beyond each row's depth, so that a deeper child has random new layers; not canonical."""
    drawn = rng.integers(0, space.cardinalities, size=genes.shape, dtype=np.int32)
    return np.where(space.active(genes), genes, drawn)


def cross(space: SearchSpace, rng: np.random.Generator, first: Genes, second: Genes) -> Genes:
    """Crosses two parents uniformly; a layer that only one parent has comes from that parent."""
    active_first, active_second = space.active(first), space.active(second)
    return space.crossover(rng, np.where(active_first, first, second), np.where(active_second, second, first))


def change_one(space: SearchSpace, rng: np.random.Generator, genes: Genes) -> Genes:
    """Gives one active gene of each row, chosen uniformly, another value, chosen uniformly; new layers are random."""
    column = pick(rng, space.active(genes) & (space.cardinalities > 1))
    row = np.flatnonzero(column >= 0)
    column = column[row]
    changed = with_new_layers(space, rng, genes)
    step = rng.integers(1, space.cardinalities[column])
    changed[row, column] = (changed[row, column] + step) % space.cardinalities[column]
    return space.canonical(changed)


def pick(rng: np.random.Generator, allowed: Bool[np.ndarray, "a g"]) -> Int[np.ndarray, " a"]:
    """Draws one of the allowed columns of each row uniformly; -1 if there is none."""
    column = np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=1)
    return np.where(allowed.any(axis=1), column, -1)
