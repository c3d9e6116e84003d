"""Training a panel: each architecture on its own, its result kept under the hash of all that decides it.

Each is trained inside the supernet's weights (`supernet.engine.embedding`), by the programs that the training of the
supernet compiled, from the plain network's own fresh weights (or its part of what was imported): what is computed is
that network, only without a compilation each.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from experiments.configuration.supernet_section import SupernetSection
from experiments.experiment import Experiment
from experiments.objective import objective_of
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from experiments.ranking.early_stopping import CurveProbe, Known
from experiments.records.plain import JsonObject
from experiments.storage.cached_results import cached, digest, find
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.curves import ProbeErrors
from experiments.training.learning_curve import evaluation_interval
from experiments.training.one_path import OnePath
from experiments.training.stage import AnyStep, TrainingDiverged, train, train_step, trained_params
from search_spaces.randomness import Purpose
from supernet.engine.embedding import embed
from supernet.engine.randomness import key
from supernet.engine.supernet import Params
from supernet.tasks.distillation import Distillation

_FORMAT = 1
# What decides how a training goes on or is watched, and not what comes out of it.
_INDIFFERENT = frozenset(
    {"steps", "epochs", "distillation", "checkpoint_every", "keep_last", "keep_best", "checkpoint", "evaluate_every",
     "log_every", "diagnose_every", "path_batch", "exits", "incubation"}
)  # fmt: skip


class Truth(NamedTuple):
    """Figures that each architecture of the panel reaches alone, on the validation split; means over seeds.

    Attributes:
        figure: Figure of the data, such as accuracy.
        loss: The loss; NaN where it is not known.
        steps: Training steps that it took, fewer where the training stopped early and the figures are forecasts.
    """

    figure: Float[np.ndarray, " p"]
    loss: Float[np.ndarray, " p"]
    steps: Float[np.ndarray, " p"]


def ranked_by(experiment: Experiment) -> str:
    """Returns the figure that architectures are ranked by: that of the data, such as `accuracy`, or `loss`."""
    return experiment.config.rank.objective or objective_of(experiment.data).figure


def panel_steps(experiment: Experiment) -> int:
    """Steps of a whole training of a network of the panel."""
    return experiment.config.rank.steps or experiment.steps


def alone(experiment: Experiment) -> Experiment:
    """Returns the experiment for training the panel: plain weights, labels only, the panel's number of steps.

    Where only adapters are trained, so it is in the panel.
    """
    config, frozen = experiment.config, experiment.net.sharing.trained is not None
    steps, early = panel_steps(experiment), config.rank.early_stopping
    config = config.model_copy(
        update={
            "supernet": config.supernet if frozen else SupernetSection(),
            "train": config.train.model_copy(
                update={
                    "steps": steps,
                    "epochs": None,
                    "distillation": Distillation(),
                    "evaluate_every": steps if early is None else evaluation_interval(steps, early.evaluations),
                    "diagnose_every": None,
                    "checkpoint": "last",
                    "exits": (),
                    "incubation": None,
                }
            ),
        }
    )
    sampler = OnePath(experiment.space, config.seed, genes=experiment.space.smallest.genes)
    changed = dataclasses.replace(experiment, config=config, sampler=sampler)
    return share(experiment, changed) if experiment.config.supernet.sharing == "entangled" or frozen else changed


def share(experiment: Experiment, other: Experiment) -> Experiment:
    """Gives `other`, on the same data and network, what `experiment` has compiled and loaded."""
    for part in ("net", "evaluator", "calibration"):  # cached properties keep their values in the instance
        vars(other)[part] = getattr(experiment, part)
    return other


class PanelTrainer:
    """Trains networks of a panel, all with the programs that the first of them compiled.

    Args:
        experiment: The experiment whose supernet is judged.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._base = alone(experiment)
        self._seed, self._seeds = experiment.config.seed, experiment.config.rank.seeds
        self._step = train_step(self._base)

    def __call__(
        self, genes: Int[np.ndarray, "p g"], directory: Path, stop: StopRequest, quiet: bool, repetition: int = 0
    ) -> Truth:
        """Trains architectures; see `train_panel`."""
        base, seeds = self._base, self._seeds_of(repetition)
        results = np.zeros((len(genes), len(seeds), 3))
        bar = progress_bar(total=results[..., 0].size, desc="panel", unit="network", quiet=quiet)
        with bar:
            for i, row in enumerate(genes):
                for j, seed in enumerate(seeds):
                    member, key = member_of(base, row, seed), _key(base, row, seed)
                    make = partial(_trained_alone, member, self._step, digest(key), stop=stop)
                    try:
                        result = cached(directory / digest(key), key, make, stop)
                    except Interrupted as stopped:
                        text = f"{stopped} (network {i + 1} of {len(genes)} of the panel)"
                        raise Interrupted(text) from None
                    results[i, j] = result[base.data.outputs.figure], result["loss"], result.get("steps", base.steps)
                    bar.update()
        return Truth(*np.moveaxis(results.mean(axis=1), -1, 0))

    def missing(self, genes: Int[np.ndarray, "p g"], directory: Path) -> Int[np.ndarray, "m g"]:
        """Returns the architectures without complete results in `directory`."""

        def done(row: np.ndarray) -> bool:
            keys = [_key(self._base, row, seed) for seed in self._seeds_of(0)]
            return all(find(directory / digest(key), key) is not None for key in keys)

        return genes[[not done(row) for row in genes]]

    def _seeds_of(self, repetition: int) -> list[int]:
        return [self._seed + repetition * self._seeds + i for i in range(self._seeds)]


