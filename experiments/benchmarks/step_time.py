"""Time of a sampled training step, against a step compiled for one architecture and against full-size masks.

Command: `python -m experiments.benchmarks.step_time --family vit --architectures 200 --json`

Sizes: AutoFormer-T at 32x32 pixels with patches of 4 (65 tokens), and OFA-MobileNetV3 at half width on 32x32 and 40x40
pixels. A step is the gradient of one random path and one AdamW update, fp32.
"""

import dataclasses
from functools import partial
from statistics import median
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.stepper import SETTINGS, Stepper, noise
from experiments.benchmarks.timing import alternate, memory_as_in_runs, peak_bytes, seconds, without_cache
from experiments.commands.options import json_option
from search_spaces import Architecture, SearchSpace, build_space
from search_spaces.sealed_json import JsonObject
from supernet.engine.supernet import Supernet, build_supernet

_CHANGED: dict[str, JsonObject] = {"vit": {}, "language": {}, "mobilenet": {"resolution": [32, 40]}, "darts": {}}
"""What is set otherwise than in `stepper.SETTINGS`, by family."""


class _Fixed:
    """Stand-in for a supernet whose forward pass is one of the reference formulations."""

    def __init__(self, net: Supernet, architecture: Architecture | None) -> None:
        self.space, self.sharing = net.space, net.sharing
        self._net, self._architecture = net, architecture

    def apply(self, params: Any, genes: jax.Array, x: jax.Array, *, program: Any) -> tuple[jax.Array, dict]:
        if self._architecture is not None:
            return self._net.apply_sliced(params, self._architecture, x), {}
        return self._net.apply_masked(params, genes, x, program=program), {}

    def apply_members(self, params: Any, genes: jax.Array, x: jax.Array, *, program: Any) -> tuple[jax.Array, ...]:
        return (self.apply(params, genes, x, program=program)[0],)


@click.command(cls=Benchmark)
@click.option("--family", type=click.Choice(sorted(_CHANGED)), default="vit", show_default=True)
@click.option(
    "--architectures", default=200, show_default=True, help="Number of random architectures; each trains one step."
)
@click.option(
    "--compared",
    default=5,
    show_default=True,
    help="Number of architectures to compare with a step compiled for each alone.",
)
@click.option("--rounds", default=3, show_default=True, help="Number of alternating rounds of each comparison.")
@click.option("--batch", default=32, show_default=True)
@json_option
def main(family: str, architectures: int, compared: int, rounds: int, batch: int, as_json: bool) -> None:
    """Runs the benchmark."""
    memory_as_in_runs(family)
    without_cache()
    preset, settings, _ = SETTINGS[family]
    space = build_space(family, preset, {**settings, **_CHANGED[family]})
    show({"family": family, **measure(space, architectures, compared, rounds, batch)}, as_json)


def measure(space: SearchSpace, architectures: int, compared: int, rounds: int, batch: int) -> JsonObject:
    """Measures all figures for one space."""
    net = build_supernet(space)
    params = net.init(jax.random.key(0))
    data = noise(space, batch)
    x, targets = jnp.asarray(data["x"]), jnp.asarray(data["targets"])
    switched = Stepper(net, params, x, targets)
    genes = space.sample(np.random.default_rng(0), architectures)
    programs = sorted({space.program(row) for row in genes})
    firsts = [next(row for row in genes if space.program(row) == program) for program in programs]
    first_calls = [seconds(lambda row=row: switched(row)) for row in firsts]
    taken = [seconds(lambda row=row: switched(row)) for row in tqdm(genes, desc="steps", disable=None)]

    pairs, masked_ratio, macs_ratio = [], [], []
    masked = Stepper(_Fixed(net, None), params, x, targets)  # type: ignore[arg-type]
    largest_macs = space.cost(np.array([space.largest.genes], np.int32))["macs"][0]
    for row in tqdm(genes[:compared], desc="static", disable=None):
        static = Stepper(_Fixed(net, space.architecture(row)), params, x, targets)  # type: ignore[arg-type]
        own, fixed, full = alternate([partial(step, row) for step in (switched, static, masked)], rounds)
        pairs.append(own / fixed)
        masked_ratio.append(own / full)
        macs_ratio.append(space.cost(row[None])["macs"][0] / _full_macs(space, row, largest_macs))
    figures = {
        "batch": batch,
        "architectures": architectures,
        "programs_possible": space.programs,
        "programs_compiled": switched.step.programs_compiled,
        "compile_seconds": sum(first_calls) - len(firsts) * median(taken),
        "step_ms_median": 1e3 * median(taken),
        "ratio_vs_static": median(pairs),
        "ratio_vs_static_all": [round(float(ratio), 3) for ratio in pairs],
        "ratio_vs_masked": median(masked_ratio),
        "macs_ratio_vs_masked": float(median(macs_ratio)),
        "memory_ratio_vs_largest_static": _memory_ratio(net, params, x, targets),
    }
    if space.family == "vit":
        figures["compile_ratio_48_to_12_layers"] = _compile_ratio(space, batch)
    return figures


def _full_macs(space: SearchSpace, row: np.ndarray, largest: int) -> int:
    """Returns the MACs of the masked step: those of the largest subnet at the same resolution."""
    if "resolution" not in space.columns:
        return largest
    full = np.array([space.largest.genes], np.int32)
    full[0, space.columns["resolution"]] = row[space.columns["resolution"]]
    return space.cost(full)["macs"][0]


def _memory_ratio(net: Supernet, params: Any, x: jax.Array, targets: jax.Array) -> float:
    genes = np.array(net.space.largest.genes, np.int32)
    fixed = _Fixed(net, net.space.largest)
    own = Stepper(net, params, x, targets).compiled(genes)[1]
    static = Stepper(fixed, params, x, targets).compiled(genes)[1]  # type: ignore[arg-type]
    return peak_bytes(own) / peak_bytes(static)


def _compile_ratio(space: SearchSpace, batch: int) -> float:
    taken = {12: [], 48: []}
    for _ in range(3):
        for layers, times in taken.items():
            deep = dataclasses.replace(space, depth=(layers - 2, layers - 1, layers))  # type: ignore[call-arg]
            times.append(Stepper.on_noise(deep, batch).compiled(np.array(deep.largest.genes, np.int32))[0])
    return min(taken[48]) / min(taken[12])  # what other work on the machine adds is never negative


if __name__ == "__main__":
    main()
