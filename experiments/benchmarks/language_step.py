"""Times steps of an elastic language model, one random network a step; alone, or in turn with a PyTorch peer.

Command: `python -m experiments.benchmarks.language_step --json`

8 layers, width 256, 8 heads, MLP 1024, vocabulary 512, 128 tokens, batch 16, AdamW, fp32; width in 128, 192, 256, heads
in 4, 6, 8, MLP in 512, 768, 1024, layers in 4, 6, 8, the same in all layers. `--peer language` compares with eager
slicing in PyTorch, `--peer whittle --python PATH` with whittle (see `peers/whittle.py` for its installation).
"""

import sys

import click

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.peers.comparison import compare
from experiments.benchmarks.timing import memory_as_in_runs, without_cache
from experiments.commands.options import json_option


@click.command(cls=Benchmark)
@click.option("--steps", default=60, show_default=True)
@click.option(
    "--peer",
    type=click.Choice(["language", "whittle"]),
    help="PyTorch implementation to time in turn with ours.  [default: none]",
)
@click.option("--python", default=sys.executable, help="Python interpreter that runs the peer.  [default: this one]")
@json_option
def main(steps: int, peer: str | None, python: str, as_json: bool) -> None:
    """Runs the benchmark."""
    memory_as_in_runs("language")
    without_cache()
    show(compare("language", steps, 10, 0, peer, python), as_json)


if __name__ == "__main__":
    main()