def train_panel(
    experiment: Experiment,
    genes: Int[np.ndarray, "p g"],
    directory: Path,
    stop: StopRequest,
    quiet: bool,
    repetition: int = 0,
) -> Truth:
    """Trains each architecture on its own, unless `directory` holds its result; continues one that was interrupted.

    Args:
        experiment: The experiment whose supernet is judged.
        genes: The panel.
        directory: Directory of the results; several runs may share it.
        stop: Read between steps.
        quiet: No progress bar.
        repetition: Another one trains with other seeds, to see how far the truth itself can be trusted.

    Raises:
        Interrupted: `stop` was requested; the network in training has a checkpoint.
        TrainingDiverged: A loss is not finite.
    """
    return PanelTrainer(experiment)(genes, directory, stop, quiet, repetition)


def panel_directory(cache: str | None, otherwise: Path) -> Path:
    """Returns the directory of a panel's results: the configured cache, or `panel` below another directory."""
    return otherwise / "panel" if cache is None else Path(cache)


def member_of(base: Experiment, genes: Int[np.ndarray, " g"], seed: int) -> Experiment:
    """Returns the experiment, result of `alone`, that trains one architecture with a seed."""
    config = base.config.model_copy(update={"seed": seed})
    sampler = OnePath(base.space, seed, genes=tuple(int(gene) for gene in genes))
    return share(base, dataclasses.replace(base, config=config, sampler=sampler))


def _key(base: Experiment, genes: Int[np.ndarray, " g"], seed: int) -> JsonObject:
    """All that decides a result; a sampler, a search or a budget does not."""
    config, start = base.config.as_dict(), base.config.start
    early = base.config.rank.early_stopping
    stops = None if early is None else {**early.model_dump(), "ranked_by": ranked_by(base)}
    return {
        **({} if stops is None else {"early_stopping": stops}),
        **({} if start is None else {"start": start.sha256}),
        **({} if base.net.sharing.trained is None else {"supernet": config["supernet"]}),
        "format": _FORMAT,
        "data": {**config["data"], "seed": base.config.seed},
        "space": base.space.fingerprint,
        "train": {name: value for name, value in config["train"].items() if name not in _INDIFFERENT},
        "evaluation": base.config.evaluation.scores,
        "steps": base.steps,
        "seed": seed,
        "genes": [int(gene) for gene in genes],
    }


def params_alone(
    member: Experiment, step: AnyStep, identity: str, work: Path, stop: StopRequest, probe: ProbeErrors | None = None
) -> Params:
    """Trains one network on its own, from a checkpoint in `work` where there is one.

    Args:
        member: Result of `member_of`.
        step: Result of `train_step` for `alone`.
        identity: Hash of all that decides the result, which checkpoints contain.
        work: Directory of checkpoints and log.
        stop: Read between steps.
        probe: Evaluates what is trained; a few networks of the space when None.

    Returns:
        Weights of the supernet, of which the network's are trained.

    Raises:
        Interrupted: `stop` was requested; a checkpoint is saved.
        TrainingDiverged: A loss is not finite.
    """
    genes = member.sampler.sample(member.sampler.init(), 0).genes
    architecture = member.space.architecture(genes[0])
    seed = key(member.config.seed, Purpose.PANEL_WEIGHTS)
    first = None  # its part of what was imported, where the experiment starts from that
    if member.config.start is None:
        fresh = nnx.to_pure_dict(nnx.state(member.net.module(architecture, nnx.Rngs(seed))))
        first = embed(member.net, fresh, architecture)
    with Checkpoints(work / "checkpoints", keep_last=1, keep_best=0, run=identity) as checkpoints:
        log = partial(EventLog, work, main_process=False)
        train(member, checkpoints, log, stop, True, first, step, probe=probe)
        return trained_params(member, checkpoints)


def _trained_alone(member: Experiment, step: AnyStep, identity: str, work: Path, stop: StopRequest) -> JsonObject:
    """Figure and loss of one network after its training, which goes on from a checkpoint in `work`."""
    genes = member.sampler.sample(member.sampler.init(), 0).genes
    architecture = member.space.architecture(genes[0])
    early, probe = member.config.rank.early_stopping, None
    if early is not None:
        probe = CurveProbe(member, genes, early, ranked_by(member), work)
    figure = member.data.outputs.figure
    try:
        params = params_alone(member, step, identity, work, stop, probe)
    except Known as known:
        return {
            "architecture": architecture.description, figure: known.figure, "loss": known.loss,
            "steps": known.step, "interval": list(known.interval),
        }  # fmt: skip
    scores = member.evaluator(params, genes)
    if scores.failed[0]:
        raise TrainingDiverged(
            f"rank: network {architecture.description} of the panel, trained on its own, has outputs that are not "
            "finite. Lower train.optimizer.learning_rate or set clip_norm, in a new run directory."
        )
    return {"architecture": architecture.description, figure: float(scores.figure[0]), "loss": float(scores.loss[0])}
