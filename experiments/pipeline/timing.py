"""Timing of an experiment before it is run: a few steps of each program, and what they say of minutes and memory."""

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.experiment import Experiment, build_experiment
from experiments.pipeline.demands import in_bytes
from experiments.training.batches import Batch, BatchMaker
from experiments.training.rematerialization import device_bytes
from experiments.training.stage import AnyStep, initial, train_step
from samplers import Paths
from samplers.sampler import equal_scores
from supernet.training.training import TrainState

_STEPS = 5
_MOST_SECONDS = 20.0  # that one program is timed for
_SHARE = 0.8  # of the memory, above which it is warned of


@dataclass(frozen=True)
class ProgramTiming:
    """Times of a compiled program.

    Attributes:
        first_step_s: Seconds of its first step, compilation included.
        path_ms: Milliseconds that its largest subnet then takes in a step.
    """

    first_step_s: float
    path_ms: float


@dataclass(frozen=True)
class Timing:
    """Time and memory of an experiment, as a few steps show them.

    Attributes:
        programs: Each compiled program.
        step_ms: Milliseconds of a training step.
        train_minutes: Expected minutes of training, compilation included.
        search_minutes: Expected minutes of search.
        memory_bytes: The most memory that was held so far.
        warnings: Warnings where memory is close to what the machine has.
        untimed_steps: Steps of the incubation before the training, which none of these minutes hold.
    """

    programs: Sequence[ProgramTiming]
    step_ms: float
    train_minutes: float
    search_minutes: float
    memory_bytes: int
    warnings: Sequence[str]
    untimed_steps: int = 0


def timing(config: ExperimentConfig) -> Timing:
    """Trains a few steps on fresh weights for each program, evaluates two subnets, and keeps nothing of it."""
    experiment = build_experiment(config)
    step, maker = train_step(experiment), BatchMaker(experiment)
    state, sampler_state = initial(experiment, step)
    sampler, batches = experiment.sampler, maker.bind(sampler_state)
    count = 2 if config.train.distillation.type == "ensemble" else 1  # there, a path alone has no teacher
    programs = []
    for genes in _largest_of_each(experiment):
        alone = Paths(
            np.repeat(genes[None], count, axis=0),
            ("largest" if count == 1 else "random",) * count,
            np.ones(count, np.float32),
        )
        seconds, state = _time_steps(step, state, batches, lambda _, alone=alone: alone)
        programs.append(ProgramTiming(round(seconds[0], 2), round(1e3 * _typical(seconds) / count, 2)))
    seconds, state = _time_steps(
        step, state, batches, lambda i: sampler.sample(sampler_state, i, score=equal_scores(sampler))
    )
    step_s = _typical(seconds)
    once = sum(program.first_step_s for program in programs)
    search = _time_evaluation(experiment, state)
    memory = _peak_bytes()
    return Timing(
        programs=programs,
        step_ms=round(1e3 * step_s, 2),
        train_minutes=round((step_s * experiment.steps + once) / 60, 2),
        search_minutes=round(search * experiment.config.search.evaluations / 60, 2),
        memory_bytes=memory,
        warnings=_warnings(memory),
        untimed_steps=untimed_steps(config),
    )


def untimed_steps(config: ExperimentConfig) -> int:
    """Returns the steps of all parts of the incubation that an experiment begins with."""
    parts = config.train.incubation
    return 0 if parts is None else sum(parts.steps.values())


def report_lines(found: Timing) -> list[str]:
    """Returns a timing as lines to read."""
    programs = [
        f"program   {i + 1} of {len(found.programs)}: {one.first_step_s:.1f} s with compiling, once; then "
        f"{one.path_ms:.1f} ms a path of its largest subnet"
        for i, one in enumerate(found.programs)
    ]
    return [
        *programs,
        f"minutes   about {found.train_minutes:.1f} of training ({found.step_ms:.1f} ms a step) and "
        f"{found.search_minutes:.1f} of search, on this machine as busy as it is now",
        *([f"          and {found.untimed_steps:,} steps of incubation, not timed"] if found.untimed_steps else []),
        f"memory    {in_bytes(found.memory_bytes)} at most so far, of {in_bytes(device_bytes())}",
        *(f"warning   {text}" for text in found.warnings),
    ]


def _largest_of_each(experiment: Experiment) -> Iterator[np.ndarray]:
    """Yields the genes of the largest subnet of each compiled program."""
    space = experiment.space
    selecting = [choice for choice in space.choices if choice.selects_program]
    for values in itertools.product(*(range(len(choice.values)) for choice in selecting)):
        genes = np.array([space.largest.genes], np.int32)
        for choice, value in zip(selecting, values, strict=True):
            genes[:, space.columns[choice.name]] = value
        yield space.canonical(genes)[0]


def _time_steps(
    step: AnyStep, state: TrainState, batches: Callable[[int], Batch], paths_of: Callable[[int], Paths]
) -> tuple[list[float], TrainState]:
    """Returns the seconds of a few steps, and the state after them."""
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) <= _STEPS and (len(seconds) < 2 or time.perf_counter() - begun < _MOST_SECONDS):
        batch, paths = batches(len(seconds)), paths_of(len(seconds))
        start = time.perf_counter()
        state, result = step(
            state, paths.genes, paths.roles, paths.weights, batch.x, batch.targets, batch.example_weights, batch.teacher
        )
        jax.block_until_ready([path.loss for path in result.paths])
        seconds.append(time.perf_counter() - start)
    return seconds, state


def _typical(seconds: list[float]) -> float:
    """Returns the median of the steps after the first, which compiles."""
    return float(np.median(seconds[1:]))


def _time_evaluation(experiment: Experiment, state: TrainState) -> float:
    """Returns the seconds that a subnet takes to be evaluated, the mean of the smallest and the largest one."""
    ends = experiment.space.extremes
    experiment.scorer(state.evaluation_params, ends)
    start = time.perf_counter()
    experiment.scorer(state.evaluation_params, ends)
    return (time.perf_counter() - start) / len(ends)


def _peak_bytes() -> int:
    """Returns the most memory that the device, or this process where it computes on the host, has held."""
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if peak is not None:
        return int(peak)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _warnings(memory: int) -> list[str]:
    most = device_bytes()
    if memory <= _SHARE * most:
        return []
    return [
        f"train.batch_size: a few steps have taken {in_bytes(memory)} of {in_bytes(most)}. Set a smaller batch_size, "
        "train.accumulate, or train.rematerialize: true."
    ]
