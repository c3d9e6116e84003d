"""Candidates a second by the supernet, against extracting, compiling and evaluating each; and the overhead of a search.

Command: `python -m experiments.benchmarks.evaluation --config experiments/digits.yaml --json`

Both sides score random subnets with fresh weights on the same validation split, in turn in one run; the scores must
agree. The first round, in which the programs of the supernet are compiled, does not count, and no later round may
compile anything. Then the search of the experiment runs twice; its overhead is the share of the second run's time that
is not spent in evaluation.
"""

import dataclasses
import tempfile
import time
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.timing import without_cache
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.process.interrupt import StopRequest
from experiments.run_directory import RunDirectory
from experiments.searching.stage import search
from search_spaces import Genes
from supernet.engine.supernet import Params
from supernet.training.evaluation import Evaluator, Scores, calibrate

_CONFIG = Path(__file__).parents[1] / "digits.yaml"


@click.command(cls=Benchmark)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=_CONFIG,
    help="Experiment file.  [default: experiments/digits.yaml]",
)
@click.option("--rounds", default=5, show_default=True)
@click.option(
    "--candidates", default=64, show_default=True, help="Number of candidates in a round that the supernet evaluates."
)
@click.option(
    "--extracted",
    default=4,
    show_default=True,
    help="Number of these candidates that are also extracted, compiled and evaluated.",
)
@set_option
@json_option
def main(config: Path, rounds: int, candidates: int, extracted: int, overrides: tuple[str, ...], as_json: bool) -> None:
    """Runs the benchmark."""
    without_cache()
    experiment = build_experiment(load_config(config, overrides))
    params = experiment.net.init(jax.random.key(experiment.config.seed))
    space, rng = experiment.space, np.random.default_rng(experiment.config.seed)
    # One candidate of each program is among the first, so that the first round compiles them all.
    first = np.concatenate([space.sample(rng, candidates), _one_a_program(experiment, rng)])
    experiment.evaluator(params, first)
    compiled = experiment.evaluator.programs_compiled
    together, apart = [], []
    for _ in tqdm(range(rounds), desc="rounds", disable=None):
        genes = space.sample(rng, candidates)
        start = time.perf_counter()
        scores = experiment.evaluator(params, genes)
        together.append((time.perf_counter() - start) / candidates)
        start = time.perf_counter()
        alone = [_extract_compile_evaluate(experiment, params, row) for row in genes[:extracted]]
        apart.append((time.perf_counter() - start) / extracted)
        # One example may fall on the other side of a tie.
        np.testing.assert_allclose(alone, scores.figure[:extracted], atol=1.5 / experiment.evaluator.examples)
    figures = {
        "config": config.name,
        "candidates_per_second": 1 / median(together),
        "extracted_per_second": 1 / median(apart),
        "ratio": median(apart) / median(together),
        "spread": [min(apart) / max(together), max(apart) / min(together)],
        "programs": compiled,
        "compiled_after_warm_up": experiment.evaluator.programs_compiled - compiled,
        **_search_overhead(experiment, params),
    }
    show(figures, as_json)


def _one_a_program(experiment: Experiment, rng: np.random.Generator) -> Genes:
    found: dict[Any, np.ndarray] = {}
    while len(found) < experiment.space.programs:
        for row in experiment.space.sample(rng, 64):
            found.setdefault(experiment.space.program(row), row)
    return np.stack(list(found.values()))


def _extract_compile_evaluate(experiment: Experiment, params: Params, genes: np.ndarray) -> float:
    """Returns the accuracy of one subnet that is extracted and compiled for its sizes."""
    net, evaluator = experiment.net, experiment.evaluator
    program = experiment.space.program(genes)
    statistics = _calibrate(net, params, jnp.asarray(genes), evaluator.calibration, program)
    module, _ = net.extract(params, experiment.space.architecture(genes), statistics)
    graph, state = nnx.split(module)

    @jax.jit
    def right(state: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        def of_batch(batch: tuple[jax.Array, jax.Array]) -> jax.Array:
            return jnp.sum(jnp.argmax(nnx.merge(graph, state)(batch[0]), axis=-1) == batch[1])

        return jnp.sum(jax.lax.map(of_batch, (x, labels)))

    return float(right(state, *evaluator.batches)) / evaluator.examples


_calibrate = jax.jit(calibrate, static_argnames=("net", "program"))


class _Stopwatch:
    """Evaluator that sums the seconds of its calls."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator, self.seconds = evaluator, 0.0

    def __call__(self, *arguments: Any) -> Scores:
        start = time.perf_counter()
        scores = self._evaluator(*arguments)
        self.seconds += time.perf_counter() - start
        return scores


class _Timed(Experiment):
    """Experiment whose evaluations are timed."""

    @cached_property
    def evaluator(self) -> _Stopwatch:  # type: ignore[override]
        return _Stopwatch(super().evaluator)


def _search_overhead(experiment: Experiment, params: Params) -> dict[str, float]:
    """Returns the seconds of the second of two searches, and the share of them outside of evaluation."""
    timed = _Timed(**{field.name: getattr(experiment, field.name) for field in dataclasses.fields(experiment)})
    seconds = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("first", "second"):
            timed.evaluator.seconds = 0.0
            with RunDirectory.create_or_resume(Path(scratch) / name, experiment.config) as run:
                start = time.perf_counter()
                search(timed, params, run, StopRequest(), quiet=True)
                seconds = time.perf_counter() - start
    return {
        "search_evaluations": experiment.config.search.evaluations,
        "search_seconds": seconds,
        "search_overhead": 1 - timed.evaluator.seconds / seconds,
    }


if __name__ == "__main__":
    main()
