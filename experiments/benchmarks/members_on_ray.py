"""Compares two Ray workers with one: seconds of a step of an evolution strategy, and its serial part.

Command: `python -m experiments.benchmarks.members_on_ray experiments/digits_evolution_strategy.yaml --json`

Trainings with one and with two workers take turns, each with its own pool. Their first step compiles and does not
count. In a step the driver computes an unperturbed pass of each path and the update; the workers share the evaluation
of the members, and each repeats the previous update. The main figure is the ratio of whole steps. Run it on an idle
machine.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click
import jax

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.configuration.experiment_config import load_config
from experiments.distributed.pool import pool
from experiments.experiment import build_experiment
from experiments.training.batches import BatchMaker
from experiments.training.evolution_strategy import check_evolution_strategy, evolution_step
from experiments.training.members_on_ray import MembersOnRay
from experiments.training.stage import initial
from search_spaces import UserError
from search_spaces.sealed_json import JsonObject
from supernet.evolution_strategy.step import EvolutionStep, Examples, StepPaths
from supernet.training.training import TrainState

WORKERS = 1, 2


class Seconds(NamedTuple):
    """Duration of a training step.

    Attributes:
        step: Seconds of the whole step.
        members: Seconds of the evaluation of the members.
    """

    step: float
    members: float


@click.command(cls=Benchmark)
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--set", "settings", multiple=True, help="Override a setting of the experiment, KEY=VALUE. May be repeated."
)
@click.option(
    "--steps", default=10, show_default=True, type=click.IntRange(1), help="Number of timed steps in each training."
)
@click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="Number of trainings for each number of workers, in turn.",
)
@json_option
def main(config: Path, settings: tuple[str, ...], steps: int, rounds: int, as_json: bool) -> None:
    """Runs the benchmark on the experiment CONFIG."""
    show(measure(config, settings, steps, rounds), as_json)


def measure(config: Path, settings: Sequence[str], steps: int, rounds: int) -> JsonObject:
    """Measures all figures as medians over the steps of all rounds."""
    taken: dict[int, list[Seconds]] = {workers: [] for workers in WORKERS}
    for _ in range(rounds):
        for workers in WORKERS:
            taken[workers] += timed(config, [*settings, f"ray={{workers: {workers}}}"], steps)
    step, members = ({n: median(getattr(one, name) for one in taken[n]) for n in WORKERS} for name in Seconds._fields)
    return {
        "steps": steps * rounds,
        **{f"seconds_a_step_of_{n}": step[n] for n in WORKERS},
        **{f"seconds_of_members_of_{n}": members[n] for n in WORKERS},
        "share_of_a_step_that_the_driver_does_alone": 1 - members[1] / step[1],
        "two_over_one": step[1] / step[2],
        "two_over_one_members": members[1] / members[2],
    }


def timed(config: Path, settings: Sequence[str], steps: int) -> list[Seconds]:
    """Returns the seconds of each step of a training after the first.

    Raises:
        UserError: The experiment does not use an evolution strategy, or cannot run on Ray.
    """
    experiment = build_experiment(load_config(config, settings))
    if experiment.config.train.method != "evolution_strategy":
        raise UserError(f"{config}: train.method: {experiment.config.train.method} has no members. Give another file.")
    check_evolution_strategy(experiment)
    step: EvolutionStep = evolution_step(experiment)
    state, sampler_state = initial(experiment, step)
    batch_of, sampler = BatchMaker(experiment).bind(sampler_state), experiment.sampler
    found: list[Seconds] = []
    with tempfile.TemporaryDirectory() as directory, pool(experiment, Path(directory)) as workers:
        members, spent = MembersOnRay(workers, step.settings.chunks), [0.0]

        def evaluate(state: TrainState, paths: StepPaths, examples: Examples) -> Any:
            begun = time.perf_counter()
            fitness = members(state, paths, examples)
            spent[0] = time.perf_counter() - begun
            return fitness

        step.evaluate = evaluate
        for number in range(steps + 1):
            batch, paths = batch_of(number), sampler.sample(sampler_state, number)
            begun = time.perf_counter()
            state, _ = step(state, paths.genes, paths.roles, paths.weights, batch.x, batch.targets)
            jax.block_until_ready(state.params)
            found.append(Seconds(time.perf_counter() - begun, spent[0]))
    return found[1:]


if __name__ == "__main__":
    main()
