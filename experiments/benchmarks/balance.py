"""Computes how evenly samplers load workers: expected mean work ÷ work of the slowest, for 2 to 1,024 workers.

Command: `python -m experiments.benchmarks.balance --json`

A worker trains one or several paths a step on all of its rows. Work is counted in exact MACs; nothing is trained.
"""

import click
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.training.schedule import Schedule, balance
from samplers import SAMPLERS, Sampler
from search_spaces import SearchSpace, build_space
from search_spaces.sealed_json import JsonObject

_SPACES = {
    "autoformer_tiny": ("vit", {"image_size": 224, "patch_size": 16, "classes": 1000}),
    "autoformer_base": ("vit", {"image_size": 224, "patch_size": 16, "classes": 1000}),
    "ofa_mbv3": ("mobilenet", {"classes": 1000}),
}
_FIXED = {"uniform": 0, "sandwich": 2, "complexity_aware": 1}
"""Paths of a step that are not random."""


@click.command(cls=Benchmark)
@click.option("--steps", default=100, show_default=True, help="Number of steps to average over.")
@click.option(
    "--most", default=1024, show_default=True, help="Largest number of workers; each power of two up to it is computed."
)
@click.option("--paths", default=1, show_default=True, help="Number of paths for each worker.")
@json_option
def main(steps: int, most: int, paths: int, as_json: bool) -> None:
    """Runs the benchmark."""
    sizes = [2**i for i in range(1, most.bit_length())]
    figures: dict[str, float] = {}
    for preset, (family, settings) in tqdm(_SPACES.items(), disable=as_json or None):
        space = build_space(family, preset, settings)
        for name in _FIXED:
            for workers in sizes:
                key = f"{preset} {name} {workers}"
                figures[key] = expected(sampler_of(name, space, workers * paths), workers, steps)
    show(figures, as_json)


def sampler_of(name: str, space: SearchSpace, paths: int) -> Sampler:
    """Returns a sampler that draws this number of paths a step, including its fixed ones."""
    settings: JsonObject = {"paths" if name == "uniform" else "random_paths": paths - _FIXED[name]}
    return SAMPLERS[name](space, 0, **settings)


def expected(sampler: Sampler, workers: int, steps: int) -> float:
    """Returns the mean over steps of the figure that TensorBoard shows as `workers/balance`."""
    schedule = Schedule(workers, rows=workers)
    found = []
    for step in range(steps):
        costs = sampler.space.cost(sampler.sample(sampler.init(), step).genes)["macs"]
        found.append(balance(costs, schedule.dealt(costs)))
    return float(np.mean(found))


if __name__ == "__main__":
    main()
