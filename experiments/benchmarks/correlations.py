"""Times Kendall's tau in a bootstrap: our comparison of all pairs, used for few architectures, against SciPy's.

Command: `python -m experiments.benchmarks.correlations --json`

Both run in turn; times are processor microseconds for a call.
"""

import time
from collections.abc import Callable
from statistics import median

import click
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.ranking.fidelity import tau_of_pairs, tau_of_scipy
from search_spaces.sealed_json import JsonObject

_CALLS = 5


@click.command(cls=Benchmark)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    default=(24, 100, 200, 500),
    show_default=True,
    help="Number of architectures. May be repeated.",
)
@click.option("--rounds", default=40, show_default=True, help="Number of alternating rounds; the median counts.")
@json_option
def main(sizes: tuple[int, ...], rounds: int, as_json: bool) -> None:
    """Runs the benchmark."""
    show({str(size): measure(size, rounds) for size in sizes}, as_json)


def measure(size: int, rounds: int) -> JsonObject:
    """Measures the figures for one number of architectures."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, size))
    both = [
        (_microseconds(lambda: tau_of_pairs(a, b)), _microseconds(lambda: tau_of_scipy(a, b))) for _ in range(rounds)
    ]
    pairs, scipy = (median(times) for times in zip(*both, strict=True))
    return {"pairs_us": pairs, "scipy_us": scipy, "ratio": scipy / pairs}


def _microseconds(call: Callable[[], float]) -> float:
    start = time.process_time()
    for _ in range(_CALLS):
        call()
    return 1e6 * (time.process_time() - start) / _CALLS


if __name__ == "__main__":
    main()
