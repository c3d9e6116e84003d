"""Compares variants of a federation: learned convolutional compression, slices, and choices of clients and layers.

Command: `python -m experiments.benchmarks.federation --seeds 3 --json`

For each seed and each variant of `experiments/federation.yaml` the rounds run in this process. All variants of a seed
start from the same weights, shards and server examples. Accuracies are measured on the validation split after the last
round: `mean` over clients of the network that each would be sent next; `mean_own` with the classes weighted by the
client's shares; and the accuracy of the server's largest network. Bytes count all weights that were sent.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.federation.stage import Rounds
from experiments.process.interrupt import StopRequest
from experiments.records import RoundFigures
from search_spaces.sealed_json import JsonObject

_DIGITS = Path(__file__).parents[1] / "federation.yaml"
_PREFIX = ("federation.compression={type: prefix}", "federation.server.steps=0")
VARIANTS: Mapping[str, Sequence[str]] = {
    "convolution": (),
    "convolution_published": ("federation.compression={type: convolution, activation: leaky, dilation: weights}",),
    "prefix": _PREFIX,
    "prefix_server_steps": ("federation.compression={type: prefix}",),
    "clients_uniform": (*_PREFIX, "federation.client_choice={type: uniform, number: 3}"),
    "clients_ucb": (*_PREFIX, "federation.client_choice={type: ucb, number: 3}"),
    "clients_ucb_less": (*_PREFIX, "federation.client_choice={type: ucb, number: 3, exploration: 0.1}"),
    "layers_uniform": (*_PREFIX, "federation.layer_choice={type: uniform, number: 1}"),
    "layers_importance": (*_PREFIX, "federation.layer_choice={type: importance, number: 1}"),
}
"""Name to the settings that differ from the experiment's."""


@click.command(cls=Benchmark)
@click.option("--config", type=click.Path(exists=True, path_type=Path), default=_DIGITS, show_default=True)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    help="Override a setting of the experiment, such as federation.rounds=4. May be repeated.",
)
@click.option("--seeds", default=3, show_default=True)
@click.option("--variants", default=",".join(VARIANTS), help="Variants to run, separated by commas.  [default: all]")
@json_option
def main(config: Path, overrides: tuple[str, ...], seeds: int, variants: str, as_json: bool) -> None:
    """Runs the benchmark."""
    names = variants.split(",")
    if unknown := sorted(set(names) - VARIANTS.keys()):
        raise click.BadParameter(f"{', '.join(unknown)}: unknown. Choose from {', '.join(VARIANTS)}.")
    found: dict[str, list[OfRun]] = {name: [] for name in names}
    for seed in range(seeds):
        for name in names:
            found[name].append(measured(config, [*overrides, *VARIANTS[name], f"seed={seed}"]))
            click.echo(f"seed {seed} {name} {found[name][-1]}", err=True)
    show({name: over_seeds(runs) for name, runs in found.items()}, as_json)


@dataclass(frozen=True)
class OfRun:
    """Figures of one federation.

    Attributes:
        accuracies: By name: `mean` and `mean_own` over clients, `server`, one for each size, and `mean` half-way.
        bytes_down: Bytes sent to the clients.
        bytes_up: Bytes sent back.
        asked: Number of rounds in which each client took part.
    """

    accuracies: Mapping[str, float]
    bytes_down: int
    bytes_up: int
    asked: list[int]


def measured(path: Path, overrides: Sequence[str]) -> OfRun:
    """Runs one federation; returns the accuracies after the last round and the bytes of all rounds."""
    experiment = build_experiment(load_config(path, overrides))
    with tempfile.TemporaryDirectory() as nowhere:
        rounds = Rounds(experiment, Path(nowhere), StopRequest())
        clients, progress, told = rounds.here(), rounds.fresh(), list[RoundFigures]()
        for number in range(rounds.federation.settings.rounds):
            progress, figures = rounds.round(progress, number, clients)
            told.append(figures)
    last = told[-1]
    accuracies = {
        "mean": last.mean, "mean_own": last.mean_own, "server": last.server,
        **{f"size_{name}": accuracy for name, accuracy in last.sizes.items()},
        "half_way": told[len(told) // 2 - 1].mean if len(told) > 1 else last.mean,
    }  # fmt: skip
    return OfRun(
        accuracies,
        sum(one.bytes_down for one in told),
        sum(one.bytes_up for one in told),
        np.bincount(np.concatenate([one.asked for one in told])).tolist(),
    )


def over_seeds(runs: Sequence[OfRun]) -> JsonObject:
    """Returns mean, sample deviation and values of each accuracy over seeds; only the values of other figures."""
    return {
        **{key: value for name in runs[0].accuracies for key, value in _accuracy(name, runs).items()},
        "bytes_down": [run.bytes_down for run in runs],
        "bytes_up": [run.bytes_up for run in runs],
        "asked": [run.asked for run in runs],
    }


def _accuracy(name: str, runs: Sequence[OfRun]) -> JsonObject:
    values = [run.accuracies[name] for run in runs]
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {name: values, f"{name}_mean": round(float(np.mean(values)), 4), f"{name}_spread": round(spread, 4)}


if __name__ == "__main__":
    main()
