"""Results of a search: the best network for a budget, and the Pareto front of error against cost."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from search.archive import Archive
from search.budget import CostFunction, ResolvedBudget
from search.hypervolume import archive_hypervolume
from search_spaces import UserError, did_you_mean
from search_spaces.sealed_json import JsonObject, sealed

FRONTS = ("macs", "params")


def best(archive: Archive, budget: ResolvedBudget, first: int | None = None) -> int | None:
    """Returns the index of the entry with the lowest error within a budget, which may be new to the archive.

    Ties go to the lower cost (in the order of the budget's limits), then to the genes that sort first.

    Args:
        archive: Evaluated candidates.
        budget: Any budget on the archive's metrics.
        first: Look at this many entries only, the first ones; at all when None.

    Returns:
        None if no entry that was evaluated successfully meets the budget.

    Raises:
        UserError: The budget limits a metric that the archive does not hold.
    """
    for metric, _ in budget.limits:
        if metric not in archive.metrics:
            raise UserError(
                f"search.budgets.{budget.name}: {archive.path} holds no {metric!r}."
                f"{did_you_mean(metric, archive.metrics)}"
            )
    entries = np.flatnonzero(np.isfinite(archive.errors) & budget.feasible(archive.costs))
    entries = entries[: np.searchsorted(entries, len(archive) if first is None else first)]
    if not entries.size:
        return None
    keys = [archive.errors, *(archive.costs[metric] for metric, _ in budget.limits), *archive.genes.T]
    return int(entries[np.lexsort([key[entries] for key in reversed(keys)])[0]])


def pareto_front(objectives: Float[np.ndarray, "n m"]) -> Int[np.ndarray, " f"]:
    """Indices of the rows that no other row dominates (all minimised), sorted by the objectives, the first one first.

    A row dominates another if it is nowhere larger and somewhere smaller, so equal rows stay together. Rows with a NaN
    are left out.
    """
    import moocore

    usable = np.flatnonzero(np.isfinite(objectives).all(axis=1))
    if usable.size:
        usable = usable[moocore.is_nondominated(np.asarray(objectives[usable], float), keep_weakly=True)]
    return usable[np.lexsort(objectives[usable].T[::-1])]


def pareto_summary(
    archive: Archive,
    budgets: Sequence[ResolvedBudget],
    cost: CostFunction | None = None,
    reference: float | None = None,
) -> JsonObject:
    """Returns the content of `pareto.json`: fronts, their hypervolumes, and the best network for each budget.

    Fronts, cheapest network last, and hypervolumes (`search.hypervolume`) are those for params, MACs and whatever the
    budgets limit.

    Args:
        archive: Evaluated candidates.
        budgets: On its metrics.
        cost: Costs of architectures; those of the space when None.
        reference: Error that no network should have; that of the space when None.
    """
    fronts, metrics = {}, dict.fromkeys([*FRONTS, *(metric for budget in budgets for metric, _ in budget.limits)])
    for metric in metrics:
        front = pareto_front(np.stack([archive.errors, archive.costs[metric].astype(float)], axis=1))
        fronts[metric] = [archive.record(int(index)) for index in front]
    found = {}
    for budget in budgets:
        index = best(archive, budget)
        found[budget.name] = {
            "limits": dict(budget.limits),
            "within": int((np.isfinite(archive.errors) & budget.feasible(archive.costs)).sum()),
            "best": None if index is None else archive.record(index),
        }
    return {
        "space": archive.space.fingerprint,
        "evaluated": len(archive),
        "failed": int(archive.failed.sum()),
        "budgets": found,
        "fronts": fronts,
        "hypervolumes": {metric: archive_hypervolume(archive, metric, cost, reference) for metric in metrics},
    }


def write_pareto(
    path: Path | str,
    archive: Archive,
    budgets: Sequence[ResolvedBudget],
    cost: CostFunction | None = None,
    reference: float | None = None,
) -> None:
    """Writes `pareto_summary` as JSON with the hash of its content; a crash leaves the file that was there.

    Raises:
        UserError: The file cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(path.name + ".tmp")
    text = json.dumps(sealed(pareto_summary(archive, budgets, cost, reference)), indent=1, allow_nan=False) + "\n"
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}. Make the directory writable, with space left.") from error
