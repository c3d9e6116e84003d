"""Cost of sampling, feedback and diagnostics in percent of a training step.

Command: `python -m experiments.benchmarks.sampling_cost --config experiments/digits.yaml --json`

For each sampler, over the same steps: the seconds in `sample`, in reading the feedback and in `update`, over those of
the step without them. The slow-down of the step by the measurements that the sampler needs (gradient norms by gene) is
measured against steps without them on the same paths, in turn. The passes with which a method scores candidates belong
to the method and are reported separately. Diagnostics: a measured step against a plain one, times the share of measured
steps.
"""

import dataclasses
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
import jax
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.training.batches import BatchMaker
from experiments.training.stage import feedback_of, initial, train_step
from samplers import SAMPLERS, Plan
from samplers.sampler import equal_scores
from supernet.tasks.distillation import Distillation
from supernet.training.training import TrainStep

_MEASURED = 2  # steps of each `diagnose_every`, as `Diagnostics.measures` says


@click.command(cls=Benchmark)
@click.option("--config", type=click.Path(path_type=Path), required=True)
@set_option
@click.option("--samplers", default=None, help="Samplers to time, separated by commas.  [default: all]")
@click.option("--steps", default=60, show_default=True)
@json_option
def main(config: Path, overrides: tuple[str, ...], samplers: str | None, steps: int, as_json: bool) -> None:
    """Times registered samplers with their default settings."""
    experiment = build_experiment(load_config(config, overrides))
    # Ten epochs, so that every schedule is past its start within the steps that are timed.
    examples = len(experiment.data.train)
    settings = experiment.config.train
    plan = Plan(max(experiment.steps, 10 * examples // settings.batch_size + 1), examples, settings.batch_size)
    plain = dataclasses.replace(experiment, config=experiment.config.model_copy(
        update={"train": settings.model_copy(update={"distillation": Distillation()})}
    ))  # fmt: skip
    found = {
        name: _of_sampler(dataclasses.replace(plain, sampler=SAMPLERS[name](experiment.space, 0, plan)), steps)
        for name in (samplers.split(",") if samplers else SAMPLERS)
    }
    diagnostics = _of_diagnostics(plain, steps)
    show({"config": str(config), "steps": steps, **found, "diagnostics_percent": diagnostics}, as_json)


def _of_sampler(experiment: Experiment, steps: int) -> dict[str, float]:
    sampler, maker = experiment.sampler, BatchMaker(experiment)
    learns = train_step(experiment)
    bare = TrainStep(experiment.net, experiment.config.train.optimizer.build(experiment.steps))
    states = [initial(experiment, step).train for step in (learns, bare)]
    sampler_state = sampler.init()
    host, scoring, own, without = [], [], [], []
    for number in range(steps):
        batch = maker(sampler_state, number)
        jax.block_until_ready(batch.x)
        scored = [0.0]

        def score(genes: np.ndarray, batch: Any = batch, scored: list[float] = scored) -> np.ndarray:
            begin = time.perf_counter()
            losses = learns.score(states[0].params, genes, *batch.plain)
            scored[0] += time.perf_counter() - begin
            return losses

        given = score if batch.plain is not None else None
        start = time.perf_counter()
        paths = sampler.sample(sampler_state, number, score=given)
        sampled = time.perf_counter() - start
        arguments = (paths.genes, paths.roles, paths.weights, batch.x, batch.targets, batch.example_weights)
        results: list[Any] = [None, None]
        taken = [0.0, 0.0]
        for i in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            states[i], results[i] = (learns, bare)[i](states[i], *arguments)
            jax.block_until_ready(states[i])
            taken[i] = time.perf_counter() - start
        start = time.perf_counter()
        losses = np.array([path.loss for path in results[0].paths], np.float64)
        sampler_state = sampler.update(
            sampler_state, feedback_of(experiment, number, paths, losses, results[0], batch, None, given)
        )
        host.append(sampled + time.perf_counter() - start - scored[0])
        scoring.append(scored[0])
        own.append(taken[0])
        without.append(taken[1])
    skip = steps // 4  # compilation, and caches that fill
    step_seconds = median(without[skip:])
    return {
        "step_ms": 1e3 * step_seconds,
        "sample_and_update_percent": 100 * median(host[skip:]) / step_seconds,
        "mean_sample_and_update_percent": 100 * float(np.mean(host[skip:])) / step_seconds,
        "measuring_percent": 100 * (median(own[skip:]) / step_seconds - 1),
        "scoring_percent": 100 * float(np.mean(scoring[skip:])) / step_seconds,
    }


def _of_diagnostics(experiment: Experiment, steps: int) -> float:
    """Returns the extra time of measured steps, averaged over all steps at the configured interval."""
    every = experiment.config.train.diagnose_every
    if every is None:
        return 0.0
    sampler = experiment.sampler
    sampler_state = sampler.init()
    step, maker = train_step(experiment), BatchMaker(experiment)
    state, taken = initial(experiment, step).train, {False: [], True: []}
    for number in range(steps):
        batch = maker(sampler_state, number)
        jax.block_until_ready(batch.x)
        paths = sampler.sample(sampler_state, number, score=equal_scores(sampler))
        start = time.perf_counter()
        state, _ = step(
            state, paths.genes, paths.roles, paths.weights, batch.x, batch.targets, batch.example_weights,
            measure=number % 2 == 1,
        )  # fmt: skip
        jax.block_until_ready(state)
        taken[number % 2 == 1].append(time.perf_counter() - start)
    plain, measured = (median(taken[kind][steps // 8 :]) for kind in (False, True))
    return 100 * (measured - plain) * _MEASURED / every / plain


if __name__ == "__main__":
    main()
