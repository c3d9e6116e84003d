"""The contract of a searcher: candidates that are new, within a budget, of the right shape and type, and repeated."""

import numpy as np

from experiments.contracts import require
from search import Searcher
from search_spaces.randomness import Purpose, stream

KEY = "search.type"


def check_searcher(searcher: Searcher, generations: int = 2) -> None:
    """Asks for a few generations, and tells made-up objectives.

    Args:
        searcher: With its space and budgets.
        generations: Number of generations.

    Raises:
        ContractError: The searcher returns another shape or type than all searchers', or asking does not repeat.
    """
    name, space, state = f"{type(searcher).__name__}.ask", searcher.space, searcher.init()
    rng = stream(0, Purpose.CONTRACT)
    for generation in range(generations):
        genes = searcher.ask(state)
        shape = f"{getattr(genes, 'dtype', type(genes).__name__)}{np.shape(genes)}"
        require(
            isinstance(genes, np.ndarray)
            and genes.ndim == 2
            and genes.shape[1] == space.num_genes
            and np.issubdtype(genes.dtype, np.integer),
            KEY,
            f"{name} returns {shape}, expected int32(candidates, {space.num_genes}). Use the space's own sample and "
            "canonical.",
        )
        if not len(genes):
            require(generation > 0, KEY, f"{name} returns no candidate at first. Return at least one.")
            return
        require(bool(space.contains(genes).all()), KEY, f"{name} returns genes outside of the space.")
        canonical = np.array_equal(genes, space.canonical(genes))
        require(canonical, KEY, f"{name} returns genes of layers that are off. Return space.canonical(genes).")
        seen = np.concatenate([state.genes, genes])
        require(
            len(np.unique(seen, axis=0)) == len(seen),
            KEY,
            f"{name} returns a candidate twice, or one that was evaluated. Use search.sampling.Unseen.",
        )
        costs = searcher.costs(genes)
        within = np.any([budget.feasible(costs) for budget in searcher.budgets], axis=0)
        require(bool(within.all()), KEY, f"{name} returns candidates that meet none of the budgets.")
        same = np.array_equal(genes, searcher.ask(state))
        require(same, KEY, f"{name} returns other candidates when it is asked again. Draw from self.rng(state).")
        objectives = rng.random((len(genes), len(searcher.objectives)))
        after = searcher.tell(state, genes, objectives)
        require(
            len(after.genes) == len(seen) and np.shape(after.objectives) == (len(seen), len(searcher.objectives)),
            KEY,
            f"{type(searcher).__name__}.tell keeps {len(after.genes)} candidates of {len(seen)}. Keep all, in order.",
        )
        state = after
