"""Seeded: a search whose first generation holds given architectures, such as one that gradient search has found."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from search.searcher import Searcher, SearchState
from search_spaces import Genes


@dataclass(frozen=True)
class Seeded(Searcher):
    """Asks for given architectures first, then for what another searcher asks; that one is told of all of them.

    Make it with `Seeded.of`. Its fields are what the archive's header shows: the architectures, and the other searcher.

    Args:
        first: Genes of architectures that each meet at least one of the budgets.
        strategy: Name of the other searcher's class.
        settings: Its settings.
        searcher: The other searcher itself.
    """

    asynchronous = True  # the other one has said whether it is

    first: tuple[tuple[int, ...], ...] = ()
    strategy: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    searcher: dataclasses.InitVar[Searcher | None] = None

    def __post_init__(self, searcher: Searcher | None) -> None:
        super().__post_init__()
        assert searcher is not None
        vars(self)["_inner"] = searcher

    @classmethod
    def of(cls, searcher: Searcher, first: tuple[tuple[int, ...], ...]) -> "Seeded":
        """The search of `searcher`, begun with architectures."""
        inherited = {f.name for f in dataclasses.fields(Searcher)}
        own = {f.name: getattr(searcher, f.name) for f in dataclasses.fields(searcher) if f.name not in inherited}
        shared = {name: getattr(searcher, name) for name in inherited}
        return cls(**shared, first=first, strategy=type(searcher).__name__, settings=own, searcher=searcher)

    @property
    def inner(self) -> Searcher:
        """The other searcher."""
        return vars(self)["_inner"]

    @property
    def objectives(self) -> tuple[str, ...]:
        return self.inner.objectives

    def init(self) -> SearchState:
        return self.inner.init()

    def ask(self, state: SearchState) -> Genes:
        asked = self.inner.ask(state)
        if state.generation:
            return asked
        first = self.space.canonical(np.array(self.first, np.int32))
        known = (asked[:, None] == first).all(axis=2).any(axis=1)
        return np.concatenate([first, asked[~known]])

    def tell(self, state: SearchState, genes: Genes, objectives: Float[np.ndarray, "p m"]) -> SearchState:
        return self.inner.tell(state, genes, objectives)
