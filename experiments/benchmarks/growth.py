"""How a training step's time and its compilation grow with depth, width, choices, batch and paths.

Command: `python -m experiments.benchmarks.growth --json`

A vision transformer of AutoFormer's smallest sizes on images of 32 × 32; one setting changes at a time, the others stay
at `BASE`. Steps are of the largest network, medians, the values of a setting in turn; `compile_seconds` is the
compilation of its gradient program without a cache.
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
@click.option("--setting", "settings", type=click.Choice(list(VALUES)), multiple=True, help="Only these; all if none.")
@click.option("--rounds", default=5, show_default=True, help="Steps of each value.")
@json_option
def main(settings: tuple[str, ...], rounds: int, as_json: bool) -> None:
    """Runs the benchmark."""
    memory_as_in_runs("vit")
    without_cache()
    show({name: measure(name, VALUES[name], BASE, rounds) for name in settings or VALUES}, as_json)


def measure(setting: str, values: tuple[int, ...], base: dict[str, int], rounds: int) -> dict[str, dict[str, float]]:
    """Figures by value of one setting."""
    made = [stepped(**{**base, setting: value}) for value in values]
    taken = alternate([step for step, _ in made], rounds)
    return {
        str(value): {"step_ms": round(1e3 * own, 1), "compile_seconds": round(compiled, 1)}
        for value, own, (_, compiled) in zip(values, taken, made, strict=True)
    }


def stepped(layers: int, width: int, choices: int, batch: int, paths: int) -> tuple[Callable[[], Any], float]:
    """Returns a function that takes a step, and the seconds that its gradient program took to compile.

    Args:
        layers: Of the largest network.
        width: Of its stream; its MLPs are 4 times as wide.
        choices: Values of the MLP's width.
        batch: Images a step.
        paths: Networks a step, each on the whole batch.
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
