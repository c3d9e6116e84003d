"""Dynamic programming: the allocation of least additive distortion within a budget, layer by layer.

References:
    Shoham, Gersho. Efficient Bit Allocation for an Arbitrary Set of Quantizers. IEEE Transactions on Acoustics, Speech,
    and Signal Processing 36(9), 1988 (allocation of additive distortion).
    Xu, Wang, Zhang, Lin. Efficient Joint Optimization of Layer-Adaptive Weight Pruning in Deep Neural Networks. ICCV
    2023, arXiv:2308.10438 (dynamic programming over layers, whose distortions add up).
    Differs: distortions are errors of whole networks that differ from a reference in one gene, with inherited weights;
    partial allocations are kept as the undominated pairs of distortion and cost, which needs no grid of costs.
"""

from dataclasses import dataclass

import numpy as np

from search.additive import Additive, Allocation, Allocator, Limits, tables_of
from search.sampling import Unseen, shrink
from search.searcher import SEARCHERS, SearchState
from search_spaces.extremes import least_within


@SEARCHERS.register("dynamic_programming")
@dataclass(frozen=True)
class DynamicProgramming(Allocator):
    """First measures single changes; then evaluates the allocations with the smallest sum of distortions.

    The first generation holds for each budget a random lowering of the largest network and networks that differ from
    it in one gene.

    Args:
        population: Number of candidates per generation.
        penalty: Weight of the squared distortions in their fit; small, since each single change is measured once.
    """

    penalty: float = 0.01

    def allocate(self, surrogate: Additive, limits: Limits) -> Allocation | None:
        tables = tables_of(self.cost or self.space.cost, limits)
        genes, exact = least_within(self.space, surrogate.tables, tables, [most for _, most in limits])
        if genes is None:
            return None
        return Allocation(genes, float(surrogate(genes[None])[0]), exact)

    def begin(self, state: SearchState, rng: np.random.Generator, unseen: Unseen) -> None:
        if state.generation:
            return
        largest = np.array([self.space.largest.genes], np.int32)
        for budget, share in zip(self.budgets, self.shares(state, self.population), strict=True):
            reference = shrink(self.space, rng, largest, budget, self.costs)
            if len(reference):
                near = rng.permutation(self.space.neighbours(reference[0]))
                unseen.add(np.concatenate([reference, near[budget.feasible(self.costs(near))]]), int(share))
