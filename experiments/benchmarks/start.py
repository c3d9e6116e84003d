"""Start-up times: imports, the command's help, and the first training step with and without a warm cache.

Command: `python -m experiments.benchmarks.start --family vit --json`

Every figure is measured in a fresh process. `first_step_seconds` begins when the network is built, so it is mostly
compilation; `start_seconds` is the whole process up to the end of that step. The first process of a round starts with
an empty compilation cache, the second with the cache of the first. Sizes are those of `stepper`. Figures are medians.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from statistics import median

import click
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.stepper import SETTINGS, Stepper
from experiments.benchmarks.timing import memory_as_in_runs, seconds
from experiments.commands.options import json_option
from search_spaces import build_space

_CACHE = "JAX_COMPILATION_CACHE_DIR"
_IMPORT = "import time; t = time.perf_counter(); import search_spaces; print(time.perf_counter() - t)"
_STEP = "from experiments.benchmarks.start import first_step; first_step({family!r})"


@click.command(cls=Benchmark)
@click.option("--family", type=click.Choice(sorted(SETTINGS)), default="vit", show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Number of repetitions.")
@json_option
def main(family: str, rounds: int, as_json: bool) -> None:
    """Runs the benchmark."""
    _python(["-c", _IMPORT])  # compiles the sources
    imports = [float(_python(["-c", _IMPORT])) for _ in range(rounds)]
    helps = [seconds(lambda: _python(["-m", "experiments", "--help"])) for _ in range(rounds)]
    steps: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for taken in steps.values():
                found: list[float] = []
                command = ["-c", _STEP.format(family=family)]
                whole = seconds(lambda c=command, f=found, d=cache: f.append(float(_python(c, {_CACHE: d}))))
                taken.append((found[0], whole))
    figures: dict[str, float | str] = {
        "family": family,
        "import_seconds": median(imports),
        "help_seconds": median(helps),
    }
    for name, taken in steps.items():
        figures[f"first_step_seconds_{name}"] = median(first for first, _ in taken)
        figures[f"start_seconds_{name}"] = median(whole for _, whole in taken)
    show(figures, as_json)


def _python(arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    """Returns the last line that a fresh interpreter prints."""
    environment = {**os.environ, **(variables or {})}
    process = subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return process.stdout.splitlines()[-1]


def first_step(family: str) -> None:
    """Prints the duration of the first training step; runs in a separate process."""
    memory_as_in_runs(family)
    preset, settings, batch = SETTINGS[family]
    space = build_space(family, preset, settings)
    stepper = Stepper.on_noise(space, batch)
    genes = space.sample(np.random.default_rng(0), 1)[0]
    print(json.dumps(seconds(lambda: stepper(genes))))


if __name__ == "__main__":
    main()
