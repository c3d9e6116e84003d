"""Answers for a budget from what a run has evaluated, without JAX, supernet or data, and so at once."""

import copy
import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.devices.device_file import DEVICE_METRICS, LEAST_TAU, Device, DeviceCost, read_device
from experiments.objective import OBJECTIVES, search_objective
from experiments.records import Answer, FoundSubnet, OnDevice
from experiments.storage.run_files import identity_of, read_run_config
from search import Archive, Budget, CostFunction, ResolvedBudget, best
from search_spaces import FAMILIES, SearchSpace, UserError, build_space
from search_spaces.sealed_json import read_sealed, sealed
from supernet.storage.manifest import write_text_atomically

_NAME = "new"
_KEY = re.compile(rf"search\.budgets\.{_NAME}(?:\.\w+)?: ")


@dataclass(frozen=True)
class Finished:
    """A run whose search has evaluated something.

    Attributes:
        path: The run directory.
        archive: Candidates that its search and all refinements evaluated, with costs on the device.
        cost: Costs of architectures.
        device: The device that costs are of, if one is known.
        objective: Name of what its search minimises.
        suffix: Tells names of budgets on another device, or in other batches, than the run's own apart.
        min_tau: Least Kendall tau of a device file that budgets are judged by.
    """

    path: Path
    archive: Archive
    cost: CostFunction
    device: Device | None
    objective: str
    suffix: str = ""
    min_tau: float = LEAST_TAU

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.archive.space


def write_space(run: Path, space: SearchSpace, objective: str) -> None:
    """Writes down what space a run searches, and for what, for `open_finished`."""
    settings = dataclasses.asdict(space)  # type: ignore[call-overload]
    content = sealed({"family": space.family, "settings": settings, "space": space.fingerprint, "objective": objective})
    text = json.dumps(content, indent=1)
    write_text_atomically(_space_file(run), text + "\n")


def refined_archive(run: Path, budget: str, after: int) -> Path:
    """Returns the archive of a refinement for a budget of this name.

    Args:
        run: Run directory.
        budget: Name of the budget.
        after: Entries that the run's search had when the refinement began; it may itself go on in between.
    """
    return run / "search" / "refine" / f"{budget}_after_{after}.jsonl"


def open_finished(
    run: Path, device: Path | None = None, batch_size: int | None = None, min_tau: float | None = None
) -> Finished:
    """Reads what a run has evaluated.

    Args:
        run: The run directory.
        device: A device file for latency and memory; the run's own when None.
        batch_size: Batch size of the device file; that of the run when None, or the first where the run has none.
        min_tau: Least Kendall tau that the file may have; what the run's `device.min_tau` says when None.

    Raises:
        UserError: No run, no search in it, files of another space, or another device file than the run began with.
    """
    config, main = run / "config.yaml", run / "search" / "archive.jsonl"
    if not config.is_file():
        raise UserError(f"{run}: is no run directory. Give the directory that supernest run wrote.")
    if not main.is_file():
        raise UserError(f"{main}: missing, so nothing was searched yet. Search first: supernest run CONFIG --out {run}")
    settings = read_run_config(run)
    section = settings.get("device") or {}
    space, objective = _space(run)
    known = read_device(device or run / "device.json") if device or section else None
    same = known is not None and known.sha256 == section.get("sha256")
    if known is not None and device is None and not same:
        raise UserError(
            f"{known.path}: not the device file that this run began with. Restore it, or name this one: --device "
            f"{known.path}"
        )
    if known is None and batch_size is not None:
        raise UserError(f"--batch-size: {run} knows no device. Name a file of supernest profile: --device FILE")
    usual = section.get("batch_size")
    cost = known.cost(space, batch_size or usual) if known else space.cost
    first = Archive.read(main, space, run={"config": identity_of(run)})
    refined = sorted((run / "search" / "refine").glob("*.jsonl"))
    of_run = {name: first.run.get(name, "") for name in ("config", "weights")}
    archives = [first, *(Archive.read(path, space, run=of_run) for path in refined)]
    suffix = f"_{known.sha256[:8]}" if known and not same else ""
    if known and batch_size not in (None, usual or next(iter(known.tables))):
        suffix += f"_b{batch_size}"
    least: float = section.get("min_tau", LEAST_TAU) if min_tau is None else min_tau
    return Finished(run, _merged(archives, cost), cost, known, objective, suffix, least)


