"""Scores that were computed before, for searches that ask for them again."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from experiments.storage.earlier import earlier_archives
from search import Archive
from search_spaces import Genes, SearchSpace, UserError

_Evaluate = Callable[..., np.ndarray]


def looked_up(archives: Iterable[Archive], evaluate: _Evaluate) -> _Evaluate:
    """Returns `evaluate`, except that errors on the whole split that archives hold are taken from there."""
    held = {
        row.tobytes(): error
        for archive in archives
        for row, error in zip(archive.genes, archive.errors, strict=True)
        if np.isfinite(error)
    }

    def errors(genes: Genes, fraction: float = 1.0) -> np.ndarray:
        if fraction < 1:
            return evaluate(genes, fraction)
        found = np.array([held.get(row.tobytes(), np.nan) for row in genes])
        new = np.isnan(found)
        if new.any():
            found[new] = evaluate(genes[new])
        return found

    return errors if held else evaluate


def earlier(run: Path, space: SearchSpace, origin: Mapping[str, str]) -> list[Archive]:
    """Archives of earlier searches of a run: of the same weights, under the same evaluation.

    Args:
        run: The run directory.
        space: Its space.
        origin: Hashes of the run and its weights.
    """
    found = []
    for path in earlier_archives(run):
        try:
            found.append(Archive.read(path, space, run=origin))
        except UserError:  # damaged, or of other weights: evaluated again
            continue
    return found
