"""Times the exact cost model, or compares its costs with those of another checkout.

Command: `python -m experiments.benchmarks.cost_model --json` measures architectures a second on AutoFormer-B (or
another preset). With `--old PATH --architectures 100000` it counts, for every preset that both builds have, the random
architectures whose costs differ. PATH is a checkout of another commit (`git worktree add PATH COMMIT`).
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from search_spaces import FAMILIES, build_space
from search_spaces.sealed_json import JsonObject

_FAMILIES = ("vit", "mobilenet", "language")
# What another build runs: it uses nothing but what all of them have.
_COSTS = """
import sys
from pathlib import Path
import numpy as np
import search_spaces
from search_spaces import build_space
costs = build_space(sys.argv[1], sys.argv[2]).cost(np.load(sys.argv[3]))
np.savez(sys.argv[4], **costs)
print(Path(search_spaces.__file__).resolve().parents[1])
"""


@click.command(cls=Benchmark)
@click.option("--family", default="vit", show_default=True)
@click.option("--preset", default="autoformer_base", show_default=True)
@click.option("--architectures", default=1_000_000, show_default=True)
@click.option(
    "--old",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of another checkout to compare with.  [default: time this one]",
)
@json_option
def main(family: str, preset: str, architectures: int, old: Path | None, as_json: bool) -> None:
    """Times the cost model over distinct random architectures, five times, or compares it with another build's."""
    show(against(old.resolve(), architectures) if old else speed(family, preset, architectures), as_json)


def speed(family: str, preset: str, architectures: int) -> JsonObject:
    """Measures architectures a second."""
    space = build_space(family, preset)
    genes = space.sample(np.random.default_rng(0), architectures)
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        space.cost(genes)
        taken.append(time.perf_counter() - start)
    return {
        "family": family,
        "preset": preset,
        "architectures": architectures,
        "architectures_per_second": architectures / median(taken),
        "seconds_median": median(taken),
    }


def against(old: Path, architectures: int) -> JsonObject:
    """Counts, for each preset, the architectures that differ from another build in a metric that both have."""
    different = {}
    presets = [(family, preset) for family in _FAMILIES for preset in FAMILIES[family].presets]
    with tempfile.TemporaryDirectory() as directory:
        genes, costs = f"{directory}/genes.npy", f"{directory}/costs.npz"
        for family, preset in tqdm(presets, desc="presets", disable=None):
            space = build_space(family, preset)
            drawn = space.sample(np.random.default_rng(0), architectures)
            np.save(genes, drawn)
            command = [sys.executable, "-P", "-c", _COSTS, family, preset, genes, costs]
            environment = {**os.environ, "PYTHONPATH": str(old)}
            told = subprocess.run(
                command, cwd=old, env=environment, stdout=subprocess.PIPE, text=True, check=True
            ).stdout.strip()
            if told != str(old):
                raise click.ClickException(f"{old} is no checkout of Supernest: {told} was imported.")
            now, before = space.cost(drawn), np.load(costs)
            other = np.any([now[metric] != before[metric] for metric in now.keys() & {*before}], axis=0)
            different[f"{family}/{preset}"] = int(other.sum())
    return {"old": old.name, "architectures": architectures, "different": different}


if __name__ == "__main__":
    main()
