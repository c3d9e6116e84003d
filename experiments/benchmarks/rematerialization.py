"""Time and memory of computing sublayers again for the backward pass (`train.rematerialize`).

Command: `python -m experiments.benchmarks.rematerialization --family vit --json`

Sizes are those of `stepper`. Steps with and without it run in turn on the same networks; memory is the compiler's
figure for the gradient program of the largest network.
"""

from functools import partial
from statistics import median

import click
import jax
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.stepper import SETTINGS, Stepper, noise
from experiments.benchmarks.timing import alternate, memory_as_in_runs, peak_bytes
from experiments.commands.options import json_option
from search_spaces import SearchSpace, build_space
from search_spaces.sealed_json import JsonObject
from supernet.engine.supernet import build_supernet
from supernet.layers.passes import Passes


@click.command(cls=Benchmark)
@click.option("--family", type=click.Choice(sorted(SETTINGS)), default="vit", show_default=True)
@click.option("--architectures", default=6, show_default=True, help="Number of random architectures to compare.")
@click.option("--rounds", default=5, show_default=True, help="Number of alternating rounds; the median counts.")
@json_option
def main(family: str, architectures: int, rounds: int, as_json: bool) -> None:
    """Runs the benchmark."""
    memory_as_in_runs(family)
    preset, settings, batch = SETTINGS[family]
    space = build_space(family, preset, settings)
    show({"family": family, "batch": batch, **measure(space, batch, architectures, rounds)}, as_json)


def measure(space: SearchSpace, batch: int, architectures: int, rounds: int) -> JsonObject:
    """Measures all figures for one space."""
    nets = [build_supernet(space, passes=Passes(rematerialize=again)) for again in (False, True)]
    params, data = nets[0].init(jax.random.key(0)), noise(space, batch)
    steppers = [Stepper(net, params, data["x"], data["targets"]) for net in nets]
    rows = space.sample(np.random.default_rng(0), architectures)
    pairs = np.array([alternate([partial(stepper, row) for stepper in steppers], rounds) for row in rows])
    ratios = pairs[:, 1] / pairs[:, 0]
    largest = np.array(space.largest.genes, np.int32)
    saved, again = (peak_bytes(stepper.compiled(largest)[1]) for stepper in steppers)
    return {
        "architectures": architectures,
        "saved_ms": 1e3 * median(pairs[:, 0]),
        "again_ms": 1e3 * median(pairs[:, 1]),
        "ratio": median(ratios),
        "spread": np.quantile(ratios, [0.25, 0.75]).tolist(),
        "residual_bytes": nets[0].residual_bytes(batch),
        "peak_bytes_saved": saved,
        "peak_bytes_again": again,
    }


if __name__ == "__main__":
    main()
