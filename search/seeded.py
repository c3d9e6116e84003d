"""Seeded: a search whose first generation holds given architectures, such as one that gradient search has found."""

from dataclasses import dataclass

import numpy as np

from search.searcher import Searcher, SearchState
from search.wrapped import Wrapped
from search_spaces import Genes
from search_spaces.sealed_json import JsonObject


@dataclass(frozen=True, kw_only=True)
class Seeded(Wrapped):
    """Asks for given architectures first, then for what another searcher asks; that one is told of all of them.

    Args:
        first: Genes of architectures that each meet at least one of the budgets.
    """

    first: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, searcher: Searcher, first: tuple[tuple[int, ...], ...]) -> "Seeded":
        """Returns the search of `searcher` that starts with given architectures."""
        return cls.around(searcher, first=first)

    @property
    def settings(self) -> JsonObject:
        return {**super().settings, "first": self.first}

    def ask(self, state: SearchState) -> Genes:
        asked = super().ask(state)
        if state.generation:
            return asked
        first = self.space.canonical(np.array(self.first, np.int32))
        known = (asked[:, None] == first).all(axis=2).any(axis=1)
        return np.concatenate([first, asked[~known]])
