"""The search loop: ask, evaluate, record, tell; it resumes by replaying the archive."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from search.archive import Archive
from search.budget import Costs
from search.halving import EvaluatePart, halve
from search.pareto import best
from search.searcher import Searcher, SearchState
from search_spaces import Genes, UserError

Evaluate = Callable[[Genes], Float[np.ndarray, " p"]]
"""Validation errors of canonical architectures, NaN for one that failed. An architecture's error must not depend on
which others it is evaluated with: a resumed search may group them differently."""


@dataclass(frozen=True)
class Progress:
    """State of a search after a batch.

    Attributes:
        evaluated: Architectures evaluated so far, replayed ones included.
        evaluations: Number of evaluations in all.
        replayed: Number of candidates of this batch that the archive already held.
        failed: Number of failed candidates so far.
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
    generation neither. So a killed search continues exactly, and a longer one extends a shorter one. With several
    batches in flight (`Searcher.in_flight`) they are told in the order in which they were asked for, however long each
    takes, so the outcome depends on how many are in flight, and not on what evaluates them.

    Args:
        searcher: The strategy.
        evaluate: Called with architectures that were never evaluated; from threads where several batches are in flight.
        archive: Made by `Archive.open` for this searcher.
        evaluations: Number of architectures to evaluate, including those in the archive.
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

    with _Starter(searcher.in_flight) as start:
        begun: deque[_Batch] = deque()
        while done < evaluations:
            while len(begun) < searcher.in_flight:
                ahead = done + sum(len(waiting.asked) for waiting in begun)
                if ahead >= evaluations:
                    break
                asked = searcher.ask(_with_pending(searcher, state, begun))
                wanted = asked[: evaluations - ahead]
                held = min(max(len(archive) - ahead, 0), len(wanted))
                _check_replay(archive, wanted[:held], ahead, exhausted=len(asked) == 0)
                if len(asked) == 0:
                    break
                new, halved = wanted[held:], searcher.halving and evaluate_part is not None
                size = batch or max(len(new), 1)
                parts = [] if halved else [new[first : first + size] for first in range(0, len(new), size)]
                begun.append(_Batch(asked, held, len(wanted), [(part, start(evaluate, part)) for part in parts]))
            if not begun:
                break
            now = begun.popleft()
            if now.held:
                done += now.held
                report(now.held)
            if searcher.halving and evaluate_part is not None and now.held < now.wanted:
                new = slice(now.held, now.wanted)
                _append_halved(searcher, archive, now.asked, new, state.generation, evaluate, evaluate_part)
                done += now.wanted - now.held
                report(0)
            for genes, errors in now.parts:
                costs = searcher.costs(genes)
                objectives = np.column_stack([_checked(errors(), genes), _others(searcher, costs, genes)])
                archive.append(genes, objectives, costs, state.generation)
                done += len(genes)
                report(0)
            if now.wanted < len(now.asked):
                break
            state = searcher.tell(state, now.asked, archive.objectives[done - len(now.asked) : done])
    return archive


class _Batch(NamedTuple):
    """Architectures that a searcher asked for at once.

    Attributes:
        asked: All architectures of the batch.
        held: Number of these, from the first on, that the archive holds.
        wanted: Number of these to evaluate before the search ends, including those held.
        parts: The new ones of them, with what gives their errors.
    """

    asked: Genes
    held: int
    wanted: int
    parts: list[tuple[Genes, Callable[[], Float[np.ndarray, " p"]]]]


class _Starter:
    """Starts evaluations: each when its result is asked for, or at once, in threads, where several are in flight."""

    def __init__(self, in_flight: int) -> None:
        self._threads = ThreadPoolExecutor(in_flight) if in_flight > 1 else None

    def __enter__(self) -> "_Starter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def __call__(self, evaluate: Evaluate, genes: Genes) -> Callable[[], Float[np.ndarray, " p"]]:
        if self._threads is None:
            return partial(evaluate, genes)
        return self._threads.submit(evaluate, genes).result


def _with_pending(searcher: Searcher, state: SearchState, begun: Iterable[_Batch]) -> SearchState:
    """The state as the searcher sees it: what is in flight is known, and has no result."""
    for waiting in begun:
        nothing = np.full((len(waiting.asked), len(searcher.objectives)), np.nan)
        state = searcher.tell(state, waiting.asked, nothing)
    return state


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
        lambda genes, fraction: _checked(evaluate_part(genes, fraction), genes),
        lambda genes: _checked(evaluate(genes), genes),
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


def _checked(errors: np.ndarray, genes: Genes) -> Float[np.ndarray, " p"]:
    errors = np.asarray(errors, np.float64)
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
