"""Continued: a search that goes on from what other searches have evaluated, such as one for a new budget."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from search.archive import Archive
from search.searcher import Searcher, SearchState
from search_spaces import Genes


@dataclass(frozen=True)
class Continued(Searcher):
    """A searcher that is told at its beginning of all that an archive holds, and so asks for what comes next.

    Make it with `Continued.of`. Its fields are what the header of its own archive shows.

    Args:
        after: How many entries the archive holds.
        sha256: Of their genes and errors.
        strategy: Name of the searcher's class.
        settings: Its settings.
        searcher: The searcher itself.
        begun: Its state at the beginning.
    """

    asynchronous = True  # the other one has said whether it is

    after: int = 0
    sha256: str = ""
    strategy: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    searcher: dataclasses.InitVar[Searcher | None] = None
    begun: dataclasses.InitVar[SearchState | None] = None

    def __post_init__(self, searcher: Searcher | None, begun: SearchState | None) -> None:
        super().__post_init__()
        assert searcher is not None
        assert begun is not None
        vars(self).update(_inner=searcher, _begun=begun)

    @classmethod
    def of(cls, searcher: Searcher, archive: Archive) -> "Continued":
        """The search of `searcher`, after all that is in an archive."""
        inherited = {f.name for f in dataclasses.fields(Searcher)}
        own = {f.name: getattr(searcher, f.name) for f in dataclasses.fields(searcher) if f.name not in inherited}
        shared = {name: getattr(searcher, name) for name in inherited}
        genes, errors = archive.genes, archive.errors
        # The objectives are those of this search, whatever the other one traded against the error.
        costs = searcher.costs(genes)
        others = [np.asarray(costs[metric], float) for metric in searcher.objectives[1:]]
        begun = searcher.tell(searcher.init(), genes, np.column_stack([errors, *others]))
        digest = hashlib.sha256(genes.tobytes() + errors.tobytes()).hexdigest()
        return cls(
            **shared, after=len(archive), sha256=digest, strategy=type(searcher).__name__, settings=own,
            searcher=searcher, begun=begun,
        )  # fmt: skip

    @property
    def inner(self) -> Searcher:
        """The searcher."""
        return vars(self)["_inner"]

    @property
    def objectives(self) -> tuple[str, ...]:
        return self.inner.objectives

    def init(self) -> SearchState:
        return vars(self)["_begun"]

    def ask(self, state: SearchState) -> Genes:
        return self.inner.ask(state)

    def tell(self, state: SearchState, genes: Genes, objectives: Float[np.ndarray, "p m"]) -> SearchState:
        return self.inner.tell(state, genes, objectives)
