"""Continued: a search that goes on from what other searches have evaluated, such as one for a new budget."""

import hashlib
from dataclasses import dataclass

import numpy as np

from search.archive import Archive
from search.searcher import Searcher, SearchState
from search.wrapped import Wrapped
from search_spaces.sealed_json import JsonObject


@dataclass(frozen=True, kw_only=True)
class Continued(Wrapped):
    """A searcher that is told at its beginning of all that an archive holds, and so asks for what comes next.

    Args:
        initial_state: The other searcher's state at the beginning.
    """

    initial_state: SearchState

    @classmethod
    def of(cls, searcher: Searcher, archive: Archive) -> "Continued":
        """Returns the search of `searcher` after all entries of an archive."""
        # The objectives are those of this search, whatever the other one traded against the error.
        costs = searcher.costs(archive.genes)
        others = [np.asarray(costs[metric], float) for metric in searcher.objectives[1:]]
        objectives = np.column_stack([archive.errors, *others])
        return cls.around(searcher, initial_state=searcher.tell(searcher.init(), archive.genes, objectives))

    @property
    def settings(self) -> JsonObject:
        genes, errors = self.initial_state.genes, self.initial_state.errors
        digest = hashlib.sha256(genes.tobytes() + errors.tobytes()).hexdigest()
        return {**super().settings, "after": len(genes), "sha256": digest}

    def init(self) -> SearchState:
        return self.initial_state
