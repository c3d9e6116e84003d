"""Compares our sampled training step with a PyTorch supernet that slices its weights eagerly, on one CPU in turn.

Command: `python -m experiments.benchmarks.peers --family vit --json` (or another family); needs the extra `bench`.

Both compute the same function of the same weights. This is checked first: logits must agree within 1e-4 of the largest.
A step is the gradient of one random network and an AdamW update, fp32; an evaluation is a network on 8 batches, with
batch norms calibrated on one. The peer runs in its own process, which sleeps while ours works. `gemm_share` is the time
of the step's multiply-adds at the rate of a product of two 2,048 x 2,048 matrices, over the time of the step.
"""

import sys

import click

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.peers.comparison import compare
from experiments.benchmarks.stepper import SETTINGS
from experiments.benchmarks.timing import memory_as_in_runs, without_cache
from experiments.commands.options import json_option


@click.command(cls=Benchmark)
@click.option("--family", type=click.Choice(sorted(SETTINGS)), default="vit", show_default=True)
@click.option("--architectures", default=40, show_default=True, help="Number of random networks; each trains one step.")
@click.option("--evaluated", default=10, show_default=True, help="Number of these networks that are also evaluated.")
@click.option("--python", default=sys.executable, help="Python interpreter that runs the peer.  [default: this one]")
@click.option("--peer", help="Peer to compare with, such as whittle.  [default: the family's own]")
@click.option("--seed", default=0, show_default=True, help="Seed of the random networks.")
@json_option
def main(
    family: str, architectures: int, evaluated: int, python: str, peer: str | None, seed: int, as_json: bool
) -> None:
    """Runs the benchmark."""
    memory_as_in_runs(family)
    without_cache()
    show(compare(family, architectures, evaluated, seed, peer or family, python), as_json)


if __name__ == "__main__":
    main()
