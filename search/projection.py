"""From the probabilities of a gradient search to an architecture that meets a budget."""

import itertools

import numpy as np
from jaxtyping import Float, Int

from search.budget import CostFunction, ResolvedBudget
from search_spaces import Genes, SearchSpace

_LEAST = 1e-12


def most_probable(
    space: SearchSpace,
    probabilities: Float[np.ndarray, "g v"],
    budget: ResolvedBudget | None = None,
    cost: CostFunction | None = None,
) -> Int[np.ndarray, " g"]:
    """Returns the most probable architecture; if it exceeds the budget, a feasible one that gives up little.

    What an architecture gives up is the log-probability that its active genes lack of their most probable values (genes
    of left-out layers give up nothing, so a shallow network is not favoured). From the most probable values, single
    changes bring the cost down, each time the one that gives up least for the excess that it removes; then changes of
    one or two genes that give up less and stay within the budget are made for as long as there are any. This is the
    greedy form of the Lagrangian relaxation, which decides gene by gene and so needs costs that add up over genes; it
    is not always the optimum.

    Args:
        space: The space.
        probabilities: Distribution of each gene over its values; other entries are ignored.
        budget: Limits; none when None.
        cost: Costs of architectures; the space's cost model when None.

    Returns:
        Canonical genes.
    """
    cost = cost or space.cost
    there = np.arange(probabilities.shape[1]) < space.cardinalities[:, None]
    logs = np.where(there, np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)), -np.inf)
    regret = logs.max(axis=1, keepdims=True) - logs
    genes = logs.argmax(axis=1).astype(np.int32)

    def given_up(rows: Genes) -> np.ndarray:
        each = np.take_along_axis(regret[None], rows[..., None], axis=2)[..., 0]
        return np.where(space.active(rows), each, 0.0).sum(axis=1)

    def state(rows: Genes) -> tuple[np.ndarray, np.ndarray]:
        return given_up(rows), np.zeros(len(rows)) if budget is None else budget.excess(cost(rows))

    (lost,), (excess,) = state(genes[None])
    stuck = False
    while excess > 0:
        rows = _changed(space, genes, 1)
        losses, excesses = state(rows)
        cheaper = excesses < excess
        if not cheaper.any():
            assert not stuck, "a budget that was resolved for the space is met within it"
            # A measured cost need not fall with every gene; the anchor of a resolved budget meets it.
            genes, stuck = np.array((budget and budget.anchor) or space.smallest.genes, np.int32), True
            (lost,), (excess,) = state(genes[None])
            continue
        if stuck:
            rates = excesses
        else:
            rates = np.where(cheaper, (losses - lost) / np.where(cheaper, excess - excesses, 1.0), np.inf)
        best = int(rates.argmin())
        genes, lost, excess = rows[best], losses[best], excesses[best]
    while lost > 0:
        rows = _changed(space, genes, 2)
        losses, excesses = state(rows)
        losses = np.where(excesses > 0, np.inf, losses)
        best = int(losses.argmin())
        if not losses[best] < lost - _LEAST:
            break
        genes, lost = rows[best], losses[best]
    return space.canonical(genes[None])[0]


def _changed(space: SearchSpace, genes: Int[np.ndarray, " g"], most: int) -> Genes:
    """Every gene vector that differs in one to `most` genes; genes of left-out layers keep what they were."""
    changes = [(g, v) for g, n in enumerate(space.cardinalities) for v in range(n) if v != genes[g]]
    rows = []
    for count in range(1, most + 1):
        for combination in itertools.combinations(changes, count):
            columns = [g for g, _ in combination]
            if len(set(columns)) == count:
                row = genes.copy()
                row[columns] = [v for _, v in combination]
                rows.append(row)
    return np.array(rows, np.int32).reshape(-1, len(genes))
