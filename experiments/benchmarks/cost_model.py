"""Speed of the exact cost model: architectures a second on AutoFormer-B (or any preset).

Command: `python -m experiments.benchmarks.cost_model --json`
"""

import time
from statistics import median

import click
import numpy as np

from experiments.benchmarks.output import show
from experiments.commands.options import json_option
from search_spaces import build_space


@click.command()
@click.option("--family", default="vit", show_default=True)
@click.option("--preset", default="autoformer_base", show_default=True)
@click.option("--architectures", default=1_000_000, show_default=True)
@json_option
def main(family: str, preset: str, architectures: int, as_json: bool) -> None:
    """Times the cost model over distinct random architectures, five times."""
    space = build_space(family, preset)
    genes = space.sample(np.random.default_rng(0), architectures)
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        space.cost(genes)
        taken.append(time.perf_counter() - start)
    figures = {
        "family": family,
        "preset": preset,
        "architectures": architectures,
        "architectures_per_second": architectures / median(taken),
        "seconds_median": median(taken),
    }
    show(figures, as_json)


if __name__ == "__main__":
    main()
