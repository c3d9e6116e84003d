"""Drawing architectures that meet a budget and were not evaluated before, also where rejection alone would stall."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from search.budget import CostFunction, ResolvedBudget
from search_spaces import Genes, SearchSpace
from search_spaces.extremes import members

_ROUNDS = 8
_OVERSAMPLE = 16


class Unseen:
    """Collects candidates: each network once, and none that was evaluated before.

    Args:
        space: The space.
        seen: Canonical genes of everything evaluated so far.
    """

    def __init__(self, space: SearchSpace, seen: Genes) -> None:
        # All rows at once: the inner search of LINAS has tens of thousands.
        whole_rows = np.ascontiguousarray(seen).view(f"V{seen.itemsize * space.num_genes}")
        self._seen: set[bytes] = set(whole_rows.reshape(-1).tolist())
        self._rows: list[np.ndarray] = []
        self._num_genes = space.num_genes

    def add(self, genes: Genes, most: int) -> int:
        """Adds canonical candidates in order until `most` new ones are in; says how many were."""
        added = 0
        for row in genes:
            if added >= most:
                break
            key = row.tobytes()
            if key not in self._seen:
                self._seen.add(key)
                self._rows.append(row)
                added += 1
        return added

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def genes(self) -> Genes:
        """The candidates, in the order in which they were added."""
        return np.array(self._rows, np.int32).reshape(-1, self._num_genes)


def shrink(
    space: SearchSpace, rng: np.random.Generator, genes: Genes, budget: ResolvedBudget, cost: CostFunction
) -> Int[np.ndarray, "f g"]:
    """Moves architectures towards the anchor of a budget, or to the smallest one, until they meet the budget.

    While a row is over budget, one of its active genes that is not at the anchor's value, chosen uniformly, steps
    towards it by one value; to it at once where values have no order. A row comes out as near below the
    budget as single steps reach, and keeps what was not in the way.

    Args:
        genes: Canonical architectures; those that meet the budget come back as they are.

    Returns:
        The architectures, in order; without those that are over budget even at the anchor.
    """
    genes = genes.copy()
    anchor = np.array(budget.anchor or space.smallest.genes, np.int32)
    over = np.flatnonzero(~budget.feasible(cost(genes)))
    while over.size:
        rows = genes[over]
        away = (rows != anchor) & space.active(rows)
        movable = away.any(axis=1)
        over, rows, away = over[movable], rows[movable], away[movable]
        column = np.where(away, rng.random(rows.shape), -1.0).argmax(axis=1)
        at = np.arange(len(rows)), column
        away = anchor[column] - rows[at]
        rows[at] += np.where(space.ordered[column], np.sign(away), away)
        genes[over] = space.canonical(rows)
        over = over[~budget.feasible(cost(genes[over]))]
    return genes[budget.feasible(cost(genes))]


def draw(
    space: SearchSpace, rng: np.random.Generator, count: int, budget: ResolvedBudget, cost: CostFunction, unseen: Unseen
) -> int:
    """Adds up to `count` random architectures that meet a budget; says how many.

    They follow the space's own distribution (every gene uniform) under the condition that they meet the budget, as long
    as a bounded number of rejections finds enough of them. The rest are uniform draws shrunk to the budget: these lie
    close below it.
    """
    added = 0
    for _ in range(_ROUNDS):
        if added == count:
            return added
        genes = space.sample(rng, _OVERSAMPLE * count)
        added += unseen.add(genes[budget.feasible(cost(genes))], count - added)
    genes = space.sample(rng, _OVERSAMPLE * (count - added))
    return added + unseen.add(shrink(space, rng, genes, budget, cost), count - added)


def draw_neighbours(
    space: SearchSpace,
    rng: np.random.Generator,
    count: int,
    budgets: Sequence[ResolvedBudget],
    cost: CostFunction,
    seen: Genes,
    unseen: Unseen,
) -> int:
    """Adds up to `count` architectures that differ from a seen one in one gene and meet a budget; says how many.

    This is for the end of a space, where random draws hit seen architectures only. Costs that grow with every gene
    connect everything that meets a budget with the smallest architecture by single changes; others need not, so what
    this does not find is looked for in all that meets the budgets (`search_spaces.extremes.members`).
    """
    anchors = np.array([budget.anchor or space.smallest.genes for budget in budgets], np.int32)
    added = unseen.add(anchors[meets_any(budgets, cost, anchors)], count)
    for row in rng.permutation(len(seen)):
        if added >= count:
            break
        near = space.neighbours(seen[row])
        added += unseen.add(near[meets_any(budgets, cost, near)], count - added)
    for budget in budgets:
        if added < count:
            for genes in members(space, cost, budget.limits, rng):
                added += unseen.add(genes, count - added)
                if added >= count:
                    break
    return added


def meets_any(budgets: Sequence[ResolvedBudget], cost: CostFunction, genes: Genes) -> Bool[np.ndarray, " a"]:
    """Returns which architectures meet at least one of the budgets."""
    costs = cost(genes)
    return np.logical_or.reduce([budget.feasible(costs) for budget in budgets])
