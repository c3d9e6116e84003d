"""Two Ray workers against one: seconds of a step of an evolution strategy, and what of it is not shared.

Command: `python -m experiments.benchmarks.members_on_ray experiments/digits_evolution_strategy.yaml --json`

Trainings with one and with two workers take turns, each with a pool of its own. Their first step compiles and does not
count. A step is the pass of each path without perturbation and the update, which the driver does alone, and the
evaluation of the members between them, which workers share; each worker repeats the update before too. The ratio that
counts is that of whole steps. It means something on a machine that does nothing else.
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
from supernet.evolution_strategy.step import EvolutionStep, Examples, StepPaths
from supernet.training.training import TrainState

WORKERS = 1, 2


class Seconds(NamedTuple):
    """Duration of a training step.

    Attributes:
        step: All of it.
        members: The evaluation of members.
    """

    step: float
    members: float


@click.command(cls=Benchmark)
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--set", "settings", multiple=True, help="Setting of the experiment, KEY=VALUE.")
@click.option("--steps", default=10, show_default=True, type=click.IntRange(1), help="Timed steps of a training.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Trainings of each kind, in turn.")
@json_option
def main(config: Path, settings: tuple[str, ...], steps: int, rounds: int, as_json: bool) -> None:
    """Runs the benchmark on the experiment CONFIG."""
    show(measure(config, settings, steps, rounds), as_json)


def measure(config: Path, settings: Sequence[str], steps: int, rounds: int) -> dict[str, Any]:
    """Measures all figures, medians over the steps of all rounds."""
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
    """Seconds of each step of a training behind the first.

    Raises:
        UserError: The experiment is not trained by an evolution strategy, or Ray cannot do it.
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
