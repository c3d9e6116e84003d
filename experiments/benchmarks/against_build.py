"""Compares training steps of this build with those of another checkout: the same weights, batch and genes, in turn.

Command: `python -m experiments.benchmarks.against_build --old PATH --family vit --json`

PATH is a checkout of another commit (`git worktree add PATH COMMIT`). Each build runs in its own process, which waits
while the other one works. Sizes are those of `stepper`; a step is the gradient of one random path and one AdamW update,
fp32. Ratios are this build's time over the other's. The step ratio is the median over architectures of the ratio of
medians; the compile ratio compares the least times, since other work on the machine only adds time.
`step_processor_ratio` compares processor seconds, which other work changes less than wall time. Differences are the
largest over architectures: of losses relative to the loss, and of gradients relative to their norm.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Self

import click
from tqdm import tqdm

from experiments.benchmarks import build_steps
from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from search_spaces.sealed_json import JsonObject

_SIZES = ("mobilenet", "language", "vit")


class _Build:
    """Process that runs training steps of one checkout."""

    def __init__(self, checkout: Path, family: str, architectures: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", build_steps.__file__, family, str(architectures)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )  # fmt: skip
        if self("checkout") != str(checkout):
            raise click.ClickException(f"{checkout} is no checkout of Supernest: {self('checkout')} was imported.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, which ends it

    def __call__(self, request: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([request, *arguments]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise click.ClickException(f"the process of {self._process.args} ended. What it said is above.")
        return json.loads(answer)


@click.command(cls=Benchmark)
@click.option(
    "--old",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Directory of the other checkout.",
)
@click.option("--family", type=click.Choice(_SIZES), default="vit", show_default=True)
@click.option("--architectures", default=8, show_default=True, help="Number of random architectures to compare.")
@click.option(
    "--rounds", default=7, show_default=True, help="Number of timed steps for each build and architecture, in turn."
)
@click.option("--compiles", default=3, show_default=True, help="Number of timed compilations for each build, in turn.")
@json_option
def main(old: Path, family: str, architectures: int, rounds: int, compiles: int, as_json: bool) -> None:
    """Runs the benchmark."""
    here = Path(__file__).resolve().parents[2]
    with _Build(old.resolve(), family, architectures) as before, _Build(here, family, architectures) as now:
        show({"family": family, **measure(before, now, architectures, rounds, compiles)}, as_json)


def measure(old: _Build, new: _Build, architectures: int, rounds: int, compiles: int) -> JsonObject:
    """Measures all figures of two builds."""
    builds, rows = {"old": old, "new": new}, range(architectures)
    with tempfile.TemporaryDirectory() as directory:
        weights, gradients = f"{directory}/weights.npz", {name: f"{directory}/{name}.npz" for name in builds}
        old("init", weights)
        losses: dict[str, float] = {}
        loss_difference = gradient_difference = 0.0
        for row in tqdm(rows, desc="gradients", disable=None):
            for name, build in builds.items():
                losses[name] = build("gradient", weights, row, gradients[name])
            loss_difference = max(loss_difference, abs(losses["new"] - losses["old"]) / losses["old"])
            gradient_difference = max(gradient_difference, build_steps.difference(*gradients.values()))
        ratios, processor_ratios = [], []
        for row in tqdm(rows, desc="steps", disable=None):
            taken = [[build("step", weights, row) for build in builds.values()] for _ in range(rounds + 1)][1:]
            for kind, found in enumerate((ratios, processor_ratios)):
                before, now = (median(step[kind] for step in steps) for steps in zip(*taken, strict=True))
                found.append(now / before)
        taken = [[build("compile", weights, 0) for build in builds.values()] for _ in range(compiles)]
        compiled = dict(zip(builds, map(min, zip(*taken, strict=True)), strict=True))
    return {
        "architectures": architectures,
        "step_ratio": median(ratios),
        "step_ratio_all": [round(ratio, 3) for ratio in ratios],
        "step_processor_ratio": median(processor_ratios),
        "compile_ratio": compiled["new"] / compiled["old"],
        "compile_seconds": compiled["new"],
        "loss_difference": loss_difference,
        "gradient_difference": gradient_difference,
    }


if __name__ == "__main__":
    main()
