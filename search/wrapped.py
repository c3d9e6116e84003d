"""Wrapped: a searcher around another one, which does all that the wrapper does not do otherwise."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from search.searcher import Searcher, SearchState
from search_spaces import Genes
from search_spaces.sealed_json import JsonObject


@dataclass(frozen=True, kw_only=True)
class Wrapped(Searcher):
    """A search for what the other searcher searches for. Make it with `around`.

    Args:
        inner: The other searcher.
    """

    asynchronous = True  # the other one has said whether it is

    inner: Searcher

    @classmethod
    def around(cls, searcher: Searcher, **own: Any) -> Self:
        """Wraps a searcher; `own` are the fields that the wrapper adds."""
        shared = {field.name: getattr(searcher, field.name) for field in dataclasses.fields(Searcher)}
        return cls(**shared, inner=searcher, **own)

    @property
    def settings(self) -> JsonObject:
        return {"strategy": type(self.inner).__name__, "settings": self.inner.settings}

    @property
    def objectives(self) -> tuple[str, ...]:
        return self.inner.objectives

    def init(self) -> SearchState:
        return self.inner.init()

    def ask(self, state: SearchState) -> Genes:
        return self.inner.ask(state)

    def tell(self, state: SearchState, genes: Genes, objectives: Float[np.ndarray, "p m"]) -> SearchState:
        return self.inner.tell(state, genes, objectives)