def parse_budget(text: str, finished: Finished) -> tuple[Budget, ResolvedBudget]:
    """Reads a budget of the command line.

    Raises:
        UserError: The budget cannot be read, or nothing in the space meets it.
    """
    try:
        budget = Budget.parse(_NAME, text, (*finished.space.metrics, *DEVICE_METRICS))
        for limit in budget.limits:
            if limit.metric in DEVICE_METRICS and finished.device is None:
                raise UserError(
                    f"--budget: {limit.metric} is known with a device file only. Measure one with supernest profile, "
                    "and give it with --device."
                )
        if isinstance(finished.cost, DeviceCost):
            finished.cost.check_order((limit.metric for limit in budget.limits), finished.min_tau)
        limits = tuple(sorted(budget.limits, key=lambda limit: limit.metric))
        name = re.sub(r"[^A-Za-z0-9._%-]+", "_", ",".join(str(limit).replace("<=", "") for limit in limits))
        resolved = Budget(_NAME, limits).resolve(finished.space, finished.cost)
        return Budget(name + finished.suffix, limits), dataclasses.replace(resolved, name=name + finished.suffix)
    except UserError as error:
        raise UserError(_KEY.sub("--budget: ", str(error))) from None


def answer(finished: Finished, budget: Budget, resolved: ResolvedBudget) -> Answer:
    """Returns the best evaluated subnet that meets a budget, or the nearest one where none does."""
    archive = finished.archive
    usable = np.flatnonzero(np.isfinite(archive.errors))
    index = best(archive, resolved)
    shown, subnet, cost = index, None, finished.cost
    if index is None and usable.size:
        shown = int(usable[np.argmin(resolved.excess(archive.costs)[usable])])
    if shown is not None:
        subnet = FoundSubnet(
            archive.space.architecture(archive.genes[shown]).description,
            archive.genes[shown].tolist(),
            float(archive.errors[shown]),
            {metric: values[shown].item() for metric, values in archive.costs.items()},
            {metric: float(archive.costs[metric][shown]) / most for metric, most in resolved.limits},
        )
    return Answer(
        budget=str(budget),
        name=budget.name,
        limits=dict(resolved.limits),
        evaluated=len(archive),
        objective=finished.objective,
        within=int(resolved.feasible(archive.costs)[usable].sum()),
        best=None if index is None else subnet,
        nearest=subnet if index is None else None,
        device=OnDevice(cost.device.name, cost.batch_size) if isinstance(cost, DeviceCost) else None,
    )


def report_lines(found: Answer, run: Path) -> list[str]:
    """Returns an answer as lines to read.

    Raises:
        UserError: No evaluated subnet meets the budget.
    """
    if found.best is None:
        raise none_meets(found, run)
    objective = OBJECTIVES[found.objective]
    device = found.device
    return [
        f"{found.budget}: {found.within:,} of {found.evaluated:,} evaluated subnets meet it",
        *([f"predicted on {device.name}, batches of {device.batch_size}"] if device else []),
        f"best: validation {objective.shown} {objective.text(found.best.value)}; {costs_text(found.best)}",
        f"architecture: {json.dumps(found.best.architecture)}",
    ]


def none_meets(found: Answer, run: Path) -> UserError:
    """Returns what to say where no evaluated subnet meets a budget that some subnet can meet."""
    said = f"; the nearest has {costs_text(found.nearest)}" if found.nearest else ""
    return UserError(
        f"{run}: none of the {found.evaluated:,} evaluated subnets meets {found.budget}{said}. Evaluate more for "
        "it: --refine 100"
    )


def costs_text(found: FoundSubnet) -> str:
    """Returns costs, and which shares of the limits they are."""
    parts = []
    for metric, value in found.costs.items():
        share = f" ({found.uses[metric]:.0%} of the limit)" if metric in found.uses else ""
        parts.append(f"{metric} {value:,.{3 if metric.endswith('_ms') else 0}f}{share}")
    return ", ".join(parts)


def _merged(archives: Sequence[Archive], cost: CostFunction) -> Archive:
    """All entries as one archive, each network once, with costs that need not be those of its search."""
    whole = copy.copy(archives[0])
    genes = np.concatenate([archive.genes for archive in archives])
    errors = np.concatenate([archive.errors for archive in archives])
    order = np.argsort(np.isnan(errors), kind="stable")  # of two entries, one that was evaluated to the end
    _, first = np.unique(genes[order], axis=0, return_index=True)
    rows = np.sort(order[first])
    whole.genes, whole.objectives, whole.objective_names = genes[rows], errors[rows, None], ("error",)
    whole.costs = {metric: np.asarray(values) for metric, values in cost(whole.genes).items()}
    whole.metrics = tuple(whole.costs)
    for name in ("generations", "fractions", "partial_errors"):
        setattr(whole, name, np.concatenate([getattr(archive, name) for archive in archives])[rows])
    return whole


def _space(run: Path) -> tuple[SearchSpace, str]:
    """The space of a run, and the name of what its search minimises."""
    try:
        found = read_sealed(_space_file(run), "")
        if found["family"] in FAMILIES:
            return build_space(found["family"], None, found["settings"]), found["objective"]
    except (FileNotFoundError, KeyError, UserError):
        pass
    # No such file, a changed one, or a family of a plug-in: the slow way, through the experiment's data.
    from experiments.configuration.experiment_config import load_config

    config = load_config(run / "config.yaml")
    data = config.data.load(config.seed)
    return config.space.build(data), search_objective(config.search.objective, data).name


def _space_file(run: Path) -> Path:
    return run / "search" / "space.json"
