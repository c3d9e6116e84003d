"""Do the samplers' gradients do what their papers say? Conflict between consecutive paths, variance, sampling's cost.

Command: `python -m experiments.benchmarks.gradients --config experiments/benchmarks/panels/digits.yaml --json`

Trains one supernet a seed with `pada`, and then compares samplers at exactly these weights, on the batches that each
would train next:
    cosine     between the gradients of consecutive paths: `uniform` against `complexity_aware` (ElasticViT,
               arXiv:2303.09730), both one path a step;
    variance   of the gradient over paths and examples, relative to the squared length of its mean: `uniform` against
               `pada` (arXiv:2302.14772) with what it has learned, as published and with importance weights;
    seconds    of each sampler's `sample` and `update` in a training step, as a share of the step.
Each interval is the mean over seeds plus and minus their standard deviation.
"""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.output import show
from experiments.checkpoints import Checkpoints
from experiments.compilation import use_compilation_cache
from experiments.config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.gradient_statistics import gradient_statistics
from experiments.interrupt import StopRequest
from experiments.tensorboard import EventLog
from experiments.train import Progress, initial, train, train_step
from samplers import SAMPLERS, SamplerState
from supernet.training import TrainStep

_ONE_PATH: Mapping[str, tuple[str, dict[str, Any]]] = {
    "uniform": ("uniform", {}),
    "complexity_aware": ("complexity_aware", {"random_paths": 1, "smallest": False}),
    "pada": ("pada", {}),
    "pada_paths": ("pada", {"data_importance": False}),
    "pada_examples": ("pada", {"path_importance": False}),
    "pada_unbiased": ("pada", {"unbiased": True}),
    "pada_paths_unbiased": ("pada", {"data_importance": False, "unbiased": True}),
    "pada_examples_unbiased": ("pada", {"path_importance": False, "unbiased": True}),
}


@click.command()
@click.option("--config", type=click.Path(path_type=Path), required=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", default=300, show_default=True, help="Steps that are drawn at fixed weights.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(config: Path, overrides: tuple[str, ...], seeds: int, steps: int, as_json: bool) -> None:
    """Compares samplers at the weights of the same trained supernets."""
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in _ONE_PATH}
    with tempfile.TemporaryDirectory() as cache:
        use_compilation_cache(Path(cache))
        for seed in tqdm(range(seeds), desc="seeds"):
            settings = load_config(config, [*overrides, f"seed={seed}", 'sampler={"type": "pada"}'])
            for name, found in _of_seed(build_experiment(settings), steps).items():
                rows[name].append(found)
    figures: dict[str, Any] = {"config": str(config), "seeds": seeds, "steps": steps}
    for name, found in rows.items():
        for key in found[0]:
            values = np.array([row[key] for row in found])
            figures[f"{name}/{key}"] = {"mean": values.mean(), "std": values.std(ddof=1), "values": values.tolist()}
    figures["cosine_complexity_aware_above_uniform"] = _apart(
        figures["uniform/path_cosine"], figures["complexity_aware/path_cosine"]
    )
    for name in rows:
        if name.startswith("pada"):
            figures[f"variance_{name}_below_uniform"] = _apart(
                figures[f"{name}/relative_variance"], figures["uniform/relative_variance"]
            )
    show(figures, as_json)


def _of_seed(experiment: Experiment, steps: int) -> dict[str, dict[str, float]]:
    progress, done = _trained(experiment), experiment.steps
    step = TrainStep(experiment.net, experiment.config.train.optimizer.build(done))
    found = {}
    for name, (kind, own) in _ONE_PATH.items():
        sampler = SAMPLERS[kind](experiment.space, experiment.config.seed, experiment.sampler.plan, **own)
        state = _part(progress.sampler, sampler.init())
        other = dataclasses.replace(experiment, sampler=sampler)
        found[name] = gradient_statistics(other, step, progress.train.params, state, range(done - steps, done))
    return found


def _trained(experiment: Experiment) -> Progress:
    step = train_step(experiment)
    with tempfile.TemporaryDirectory() as scratch, Checkpoints(Path(scratch) / "checkpoints") as checkpoints:
        train(experiment, checkpoints, lambda at: EventLog(Path(scratch), at), StopRequest(), True, step=step)
        return checkpoints.restore(initial(experiment, step))[1]


def _part(learned: SamplerState, wanted: SamplerState) -> SamplerState:
    """What a sampler that learns a part of `learned` would have learned."""
    return {name: learned[name] for name in wanted}


def _apart(low: dict[str, Any], high: dict[str, Any]) -> bool:
    """Whether one interval lies wholly below the other."""
    return bool(low["mean"] + low["std"] < high["mean"] - high["std"])


if __name__ == "__main__":
    main()
