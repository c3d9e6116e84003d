"""Growth of a training step's time and compilation with depth, width, choices, batch and paths.

Command: `python -m experiments.benchmarks.growth --json`

The network is a vision transformer with the smallest sizes of AutoFormer on images of 32 x 32. One setting changes at a
time; the others stay at `BASE`. Times are medians of steps of the largest network, with the values of a setting in
turn; `compile_seconds` is the compile time of its gradient program without a cache.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import click
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.stepper import Stepper
from experiments.benchmarks.timing import alternate, memory_as_in_runs, without_cache
from experiments.commands.options import json_option
from search_spaces import build_space

BASE = {"layers": 12, "width": 192, "choices": 2, "batch": 32, "paths": 1}
VALUES = {
    "layers": (6, 12, 24), "width": (96, 192, 384), "choices": (1, 2, 4, 8), "batch": (16, 32, 64), "paths": (1, 2, 4),
}  # fmt: skip
_HEAD = 64


@click.command(cls=Benchmark)
@click.option(
    "--setting",
    "settings",
    type=click.Choice(list(VALUES)),
    multiple=True,
    help="Setting to vary; may be repeated.  [default: all]",
)
@click.option("--rounds", default=5, show_default=True, help="Number of timed steps for each value.")
@json_option
def main(settings: tuple[str, ...], rounds: int, as_json: bool) -> None:
    """Runs the benchmark."""
    memory_as_in_runs("vit")
    without_cache()
    show({name: measure(name, VALUES[name], BASE, rounds) for name in settings or VALUES}, as_json)


def measure(setting: str, values: tuple[int, ...], base: dict[str, int], rounds: int) -> dict[str, dict[str, float]]:
    """Measures the figures for each value of one setting."""
    made = [stepped(**{**base, setting: value}) for value in values]
    taken = alternate([step for step, _ in made], rounds)
    return {
        str(value): {"step_ms": round(1e3 * own, 1), "compile_seconds": round(compiled, 1)}
        for value, own, (_, compiled) in zip(values, taken, made, strict=True)
    }


def stepped(layers: int, width: int, choices: int, batch: int, paths: int) -> tuple[Callable[[], Any], float]:
    """Returns a function that runs a step, and the compile seconds of its gradient program.

    Args:
        layers: Number of layers of the largest network.
        width: Width of its stream; its MLPs are 4 times as wide.
        choices: Number of values of the MLP width.
        batch: Number of images in a step.
        paths: Number of networks in a step, each on the whole batch.
    """
    space = build_space("vit", "autoformer_tiny", {
        "width": [width], "depth": [layers], "heads": [width // _HEAD or 1], "head_dim": min(_HEAD, width),
        "mlp_ratio": [4 - i / choices for i in reversed(range(choices))], "image_size": 32, "patch_size": 4,
        "classes": 10,
    })  # fmt: skip
    stepper = Stepper.on_noise(space, batch)
    genes = np.repeat(np.array([space.largest.genes], np.int32), paths, axis=0)
    compiled, _ = stepper.compiled(genes[0])
    return partial(stepper.paths, genes), compiled


if __name__ == "__main__":
    main()
