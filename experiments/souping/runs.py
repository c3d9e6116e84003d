"""Soups of runs: the supernets of several runs that began with the same weights, averaged into a run of its own.

What comes out is a trained run: `search` and `export` work on it as on any other. Its settings are those of the best
run. A supernet is judged by the mean objective of a few fixed subnets on the validation split, those that training
probes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configuration.experiment_config import ExperimentConfig, load_config
from experiments.experiment import Experiment, build_experiment
from experiments.exporting.lineage import TrainedOn
from experiments.incubation.stage import is_incubated, start_of
from experiments.objective import OBJECTIVES, objective_of
from experiments.pipeline.recorded_data import check_data, record_data
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.records import Summary, TrainingFigures
from experiments.records.plain import JsonObject
from experiments.run_directory import RunDirectory
from experiments.searching.stage import weights_fingerprint
from experiments.souping.choice import Members, Method, by_error, check_method, greedy
from experiments.souping.report import SOUP_FILE
from experiments.souping.settings import check_out
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.run_files import CONFIG, identity_of, is_run, read_run, write_summary
from experiments.training.curves import probed
from experiments.training.stage import Progress, initial, train_step, trained_progress
from search_spaces import UserError
from search_spaces.sealed_json import SEAL, read_sealed, sealed
from supernet.engine.supernet import Params
from supernet.storage.manifest import atomic_directory, write_text_atomically
from supernet.weights.averages import owned_mean


@dataclass(frozen=True)
class SoupOfRuns:
    """A soup of runs. Figures are what people read, such as the accuracy, means over the probed subnets.

    Attributes:
        identity: Identity of the run that it is.
        method: Whether all were taken, or those that do no harm.
        objective: Name of the objective that judged.
        alone: Directory of each run to what it reaches on the validation split.
        runs: Directories of those that were taken, the best one first.
        validation: Result of the soup there.
        directory: The run that it is.
    """

    identity: str
    method: Method
    objective: str
    alone: dict[str, float]
    runs: tuple[str, ...]
    validation: float
    directory: str

    def as_json(self) -> JsonObject:
        """Returns the soup as its file has it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Returns lines to read: the runs, and what came out."""
        objective = OBJECTIVES[self.objective]
        shown = [
            f"{path}: mean validation {objective.shown} {format(value, objective.form)}"
            f"{'' if path in self.runs else ', left out'}"
            for path, value in self.alone.items()
        ]
        value = format(self.validation, objective.form)
        return [*shown, f"{self.directory}: mean of {len(self.runs)}, mean validation {objective.shown} {value}"]


@dataclass(frozen=True)
class _Trained:
    """A trained run.

    Attributes:
        path: Its directory.
        experiment: Its experiment.
        progress: State at the end of its training.
        identity: Its identity, and the hash of its weights.
    """

    path: Path
    experiment: Experiment
    progress: Progress
    identity: tuple[str, str]

    @property
    def params(self) -> Params:
        """The weights that a search uses."""
        return self.progress.train.evaluation_params


def soup_of_runs(inputs: Sequence[Path], out: Path, method: Method, stop: StopRequest) -> SoupOfRuns:
    """Averages the supernets of runs into a new run; the same call finds what is there.

    Args:
        inputs: Run directories, at least one.
        out: The new run directory.
        method: Whether all are taken, or the best and those that strictly improve the mean.
        stop: Read between measurements; nothing is written then.

    Returns:
        What was taken, and what it reaches.

    Raises:
        UserError: A run is not trained to its end, or nothing shows that it began with the weights of the first; the
            method is not known; or something else is in the place of the soup.
        Interrupted: `stop` was requested.
    """
    check_method(method)
    check_out(out, inputs)
    if out.exists() and not (out / SOUP_FILE).is_file():
        raise UserError(f"--out: {out} exists, and is no soup. Choose another directory.")
    if len({path.resolve() for path in inputs}) < len(inputs):
        raise UserError("RUN: one is given twice. Name each run once.")
    for path in inputs:
        _check_kind(path)
    runs = _read(inputs)
    identity = _identity(runs, method)
    if out.exists():
        return _existing(out, identity)
    pot = _Pot(runs, stop)
    members = greedy(pot.errors, pot.error_of) if method == "greedy" else tuple(by_error(pot.errors))
    objective, error = pot.objective, pot.errors[members[0]] if len(members) == 1 else pot.error_of(members)
    alone = {str(run.path.absolute()): objective.value(own) for run, own in zip(runs, pot.errors, strict=True)}
    taken = tuple(str(runs[number].path.absolute()) for number in members)
    found = SoupOfRuns(identity, method, objective.name, alone, taken, objective.value(error), str(out.absolute()))
    _write(out, runs[members[0]], pot.mean(members) if len(members) > 1 else None, error, found)
    return found


def _check_kind(path: Path) -> None:
    if not is_run(path):
        raise UserError(f"{path}: is no run, and others are. Give networks of one run, or runs.")
    if (path / "gradient").is_dir():
        raise UserError(f"{path}: its weights are of a gradient search, for one network. Export it, and give that.")


def _read(inputs: Sequence[Path]) -> list[_Trained]:
    """Reads runs that go together."""
    found: list[_Trained] = []
    first: Experiment | None = None
    began: str | None = None
    for path in inputs:
        config = load_config(path / CONFIG)
        same_data = first is not None and (first.config.data, first.config.seed) == (config.data, config.seed)
        experiment = build_experiment(config, first.data if first is not None and same_data else None)
        check_data(path, experiment.data)
        first = experiment if first is None else first
        began = _check_alike(path, experiment, inputs[0], first, began)
        with Checkpoints(
            path / "checkpoints", config.train.keep_last, config.train.keep_best, identity_of(path)
        ) as saved:
            progress = trained_progress(experiment, saved)
        weights = weights_fingerprint(progress.train.evaluation_params)
        found.append(_Trained(path, experiment, progress, (identity_of(path), weights)))
    return found


def _check_alike(path: Path, experiment: Experiment, one: Path, first: Experiment, began: str | None) -> str:
    """Refuses a run that does not go with the first, and returns the hash of the weights that it began with."""
    ours, own = experiment.config, first.config
    if experiment.space.fingerprint != first.space.fingerprint or _sharing(ours) != _sharing(own):
        raise UserError(f"{path}: has another supernet than {one}. Give runs of one space and one supernet.sharing.")
    data = [TrainedOn.of(each.config.data, each.data, each.config.seed) for each in (first, experiment)]
    if data[0] != data[1]:
        raise UserError(
            f"{path}: was trained with other data than {one}, or another split of them, so that it may have seen the "
            "validation examples. Give runs of one data section and one seed."
        )
    if ours.train.incubation is None:
        start = initial(experiment, train_step(experiment)).train.params
    elif is_incubated(path):
        start = start_of(experiment, path, identity_of(path))
    else:
        raise UserError(
            f"{path}: holds none of the modules of train.incubation from which its training started, so nothing shows "
            "that it began as others did: its weights were taken over from other runs, or averaged. Give those runs."
        )
    hashed = weights_fingerprint(start)
    if began is not None and hashed != began:
        raise UserError(
            f"{path}: began with other weights than {one} (seed {ours.seed} and {own.seed}). Give runs of one seed, or "
            "that start from one imported checkpoint."
        )
    return hashed


def _sharing(config: ExperimentConfig) -> tuple:
    return config.supernet.sharing, config.supernet.splits, config.supernet.mixture, config.supernet.adapters


def _identity(runs: Sequence[_Trained], method: Method) -> str:
    decides = {"soup": [run.identity for run in runs], "method": method}
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def _existing(out: Path, identity: str) -> SoupOfRuns:
    content = dict(read_sealed(out / SOUP_FILE, f"Move {out} away."))
    if content.get("identity") != identity or read_run(out).get("identity") != identity:
        raise UserError(f"--out: {out} holds another soup, and is left as it is. Choose another directory.")
    del content[SEAL]
    try:  # it may have been moved
        return SoupOfRuns(**{**content, "runs": tuple(content["runs"]), "directory": str(out.absolute())})
    except (KeyError, TypeError):
        raise UserError(f"{out / SOUP_FILE}: is damaged. Move {out} away.") from None


class _Pot:
    """Averages the weights of runs, and measures what comes out on probed subnets."""

    def __init__(self, runs: Sequence[_Trained], stop: StopRequest) -> None:
        self._runs, self._stop = runs, stop
        self._experiment = runs[0].experiment
        self._genes = probed(self._experiment)
        self.objective = objective_of(self._experiment.data)
        self.errors = [self._error(run.params) for run in runs]

    def mean(self, members: Members) -> Params:
        """Returns the mean weights of some runs."""

        def parts():
            for number in members:
                params = self._runs[number].params
                yield params, jax.tree.map(lambda leaf: np.broadcast_to(True, leaf.shape), params)

        return owned_mean(parts(), self._runs[members[0]].params)

    def error_of(self, members: Members) -> float:
        """Measures the mean of some runs."""
        return self._error(self.mean(members))

    def _error(self, params: Params) -> float:
        if self._stop:
            raise Interrupted("stopped before a soup was chosen; nothing is written. The same command starts again.")
        return float(self.objective.of(self._experiment.evaluator(params, self._genes)).mean())


def _write(out: Path, base: _Trained, mean: Params | None, error: float, found: SoupOfRuns) -> None:
    """Writes the run.

    Args:
        out: Its directory, which is not there yet.
        base: Run whose settings and state of training it has.
        mean: Its weights; those of `base` when None.
        error: Mean objective of its probed subnets.
        found: Content of `soup.json`.
    """
    experiment, train = base.experiment, base.progress.train
    if mean is not None:
        average = train.average
        if average is not None:
            average = jax.tree.map(jnp.copy, {name: mean[name] for name in average})
        train = train._replace(params=mean, average=average)
    figures = TrainingFigures(experiment.steps, probe={found.objective: error}, taken_from=", ".join(found.runs))
    keep = experiment.config.train.keep_last, experiment.config.train.keep_best
    summary = Summary(name=experiment.config.name, objective=found.objective, train=figures)
    with (
        atomic_directory(out) as temporary,
        RunDirectory.create_or_resume(temporary, experiment.config, identity=found.identity) as directory,
    ):
        with Checkpoints(directory.checkpoints, *keep, run=found.identity) as checkpoints:
            state: Any = base.progress._replace(train=train)
            checkpoints.save(experiment.steps, state, error, figures.as_json())
        record_data(directory.path, experiment.data)
        write_summary(directory.path, summary)
        content = json.dumps(sealed(found.as_json()), indent=1, sort_keys=True)
        write_text_atomically(directory.path / SOUP_FILE, content + "\n")
