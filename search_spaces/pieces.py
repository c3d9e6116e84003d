"""Pieces: the different sublayers that the networks of a space are made of, whatever the family.

A term of the cost model is one sublayer at one position, with a table over the few genes that it depends on. Two
entries with equal params, MACs and activation bytes are the same piece, wherever they stand: attention of one width and
head count in any layer, a block of one shape in any position of a stage. So what was measured of a piece in one place
holds in all, and a family has to say nothing for it. Sublayers that differ in time but not in these three numbers (two
activations, say) share a piece.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Int

from search_spaces.cost import Cost, CostModel, Term
from search_spaces.space import Genes, SearchSpace

ABSENT = -1


class Pieces:
    """The pieces of a space, and of which its architectures consist.

    Args:
        space: The space.

    Attributes:
        costs: Params, MACs and activation bytes of each piece, int64[p, 3]; all different, in ascending order.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._num_genes = space.num_genes
        self._terms = space.cost.terms
        rows = np.concatenate([_costs(term) for term in self._terms])
        found = np.unique(rows, axis=0)
        self.costs: Int[np.ndarray, "p 3"] = found[found.any(axis=1)]

    def __len__(self) -> int:
        return len(self.costs)

    @cached_property
    def _indices(self) -> list[np.ndarray]:
        """For each term, the piece of each entry of its table; `ABSENT` where it costs nothing."""
        known = {tuple(row): index for index, row in enumerate(self.costs.tolist())}
        return [
            np.array([known.get(tuple(row), ABSENT) for row in _costs(term).tolist()], np.int64).reshape(
                term.table.shape[:-1]
            )
            for term in self._terms
        ]

    def counts(self, genes: Genes) -> Int[np.ndarray, "a p"]:
        """Returns how often each architecture has each piece."""
        counts = np.zeros((len(genes), len(self)), np.int64)
        for term, indices in zip(self._terms, self._indices, strict=True):
            found = np.broadcast_to(indices[tuple(genes[:, column] for column in term.columns)], len(genes))
            rows = np.flatnonzero(found != ABSENT)
            np.add.at(counts, (rows, found[rows]), 1)
        return counts

    def model(self, values: Int[np.ndarray, "p m"], metrics: Sequence[str], combine: np.ufunc = np.add) -> CostModel:
        """Costs of architectures from the values of their pieces, by table look-up.

        Args:
            values: Cost of each piece, in the order of `costs`; whole numbers, so that sums are exact.
            metrics: Names of the columns of `values`.
            combine: `np.add`, or `np.maximum` where the dearest piece counts (absent ones as 0).
        """
        padded = np.concatenate([values, np.zeros((1, values.shape[1]), np.int64)])  # ABSENT reads the last row
        terms = [Term(term.columns, padded[indices]) for term, indices in zip(self._terms, self._indices, strict=True)]
        return CostModel(self._num_genes, terms, tuple(metrics), combine)


def _costs(term: Term) -> Int[np.ndarray, "n 3"]:
    """What distinguishes pieces, a row for each entry of a term's table; further metrics of a family do not."""
    return term.table[..., : len(Cost._fields)].reshape(-1, len(Cost._fields))
