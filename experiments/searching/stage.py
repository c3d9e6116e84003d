"""The search stage: candidates scored with inherited weights, recorded in the archive, for all budgets at once."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from experiments.devices.device_file import DeviceCost
from experiments.experiment import Experiment
from experiments.objective import Objective
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from experiments.records import SearchFigures
from experiments.run_directory import RunDirectory
from experiments.searching.looked_up import earlier, looked_up
from experiments.searching.new_budget import write_space
from experiments.searching.on_ray import ScoreGenes
from experiments.searching.with_proxies import with_proxies
from experiments.storage.tensorboard import EventLog
from search import (
    Archive,
    CostFunction,
    Progress,
    Searcher,
    archive_hypervolume,
    pareto_front,
    run_search,
    write_pareto,
)
from search.seeded import Seeded
from search_spaces import Genes
from search_spaces.sealed_json import read_sealed
from supernet.engine.supernet import Params


def search(
    experiment: Experiment,
    params: Params,
    run: RunDirectory,
    stop: StopRequest,
    quiet: bool,
    evaluations: int | None = None,
    scores: ScoreGenes | None = None,
) -> tuple[Archive, SearchFigures]:
    """Evaluates candidates up to the configured number; continues an archive that is there.

    What a gradient search has found in this run is the first candidate. Then, where proxies are to warm the search up,
    the best of random ones by these follow.

    Args:
        experiment: The experiment.
        params: Weights of its supernet.
        run: Its run directory.
        stop: Read between batches.
        quiet: No progress bar.
        evaluations: Number of candidates; the configured number when None.
        scores: Scores candidates; the experiment's scorer, in this process, when None.

    Returns:
        The archive, and figures for the summary.

    Raises:
        Interrupted: `stop` was requested; all evaluated candidates are in the archive.
    """
    wanted = evaluations or experiment.config.search.evaluations
    objective, worst = experiment.objective, experiment.worst_objective
    searcher = _started(with_proxies(experiment, run, stop, quiet), gradient_result(run))
    write_space(run.path, experiment.space, objective.name)
    archive = Archive.open(run.archive, searcher, run=archive_identity(experiment, params, experiment.cost_on_device))

    evaluate = candidate_objectives(scores or partial(experiment.scorer, params), objective)
    evaluate = looked_up(earlier(run.path, experiment.space, origin_of(experiment, params)), evaluate)

    bar = progress_bar(total=wanted, desc="search", unit="subnet", quiet=quiet)
    with bar, EventLog(run.tensorboard / "search", resumed_step=len(archive) or None) as log:

        def on_batch(progress: Progress) -> None:
            bar.update(progress.evaluated - bar.n)
            found = {name: float(archive.errors[i]) for name, i in progress.best.items() if i is not None}
            bar.set_postfix({name: f"{objective.shown} {objective.text(error)}" for name, error in found.items()})
            if not progress.replayed:
                values = {f"search/best_{objective.name}/{name}": error for name, error in found.items()}
                log.scalars(
                    progress.evaluated,
                    {**values, "search/hypervolume": archive_hypervolume(archive, "macs", None, worst)},
                )
            if stop and progress.evaluated < wanted:
                raise Interrupted(f"stopped after {progress.evaluated} of {wanted} candidates; all are in the archive")

        batch = experiment.config.search.batch
        run_search(searcher, evaluate, archive, wanted, on_batch, batch, evaluate)
        front = pareto_front(np.stack([archive.errors, archive.costs["macs"].astype(float)], axis=1))
        rows = [(archive.costs["macs"][i], archive.costs["params"][i], archive.errors[i]) for i in front[::-1]]
        log.table(len(archive), "search/front", ("MACs", "params", f"validation {objective.name}"), rows)
    write_pareto(run.pareto, archive, experiment.budgets, experiment.cost, worst)
    return archive, SearchFigures(len(archive), int(archive.failed.sum()))


def candidate_objectives(scores: ScoreGenes, objective: Objective) -> Callable[..., np.ndarray]:
    """Objectives of candidates, NaN for those that the device cannot evaluate (out of memory, for example).

    Returns:
        A function of genes and share of the validation split; it raises the device's error where all of them fail.
    """

    def evaluate(genes: Genes, fraction: float = 1.0) -> np.ndarray:
        try:
            return objective.of(scores(genes, fraction))
        except jax.errors.JaxRuntimeError:
            if len(genes) == 1:
                raise
        found, failures = np.full(len(genes), np.nan), []
        for index, row in enumerate(genes):
            try:
                found[index] = objective.of(scores(row[None], fraction))[0]
            except jax.errors.JaxRuntimeError as error:
                failures.append(error)
        if len(failures) == len(genes):  # not the candidates' fault
            raise failures[0]
        return found

    return evaluate


def gradient_result(run: RunDirectory) -> Path:
    """Returns the file in which a gradient search leaves the architecture that a search begins with."""
    return run.path / "gradient" / "architecture.json"


def _started(searcher: Searcher, path: Path) -> Searcher:
    try:
        genes = read_sealed(path, "Run `supernest gradient` again; what is trained is kept.")["genes"]
    except FileNotFoundError:
        return searcher
    return Seeded.of(searcher, (searcher.space.architecture(genes).genes,))


def archive_identity(experiment: Experiment, params: Params, cost: CostFunction | None) -> dict[str, str]:
    """Returns an archive's identity: the hashes of `origin_of`, and the device file's where costs are of one.

    An archive is continued only for the same.
    """
    device = {"device": cost.device.sha256} if isinstance(cost, DeviceCost) else {}
    return origin_of(experiment, params) | device


def origin_of(experiment: Experiment, params: Params) -> dict[str, str]:
    """Returns what archives and exported subnets are of: the identity of the run, and the hash of the weights."""
    return {"config": experiment.config.identity, "weights": weights_fingerprint(params)}


def weights_fingerprint(params: Params) -> str:
    """Computes SHA-256 over names and bits of the weights."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
