"""Spaces and additive landscapes that the search tests share."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from search import Budget, ResolvedBudget
from search_spaces import Genes, SearchSpace, ViTSpace, build_space


@pytest.fixture(scope="session")
def tiny() -> SearchSpace:
    """40 networks: 2 widths, and 4 or 16 ways to fill 1 or 2 layers."""
    return ViTSpace(
        (32, 48), (1, 2), (1, 2), (1.0, 2.0), head_dim=16, patch_size=2, image_size=8, channels=1, class_token=False
    )


@pytest.fixture(scope="session")
def small() -> SearchSpace:
    """The family's small preset: 1.8 million networks."""
    return build_space("vit", "small")


@pytest.fixture(scope="session")
def every() -> Callable[[SearchSpace], Genes]:
    """Lists every network of a space once."""

    def members(space: SearchSpace) -> Genes:
        rows = np.array(list(itertools.product(*(range(n) for n in space.cardinalities))), np.int32)
        unique = np.unique(space.canonical(rows), axis=0)
        assert len(unique) == space.size
        return unique

    return members


@pytest.fixture(scope="session")
def limits() -> Callable[..., tuple[ResolvedBudget, ...]]:
    """Budgets from specs: `limits(space, "macs<=100%", "macs<=50%")`, called b0, b1, ..."""
    return lambda space, *specs: tuple(Budget.parse(f"b{i}", spec).resolve(space) for i, spec in enumerate(specs))


class Landscape:
    """An error that is a sum of one random number for each active gene's value; counts what it is asked for.

    Args:
        space: A space whose gates are not gated themselves.
        seed: Of the numbers.
        fails: Share of the architectures whose evaluation fails (NaN), chosen by their genes.
    """

    def __init__(self, space: SearchSpace, seed: int = 0, fails: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        self.space, self.fails = space, fails
        self.table = rng.random((space.num_genes, int(space.cardinalities.max())))
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, genes: Genes) -> np.ndarray:
        self.asked += [tuple(row) for row in genes.tolist()]
        return self.errors(genes)

    def errors(self, genes: Genes) -> np.ndarray:
        values = self.table[np.arange(self.space.num_genes), genes]
        # Pairwise summation may depend on the shape; one row at a time does not depend on the company.
        errors = np.array([row.sum() for row in np.where(self.space.active(genes), values, 0.0)])
        return np.where((errors * 1e4) % 1 < self.fails, np.nan, errors)


@pytest.fixture(scope="session")
def landscape() -> type[Landscape]:
    return Landscape
