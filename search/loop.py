"""The search loop: ask, evaluate, record, tell; it resumes by replaying the archive."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from search.archive import Archive
from search.pareto import best
from search.searcher import Searcher
from search_spaces import Genes, UserError

Evaluate = Callable[[Genes], Float[np.ndarray, " p"]]
"""Validation errors of canonical architectures, NaN for one that failed. An architecture's error must not depend on
which others it is evaluated with: a resumed search may group them differently."""


@dataclass(frozen=True)
class Progress:
    """Where a search stands after a batch.

    Attributes:
        evaluated: Architectures evaluated so far, replayed ones included.
        evaluations: How many there are to be.
        replayed: How many of this batch the archive already held.
        failed: How many failed so far.
        generation: The searcher's generation of this batch.
        best: Budget name to the archive index of its best network so far, None where none meets it.
    """

    evaluated: int
    evaluations: int
    replayed: int
    failed: int
    generation: int
    best: dict[str, int | None]


def run_search(
    searcher: Searcher,
    evaluate: Evaluate,
    archive: Archive,
    evaluations: int,
    on_batch: Callable[[Progress], None] | None = None,
    batch: int | None = None,
) -> Archive:
    """Searches until the archive holds `evaluations` architectures or the space is exhausted.

    The search is replayed from its beginning: what the archive holds is not evaluated again, in the middle of a
    generation neither. So a killed search continues exactly, and a longer one extends a shorter one.

    Args:
        searcher: The strategy.
        evaluate: Called with architectures that were never evaluated.
        archive: Made by `Archive.open` for this searcher.
        evaluations: How many architectures to evaluate, those in the archive included.
        on_batch: Called whenever results are on disk, and for what is replayed.
        batch: The most architectures in a call of `evaluate`, and so the most that a kill can lose; a generation when
            None.

    Returns:
        The archive.

    Raises:
        UserError: The archive's entries are not what this search asks for.
        ValueError: `evaluate` returned another number of errors than it was given architectures.
    """
    state, done = searcher.init(), 0

    def report(replayed: int) -> None:
        if on_batch is not None:
            found = {budget.name: best(archive, budget, done) for budget in searcher.budgets}
            failed = int(np.isnan(archive.errors[:done]).sum())
            on_batch(Progress(done, evaluations, replayed, failed, state.generation, found))

    while done < evaluations:
        asked = searcher.ask(state)
        wanted = asked[: evaluations - done]
        held = min(len(archive) - done, len(wanted))
        _check_replay(archive, wanted[:held], done, exhausted=len(asked) == 0)
        if len(asked) == 0:
            break
        if held:
            done += held
            report(held)
        size = batch or len(wanted)
        for start in range(held, len(wanted), size):
            genes = wanted[start : start + size]
            costs = searcher.costs(genes)
            errors = _errors(evaluate, genes)
            others = [np.asarray(costs[metric], float) for metric in searcher.objectives[1:]]
            archive.append(genes, np.stack([errors, *others], axis=1), costs, state.generation)
            done += len(genes)
            report(0)
        if len(wanted) < len(asked):
            break
        state = searcher.tell(state, asked, archive.objectives[done - len(asked) : done])
    return archive


def _errors(evaluate: Evaluate, genes: Genes) -> Float[np.ndarray, " p"]:
    errors = np.asarray(evaluate(genes), np.float64)
    if errors.shape != (len(genes),):
        raise ValueError(f"evaluate: returned shape {errors.shape} for {len(genes)} architectures, not one error each.")
    return np.where(np.isfinite(errors), errors, np.nan)


def _check_replay(archive: Archive, wanted: Genes, done: int, exhausted: bool) -> None:
    differs = (archive.genes[done : done + len(wanted)] != wanted).any(axis=1)
    if differs.any() or (exhausted and len(archive) > done):
        line = done + (int(differs.argmax()) if differs.any() else 0) + 2  # the header is line 1
        raise UserError(
            f"{archive.path}:{line}: not the architecture that this search asks for there; another version of the "
            "searcher wrote it. Search into another file."
        )
