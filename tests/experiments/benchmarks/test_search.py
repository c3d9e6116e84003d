"""The benchmark of searchers on an exhaustively evaluated space: what counts as reached."""

import numpy as np
import pytest

from experiments.benchmarks.search import Table, evaluations_needed, every
from search import SEARCHERS, Budget
from search_spaces import build_space


@pytest.fixture(scope="module")
def table() -> Table:
    """A space of 16 networks, whose errors fall with their cost."""
    sizes = {"width": [16], "depth": [2], "heads": [1, 2], "mlp_ratio": [1.0, 2.0], "head_dim": 8}
    space = build_space("vit", "small", sizes)
    genes = every(space)
    macs = space.cost(genes)["macs"]
    errors = 0.9 - 0.8 * (macs - macs.min()) / (macs.max() - macs.min())
    return Table(space, genes, {1.0: errors}, macs)


def test_goals_are_reached_when_their_networks_are_found(table: Table) -> None:
    budgets = tuple(Budget.parse(name, f"macs<={name}").resolve(table.space) for name in ("60%", "100%"))
    best = [table.errors[1.0][budget.feasible({"macs": table.macs})].min() for budget in budgets]

    def needed(searcher_seed: int, errors: np.ndarray) -> list[float]:
        searcher = SEARCHERS["random"](table.space, budgets, searcher_seed)
        return evaluations_needed(searcher, Table(table.space, table.genes, {1.0: errors}, table.macs))

    volume_95, volume_99, answers = needed(0, table.errors[1.0])
    assert 1 <= volume_95 <= volume_99 <= len(table.genes)
    # Nothing within 1 % of the best of the larger budget but that network itself, the largest.
    assert best[1] == pytest.approx(0.1)
    assert 1 <= answers <= len(table.genes)
    # The first network of each budget is as good as any: the goal is reached as soon as both have one.
    flat = np.where(table.errors[1.0] == table.errors[1.0].min(), 0.5, 0.5001)
    assert needed(0, flat)[2] <= 3
