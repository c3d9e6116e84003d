"""Gradients of samplers at equal weights: agreement between consecutive paths, and variance.

Command: `python -m experiments.benchmarks.gradients --config experiments/benchmarks/panels/digits.yaml --json`

Tests the claims of the samplers' papers about gradients. Samplers are compared at exactly the same weights, on the
batches that each would train next.
    cosine     between the gradients of consecutive paths, at weights that `uniform` trained: `uniform` against
               `complexity_aware` (ElasticViT, arXiv:2303.09730), both one path a step;
    variance   of a step's gradient (trace of the covariance over paths and examples), at weights that `pada` trained:
               `uniform` against `pada` (arXiv:2302.14772) with what it has learned there. As published it is biased
               towards large gradients; `unbiased` weights it so that the mean stays that of `uniform`, and only then
               do variances of the same mean compare. `tau_half` mixes importance and uniform half and half to the end.
Three more figures explain the variances. `fresh_examples` draws examples by norms that were just computed at these
weights for the paths to be trained, instead of remembered norms. `replacement` draws examples uniformly but
independently, as importance sampling must; `uniform` visits each example once an epoch, which alone reduces the
variance by the share batch / examples. `path_bound` is the least variance (relative to `uniform`) of any unbiased
distribution over paths and batches, (E|g|)^2 / E|g|^2 by Cauchy-Schwarz. Each interval is the mean over seeds plus and
minus their standard deviation.
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.process.compilation import use_compilation_cache
from experiments.process.interrupt import StopRequest
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.gradient_statistics import gradient_statistics
from experiments.training.stage import Progress, gradient_step, initial, train
from samplers import SAMPLERS, Examples, Sampler, SamplerState, UniformSampler
from search_spaces.randomness import Purpose
from search_spaces.sealed_json import JsonObject
from supernet.engine.supernet import Params
from supernet.training.training import TrainStep

_PARTS: Mapping[str, JsonObject] = {
    "": {},
    "_paths": {"data_importance": False},
    "_examples": {"path_importance": False},
}
_TRAINED: Mapping[str, JsonObject] = {"pada": {}, "pada_tau_half": {"max_tau": 0.5, "carry": True}}
_WALK = {"random_paths": 1, "smallest": False}


@click.command(cls=Benchmark)
@click.option("--config", type=click.Path(path_type=Path), required=True)
@set_option
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", default=400, show_default=True, help="Number of steps to draw at fixed weights.")
@json_option
def main(config: Path, overrides: tuple[str, ...], seeds: int, steps: int, as_json: bool) -> None:
    """Compares samplers at the weights of the same trained supernets."""
    rows: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as cache:
        use_compilation_cache(Path(cache))
        for seed in tqdm(range(seeds), desc="seeds"):
            for name, found in _of_seed(config, [*overrides, f"seed={seed}"], steps).items():
                rows.setdefault(name, []).append(found)
    over = {
        f"{name}/{key}": OverSeeds.of([row[key] for row in found]) for name, found in rows.items() for key in found[0]
    }
    claims: dict[str, bool] = {}
    if seeds > 1:
        low, high = over["uniform/path_cosine"], over["complexity_aware/path_cosine"]
        claims["cosine_complexity_aware_above_uniform"] = low.end < high.start
        for name in rows:
            if name.startswith("pada") and "variance_over_uniform" in rows[name][0]:
                claims[f"variance_{name}_below_uniform"] = over[f"{name}/variance_over_uniform"].end < 1
    figures = {name: dataclasses.asdict(found) for name, found in over.items()}
    show({"config": str(config), "seeds": seeds, "steps": steps, **figures, **claims}, as_json)


@dataclass(frozen=True)
class OverSeeds:
    """A figure over seeds.

    Attributes:
        mean: Its mean.
        std: Its sample standard deviation; None for one seed.
        values: Its value for each seed.
    """

    mean: float
    std: float | None
    values: list[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> "OverSeeds":
        """Returns the summary of values, one for each seed."""
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), std, [float(value) for value in values])

    @property
    def start(self) -> float:
        """Lower end of the interval of one standard deviation around the mean."""
        return self.mean - (self.std or 0.0)

    @property
    def end(self) -> float:
        """Upper end of the interval of one standard deviation around the mean."""
        return self.mean + (self.std or 0.0)


def _of_seed(config: Path, overrides: list[str], steps: int) -> dict[str, dict[str, float]]:
    found = {}

    def measure(experiment: Experiment, progress: Progress, sampler: Sampler) -> dict[str, float]:
        other = dataclasses.replace(experiment, sampler=sampler)
        state = {name: progress.sampler[name] for name in sampler.init()}
        # Batches and levels of the steps after the training; what was learned stays as it is.
        return gradient_statistics(
            other, step, progress.train.params, state, range(experiment.steps, experiment.steps + steps)
        )

    experiment = _experiment(config, overrides, "uniform", {})
    step = TrainStep(experiment.net, experiment.config.train.optimizer.build(experiment.steps))
    progress, plan, seed = _trained(experiment, step), experiment.sampler.plan, experiment.config.seed
    found["uniform"] = measure(experiment, progress, experiment.sampler)
    walk = SAMPLERS["complexity_aware"](experiment.space, seed, plan, **_WALK)
    found["complexity_aware"] = measure(experiment, progress, walk)
    for trained, settings in _TRAINED.items():
        experiment = _experiment(config, overrides, "pada", settings)
        progress = _trained(experiment, gradient_step(experiment))
        base = measure(experiment, progress, SAMPLERS["uniform"](experiment.space, seed, plan))
        found[f"{trained}_weights_uniform"] = base
        for part, own in (_PARTS if trained == "pada" else {"": {}}).items():
            for suffix, unbiased in (("", False), ("_unbiased", True)):
                sampler = dataclasses.replace(experiment.sampler, **own, unbiased=unbiased)
                found[f"{trained}{part}{suffix}"] = _over(measure(experiment, progress, sampler), base)
        size = len(experiment.data.train)
        for name, norms in {
            "replacement": lambda genes, size=size: np.ones(size),
            "fresh_examples_unbiased": _freshness(experiment, step, progress.train.params),
        }.items():
            drawn = WeighedExamples(experiment.space, seed, plan, norms=norms)
            found[f"{trained}_weights_{name}"] = _over(measure(experiment, progress, drawn), base)
    return found


def _over(found: dict[str, float], base: dict[str, float]) -> dict[str, float]:
    return {**found, "variance_over_uniform": found["gradient_variance"] / base["gradient_variance"]}


@dataclass(frozen=True)
class WeighedExamples(UniformSampler):
    """Uniform paths; examples are drawn independently from a mixture of uniform and of given norms, half each.

    Args:
        norms: Function of genes int32[1, g] to the norm of every training example.
    """

    norms: Callable[[np.ndarray], np.ndarray] = lambda genes: np.ones(1)

    def examples(self, state: SamplerState, step: int) -> Examples:
        norms = self.norms(self.sample(state, step).genes)
        p = 0.5 * norms / norms.sum() + 0.5 / len(norms)
        rows = self.rng(step, Purpose.SAMPLED_EXAMPLES).choice(len(p), self.planned.batch_size, p=p)
        return Examples(rows, (1 / (len(p) * p[rows])).astype(np.float32))


def _freshness(experiment: Experiment, step: TrainStep, params: Params) -> Callable[[np.ndarray], np.ndarray]:
    train = experiment.data.train
    examples, labels = train.read(np.arange(len(train)))
    x = experiment.data.prepared(examples)
    targets = jax.nn.one_hot(labels, experiment.net.classes)
    forward = jax.jit(
        lambda genes, program: jnp.linalg.norm(
            jax.nn.softmax(experiment.net.apply(params, genes, x, program=program)[0]) - targets, axis=-1
        ),
        static_argnames="program",
    )
    return lambda genes: np.asarray(forward(genes[0], experiment.space.program(genes[0])), np.float64)


def _experiment(config: Path, overrides: list[str], sampler: str, settings: JsonObject) -> Experiment:
    section = json.dumps({"type": sampler, **settings})
    return build_experiment(load_config(config, [*overrides, f"sampler={section}"]))


def _trained(experiment: Experiment, step: TrainStep) -> Progress:
    with tempfile.TemporaryDirectory() as scratch, Checkpoints(Path(scratch) / "checkpoints") as checkpoints:
        train(experiment, checkpoints, lambda at: EventLog(Path(scratch), at), StopRequest(), True, step=step)
        return checkpoints.restore(initial(experiment, step))[1]


if __name__ == "__main__":
    main()
