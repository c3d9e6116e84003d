"""Compares module incubation with end-to-end training, and with modules that were trained with their own heads.

Command: `python -m experiments.benchmarks.incubation --json`
(of the language model: `--config experiments/benchmarks/panels/incubation_tinyshakespeare.yaml`)

For each seed, the network of the experiment is (1) assembled from incubated modules and trained further; (2) trained
end to end for several numbers of steps, each with its complete schedule; (3) assembled from modules that were trained
as separate networks, with their own input and head, for as many steps. Objectives are those of the validation split.
Seconds are processor seconds: the median of a step times the number of steps, without compilation or waiting for other
jobs. `two_workers` is the computed time if modules are trained on two workers and everything else on one.
`over_end_to_end` is this time over the time of end-to-end training to the same objective: linearly interpolated between
two lengths, the time of the shortest length if that already reaches it, null if none does. `seconds_over` is the same
ratio with the sum of all seconds. `over_longest` is `two_workers` over the time of the longest end-to-end training,
whatever its objective.
"""

import dataclasses
import heapq
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Self

import click
import jax
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.configuration.experiment_config import ExperimentConfig, load_config
from experiments.experiment import Experiment, build_experiment
from experiments.incubation.members import Incubation
from experiments.incubation.stage import Trainer
from experiments.objective import objective_of
from experiments.process.interrupt import StopRequest
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.one_path import OnePath, one_path_probe
from experiments.training.stage import train, trained_params
from search_spaces.divided import divided
from supernet.engine.modules import MODULE, assembled_weights
from supernet.engine.supernet import Params

_DIGITS = Path(__file__).parents[1] / "incubation.yaml"
_WORKERS = 2
_MEANS = (
    "assembled", "trained_on", "own_heads_assembled", "own_heads_trained_on", "over_end_to_end", "seconds_over",
    "over_longest",
)  # fmt: skip


@dataclass(frozen=True)
class EndToEnd:
    """End-to-end training of one length: its objective and processor seconds."""

    objective: float
    seconds: float


@dataclass(frozen=True)
class OfSeed:
    """Figures of one seed; objectives are those of the validation split, seconds are processor seconds.

    Attributes:
        meta: Objective of the meta-model.
        hybrids: Objective of each hybrid.
        assembled: Objective of the assembled network.
        trained_on: Its objective after further training.
        own_heads_assembled: Objective of the network assembled from modules with separate heads.
        own_heads_trained_on: Its objective after further training.
        end_to_end: End-to-end trainings by their length.
        seconds: Seconds of each part.
        two_workers: Computed seconds on two workers.
        over_end_to_end: `two_workers` over the time of end-to-end training to an equal objective; None if never.
        seconds_over: Sum of all seconds over the same time.
        over_longest: `two_workers` over the time of the longest end-to-end training.
    """

    meta: float
    hybrids: list[float]
    assembled: float
    trained_on: float
    own_heads_assembled: float
    own_heads_trained_on: float
    end_to_end: dict[str, EndToEnd]
    seconds: dict[str, float]
    two_workers: float
    over_end_to_end: float | None
    seconds_over: float | None
    over_longest: float


class Clock:
    """Stopwatch in place of a progress bar: records the processor time at each step of a training."""

    def __init__(self) -> None:
        self._times = [time.process_time()]

    def update(self) -> None:
        """Records the end of a step."""
        self._times.append(time.process_time())

    def set_description_str(self, desc: str) -> None:
        """Shows nothing."""

    def set_postfix(self, shown: Mapping[str, str], refresh: bool = True) -> None:
        """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def seconds(self) -> float:
        """Median processor time of a step times the number of steps; the first steps compile."""
        steps = np.diff(self._times)
        return float(median(steps[2:])) * len(steps)


@click.command(cls=Benchmark)
@click.option("--config", type=click.Path(exists=True, path_type=Path), default=_DIGITS, show_default=True)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    help="Override a setting of the experiment, such as data.path=PATH. May be repeated.",
)
@click.option("--seeds", default=3, show_default=True)
@click.option(
    "--end-to-end",
    default="2,4,6",
    show_default=True,
    help="Lengths of end-to-end training as multiples of train.steps, separated by commas.",
)
@json_option
def main(config: Path, overrides: tuple[str, ...], seeds: int, end_to_end: str, as_json: bool) -> None:
    """Runs the benchmark."""
    found: list[OfSeed] = []
    for seed in range(seeds):
        loaded = load_config(config, [*overrides, f"seed={seed}"])
        found.append(measured(loaded, [float(part) for part in end_to_end.split(",")]))
        click.echo(f"{found[-1]}", err=True)
    values = {name: [getattr(of, name) for of in found] for name in _MEANS}
    means = {name: mean([value for value in of if value is not None]) for name, of in values.items()}
    show({**{f"seed_{seed}": dataclasses.asdict(of) for seed, of in enumerate(found)}, "means": means}, as_json)


def mean(values: Sequence[float]) -> float | None:
    """Returns the mean to four digits; None for no values."""
    return round(float(np.mean(values)), 4) if values else None


def measured(config: ExperimentConfig, lengths: Sequence[float]) -> OfSeed:
    """Measures the figures of one seed; objectives are those of the validation split.

    Args:
        config: The experiment.
        lengths: Lengths of end-to-end trainings as multiples of `train.steps`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        experiment, home = alone(build_experiment(config)), Path(scratch)
        clocks: dict[str, Clock] = {}
        trainer = Trainer(experiment, home, config.identity, lambda name: clocks.setdefault(name, Clock()))
        stop, modules = StopRequest(), Incubation(experiment).settings.modules
        meta = trainer.train_meta(stop, quiet=True)
        hybrids = [trainer.train_module(index, stop, quiet=True) for index in range(modules)]
        reached, finish = trained(experiment, trainer.assembled(), experiment.steps, home / "on")
        own = own_heads(experiment, home / "own")
        own_assembled = score(experiment, own)
        own_reached, _ = trained(experiment, own, experiment.steps, home / "own_on")
        whole = [
            trained(experiment, experiment.net.init(jax.random.key(config.seed)), steps, home / f"whole_{steps}")
            for steps in (round(length * experiment.steps) for length in lengths)
        ]
        parts = {name: clock.seconds for name, clock in clocks.items()}
        together = sum(parts.values()) + finish
        parallel = parts["meta"] + makespan([v for k, v in parts.items() if k != "meta"], _WORKERS) + finish
        equal = time_to(reached, whole)
        return OfSeed(
            meta, hybrids, trainer.score(), reached, own_assembled, own_reached,
            {f"{length:g}": EndToEnd(a, round(b, 2)) for length, (a, b) in zip(lengths, whole, strict=True)},
            {name: round(value, 2) for name, value in {**parts, "trained_on": finish}.items()},
            round(parallel, 2),
            None if equal is None else round(parallel / equal, 3),
            None if equal is None else round(together / equal, 3),
            round(parallel / whole[-1][1], 3),
        )  # fmt: skip


