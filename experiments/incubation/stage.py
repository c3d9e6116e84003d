"""The incubation of a network: a meta-model, then each module between its frozen layers, then all put together.

Everything is kept below `incubation/` of the run directory, from where the training takes its first weights. The
training stage trains each part: its optimisers, batches and checkpoints.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.configuration.incubation_section import PARTS
from experiments.experiment import Experiment
from experiments.incubation.members import KEY, Incubation, Member
from experiments.objective import objective_of
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.records import IncubationFigures
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.one_path import one_path_probe
from experiments.training.stage import RATE, AnyStep, TrainingDiverged, train, train_step, trained_params
from search_spaces.randomness import Purpose
from supernet.engine.modules import assembled_weights, hybrid_weights
from supernet.engine.randomness import key
from supernet.engine.supernet import Params


class Trainer:
    """Trains the parts of an incubation in a run directory; each resumes, or is found there.

    Args:
        experiment: The experiment whose training starts from the outcome.
        run: The run directory.
        identity: Identity of the run.
        bars: Makes what shows the progress of a part, given its name; bars on the terminal when None.
    """

    def __init__(
        self, experiment: Experiment, run: Path, identity: str, bars: Callable[[str], Any] | None = None
    ) -> None:
        self._experiment, self._run, self._identity, self._bars = experiment, run, identity, bars
        self._incubation = Incubation(experiment)

    def train_meta(self, stop: StopRequest, quiet: bool) -> float:
        """Trains the meta-model.

        Returns:
            The objective that it reaches on the validation split.

        Raises:
            UserError: A loss is not finite, or a checkpoint is damaged.
            Interrupted: `stop` was requested; a checkpoint is saved.
        """
        meta = self._incubation.meta
        return self._trained(meta, train_step(meta.experiment), self._fresh(meta), stop, quiet)

    def train_module(self, index: int, stop: StopRequest, quiet: bool) -> float:
        """Trains a module, from 0, in its hybrid; arguments, results and errors as those of `train_meta`."""
        member = self._incubation.module(index)
        start = hybrid_weights(self._meta(), self._fresh(member), index, self._incubation.ends)
        return self._trained(member, train_step(member.experiment, member.trained), start, stop, quiet)

    def assembled(self) -> Params:
        """Returns the weights of the experiment's supernet that its training starts from.

        Raises:
            UserError: A checkpoint is missing or damaged.
        """
        experiment, incubation = self._experiment, self._incubation
        hybrids = [self._weights(incubation.module(index)) for index in range(incubation.settings.modules)]
        (stack,) = experiment.space.network.stacks
        plain = assembled_weights(self._meta(), hybrids, incubation.ends, stack.path)
        return experiment.net.shared(plain, key(experiment.config.seed, Purpose.WEIGHTS))

    def score(self) -> float:
        """Returns the objective of the assembled network on the validation split, before it is trained on."""
        genes = np.array([self._experiment.space.largest.genes], np.int32)
        scores = self._experiment.evaluator(self.assembled(), genes)
        return float(objective_of(self._experiment.data).of(scores)[0])

    def _meta(self) -> Params:
        return self._weights(self._incubation.meta)

    def _fresh(self, member: Member) -> Params:
        return member.experiment.net.init(key(self._experiment.config.seed, Purpose.MODULE_WEIGHTS, member.number))

    def _checkpoints(self, member: Member) -> Checkpoints:
        directory = self._run / PARTS / member.name / "checkpoints"
        return Checkpoints(directory, keep_last=1, keep_best=0, run=f"{self._identity}/{member.name}")

    def _weights(self, member: Member) -> Params:
        with self._checkpoints(member) as checkpoints:
            return trained_params(member.experiment, checkpoints, train_step(member.experiment, member.trained))

    def _trained(self, member: Member, step: AnyStep, start: Params, stop: StopRequest, quiet: bool) -> float:
        log = self._run / "tensorboard" / PARTS / member.name
        with self._checkpoints(member) as checkpoints:
            try:
                figures = train(
                    member.experiment, checkpoints, lambda done: EventLog(log, done), stop, quiet, start, step,
                    bar=None if self._bars is None else self._bars(member.name),
                    probe=one_path_probe(member.experiment, member.genes), name=member.title,
                )  # fmt: skip
            except Interrupted as stopped:
                raise Interrupted(f"{stopped} ({member.title} of {KEY})") from None
            except TrainingDiverged as diverged:
                said = self._with_own_rate(str(diverged).removeprefix("train: "))
                raise TrainingDiverged(f"{KEY}: {member.title}: {said}") from None
        reached = figures.probe[objective_of(self._experiment.data).name]
        assert reached is not None  # the last step is always probed
        return reached

    def _with_own_rate(self, message: str) -> str:
        """Names the rate of the parts where they have one of their own."""
        own = self._incubation.settings.learning_rate is not None
        return message.replace(RATE, f"{KEY}.learning_rate") if own else message


def incubate(experiment: Experiment, run: Path, stop: StopRequest, quiet: bool) -> IncubationFigures:
    """Trains all parts of an incubation in this process, one after the other.

    Args:
        experiment: An experiment with a section `train.incubation`.
        run: Its run directory; parts that it holds are not trained again.
        stop: Read between steps.
        quiet: No progress bars.

    Returns:
        Figures for the summary.

    Raises:
        UserError: A loss is not finite, or a checkpoint is damaged.
        Interrupted: `stop` was requested; a checkpoint is saved.
    """
    trainer = Trainer(experiment, run, experiment.config.identity)
    meta = trainer.train_meta(stop, quiet)
    modules = range(Incubation(experiment).settings.modules)
    hybrids = [trainer.train_module(index, stop, quiet) for index in modules]
    return figures_of(experiment, meta, hybrids, trainer.score())


def is_incubated(run: Path) -> bool:
    """Returns whether a run directory holds parts of an incubation; one that took its weights over holds none."""
    return (run / PARTS).is_dir()


def start_of(experiment: Experiment, run: Path, identity: str | None = None) -> Params:
    """Returns the weights that a training starts from: the modules that lie in its run directory, put together.

    Args:
        experiment: An experiment with a section `train.incubation`.
        run: Its run directory.
        identity: Identity of the run; that of the experiment when None.

    Raises:
        UserError: A checkpoint is missing or damaged.
    """
    return Trainer(experiment, run, identity or experiment.config.identity).assembled()


def figures_of(experiment: Experiment, meta: float, hybrids: Sequence[float], assembled: float) -> IncubationFigures:
    """Returns figures for the summary from the objectives of the parts and of the assembled network."""
    settings = Incubation(experiment).settings
    meta_, *hybrids_, assembled_ = (None if math.isnan(value) else value for value in (meta, *hybrids, assembled))
    return IncubationFigures(
        settings.modules, settings.meta_steps, settings.module_steps, meta_, tuple(hybrids_), assembled_
    )
