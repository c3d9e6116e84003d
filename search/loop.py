"""The search loop: ask, evaluate, record, tell; it resumes by replaying the archive."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from search.archive import Archive
from search.budget import Costs
from search.halving import EvaluatePart, halve
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
    evaluate_part: EvaluatePart | None = None,
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
            None. With successive halving it is always a generation.
        evaluate_part: Scores architectures on a share of the validation split, for a searcher with successive halving;
            when None, every candidate is evaluated on the whole split.

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
            failed = int(archive.failed[:done].sum())
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
        if searcher.halving and evaluate_part is not None:
            if held < len(wanted):
                _append_halved(
                    searcher, archive, asked, slice(held, len(wanted)), state.generation, evaluate, evaluate_part
                )
                done += len(wanted) - held
                report(0)
        else:
            size = batch or len(wanted)
            for start in range(held, len(wanted), size):
                genes = wanted[start : start + size]
                costs = searcher.costs(genes)
                objectives = np.column_stack([_errors(evaluate, genes), _others(searcher, costs, genes)])
                archive.append(genes, objectives, costs, state.generation)
                done += len(genes)
                report(0)
        if len(wanted) < len(asked):
            break
        state = searcher.tell(state, asked, archive.objectives[done - len(asked) : done])
    return archive


def _append_halved(
    searcher: Searcher,
    archive: Archive,
    asked: Genes,
    new: slice,
    generation: int,
    evaluate: Evaluate,
    evaluate_part: EvaluatePart,
) -> None:
    """Halves a whole generation, whatever of it is held or wanted: who goes on depends on all of them."""
    costs = searcher.costs(asked)
    others = _others(searcher, costs, asked)
    halved = halve(
        searcher.halving,
        asked,
        others,
        np.stack([budget.feasible(costs) for budget in searcher.budgets]),
        lambda genes, fraction: _errors(lambda rows: evaluate_part(rows, fraction), genes),
        lambda genes: _errors(evaluate, genes),
    )
    archive.append(
        asked[new],
        np.column_stack([halved.errors, others])[new],
        {metric: np.asarray(values)[new] for metric, values in costs.items()},
        generation,
        halved.fractions[new],
        halved.partial_errors[new],
    )


def _others(searcher: Searcher, costs: Costs, genes: Genes) -> Float[np.ndarray, "a k"]:
    columns = [np.asarray(costs[metric], float) for metric in searcher.objectives[1:]]
    return np.stack(columns, axis=1) if columns else np.zeros((len(genes), 0))


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