def alone(experiment: Experiment) -> Experiment:
    """Returns the experiment in which every step trains the largest network alone."""
    genes = tuple(int(gene) for gene in experiment.space.largest.genes)
    return dataclasses.replace(experiment, sampler=OnePath(experiment.space, experiment.config.seed, genes=genes))


def trained(experiment: Experiment, start: Params, steps: int, home: Path) -> tuple[float, float]:
    """Returns the objective and processor seconds of a training of this many steps."""
    config = experiment.config
    train_ = config.train.model_copy(update={"steps": steps, "epochs": None, "evaluate_every": steps})
    member = dataclasses.replace(experiment, config=config.model_copy(update={"train": train_}))
    genes, clock = np.array(experiment.space.largest.genes, np.int32), Clock()
    with Checkpoints(home, 1, 0) as checkpoints:
        train(
            member, checkpoints, lambda done: EventLog(home, done, main_process=False), StopRequest(), True, start,
            bar=clock, probe=one_path_probe(member, genes),
        )  # fmt: skip
        return score(member, trained_params(member, checkpoints)), clock.seconds


def score(experiment: Experiment, params: Params) -> float:
    """Returns the objective of the largest network on the validation split."""
    genes = np.array([experiment.space.largest.genes], np.int32)
    return float(objective_of(experiment.data).of(experiment.evaluator(params, genes))[0])


def own_heads(experiment: Experiment, home: Path) -> Params:
    """Returns weights assembled from modules that were trained as separate networks."""
    incubation = Incubation(experiment)
    (stack,) = experiment.space.network.stacks
    space = divided(experiment.space, {MODULE: incubation.layers})
    modules = []
    for index in range(incubation.settings.modules):
        base = incubation.module(index).experiment  # its settings, its order of examples
        genes = tuple(int(gene) for gene in space.largest.genes)
        member = dataclasses.replace(base, space=space, sampler=OnePath(space, base.config.seed, genes=genes))
        with Checkpoints(home / str(index), 1, 0) as checkpoints:
            train(
                member, checkpoints, lambda done: EventLog(home, done, main_process=False), StopRequest(), True,
                bar=Clock(), probe=one_path_probe(member, np.array(genes, np.int32)),
            )  # fmt: skip
            modules.append(trained_params(member, checkpoints))
    return experiment.net.shared(
        assembled_weights(modules[0], modules, incubation.ends, stack.path), jax.random.key(experiment.config.seed)
    )


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Returns the time at which the last job ends if each free worker starts the next job."""
    free = [0.0] * workers
    for job in seconds:
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)


def time_to(objective: float, trainings: Sequence[tuple[float, float]]) -> float | None:
    """Returns the interpolated seconds of the shortest training that reaches an objective; None if none does.

    Args:
        objective: The objective; lower is better.
        trainings: Objective and seconds of each length, the shortest first.
    """
    before: tuple[float, float] | None = None
    for reached, seconds in trainings:
        if reached <= objective:
            if before is None:
                return seconds
            share = (before[0] - objective) / (before[0] - reached) if before[0] > reached else 1.0
            return before[1] + share * (seconds - before[1])
        before = reached, seconds
    return None


if __name__ == "__main__":
    main()
