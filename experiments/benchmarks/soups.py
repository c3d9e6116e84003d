"""Soups of finetuned networks: gain over the best ingredient, and means over several shapes against zero-padding.

Command: `python -m experiments.benchmarks.soups --seeds 3 --json`

For each seed a supernet is trained, and two of its networks are exported and finetuned in several ways. Compared are:
    one shape       the best finetuning by the validation split, the mean of all (uniform) and the greedy soup;
    several shapes  the mean of finetunings of both networks, each entry over the networks that have it, against the
                    same mean with zeros for missing entries; both are cut to each shape.
Gains are differences from the best single finetuning of the shape, mean and standard deviation over seeds, on the
validation split (which selects) and on the test split. Runs are saved in --out, so the same command resumes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import ExperimentConfig, load_config
from experiments.finetuning.settings import Finetuning
from experiments.finetuning.variants import finetune_variants, read_variants
from experiments.pipeline.open_run import open_run
from experiments.pipeline.run import STAGES
from experiments.pipeline.run import run as run_stages
from experiments.process.interrupt import StopRequest, stop_on_signals
from experiments.souping.choice import Members, by_error, greedy
from experiments.souping.held_out import HeldOut
from experiments.souping.ingredients import read_ingredients
from experiments.souping.pot import Mixed, Pot, pot_of
from search_spaces.sealed_json import JsonObject
from supernet.weights.averages import owned_mean

_HERE = Path(__file__).parent
_RATE, _STEPS_SHARE = 1e-3, 4  # a finetuning's learning rate, and the supernet's steps over its own
_OF_EACH = 3  # finetunings of each shape that are averaged over shapes


@dataclass(frozen=True)
class Reached:
    """Figures of a network on both splits: accuracy of classifiers, perplexity of language models.

    Attributes:
        validation: Figure on the validation split.
        test: Figure on the test split.
    """

    validation: float
    test: float


@dataclass(frozen=True)
class OfShape:
    """Networks of one shape.

    Attributes:
        single: Validation figure of each finetuning.
        best: The best finetuning by the validation split.
        uniform: The mean of all finetunings.
        greedy: The greedy soup.
        taken: Ingredients of the greedy soup.
        owned: The mean over several shapes, cut to this one.
        padded: The same mean with zeros for entries that a network does not have.
    """

    single: tuple[float, ...]
    best: Reached
    uniform: Reached
    greedy: Reached
    taken: int
    owned: Reached
    padded: Reached


@click.command(cls=Benchmark)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=_HERE / "panels" / "soups.yaml",
    help="Experiment file.  [default: experiments/benchmarks/panels/soups.yaml (digits)]",
)
@click.option(
    "--variants",
    type=click.Path(path_type=Path),
    default=_HERE / "variants" / "soups.yaml",
    help="List of finetuning variants.  [default: experiments/benchmarks/variants/soups.yaml]",
)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Number of supernets.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/soups"), show_default=True)
@set_option
@json_option
def main(config: Path, variants: Path, seeds: int, out: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Trains, finetunes and averages; runs are saved in --out."""
    with stop_on_signals() as stop:
        rows = [
            measured(load_config(config, (*overrides, f"seed={seed}")), variants, out / str(seed), stop)
            for seed in range(seeds)
        ]
    show({"seeds": seeds, **{name: summary([row[name] for row in rows]) for name in rows[0]}}, as_json)


def measured(config: ExperimentConfig, variants: Path, out: Path, stop: StopRequest) -> dict[str, OfShape]:
    """Trains a supernet, finetunes its exported networks and averages them.

    Returns:
        The measured figures by name of the network.
    """
    with open_run(out, config, STAGES, config.name) as directory:
        run_stages(config, directory, STAGES, quiet=False)
    steps, tuned = max((config.train.steps or 0) // _STEPS_SHARE, 1), {}
    for name in (budget.name for budget in config.budgets):
        base = Finetuning(out / "subnets" / name, out / "tuned" / name, config, config.name, steps, _RATE)
        listed = read_variants(variants, base)
        finetune_variants(listed, stop, quiet=False)
        tuned[name] = [variant.settings.out for variant in listed]
    return compared(config, tuned)


def compared(config: ExperimentConfig, tuned: Mapping[str, Sequence[Path]]) -> dict[str, OfShape]:
    """Measures soups of finetuned networks by the name of their shape."""
    ingredients = read_ingredients([path for paths in tuned.values() for path in paths])
    pot = pot_of(config, ingredients, config.data.load(config.seed), config.name)
    test = HeldOut(dataclasses.replace(pot.experiment, data=_tested(pot)))
    numbers = {name: [i for i, one in enumerate(ingredients) if one.path in paths] for name, paths in tuned.items()}
    together = tuple(number for of_shape in numbers.values() for number in of_shape[:_OF_EACH])
    owned, padded = pot.mean(together), _padded(pot, together)

    def reached(network: Mixed) -> Reached:
        value = pot.held_out.objective.value
        return Reached(
            value(pot.error(network)), value(test.error(network.params, network.architecture, network.statistics))
        )

    def soup(members: Members) -> Reached:
        (network,) = pot.networks(members).values()
        return reached(network)

    found = {}
    for name, own in numbers.items():
        errors = [pot.errors[number] for number in own]
        chosen = greedy(errors, lambda some, own=own: _error(pot, tuple(own[number] for number in some)))
        best, architecture = own[by_error(errors)[0]], pot.alone(own[0]).architecture
        found[name] = OfShape(
            single=tuple(pot.held_out.objective.value(error) for error in errors),
            best=soup((best,)),
            uniform=soup(tuple(own)),
            greedy=soup(tuple(own[number] for number in chosen)),
            taken=len(chosen),
            owned=reached(pot.cut(owned, architecture)),
            padded=reached(pot.cut(padded, architecture)),
        )
    return found


def _error(pot: Pot, members: Members) -> float:
    return next(iter(pot.errors_of(members).values()))


def _tested(pot: Pot) -> Any:
    """Returns the data with the test split in place of the validation split."""
    data: Any = pot.experiment.data
    return dataclasses.replace(data, validation=data.test)


def _padded(pot: Pot, members: Members) -> Any:
    """Returns the mean in which missing entries of a network count as zeros."""
    placed = [pot.placed(number)[0] for number in members]
    everything = jax.tree.map(lambda leaf: np.broadcast_to(True, leaf.shape), placed[0])
    return owned_mean(((weights, everything) for weights in placed), placed[0])


def summary(rows: Sequence[OfShape]) -> JsonObject:
    """Summarises one shape: figures by seed, and gains over the best finetuning as mean and deviation over seeds."""
    figures: dict[str, list[float]] = {}
    for split in ("validation", "test"):
        for kind in ("best", "uniform", "greedy", "owned", "padded"):
            values = np.array([getattr(getattr(row, kind), split) for row in rows])
            figures[f"{kind}, {split}"] = values.round(4).tolist()
            if kind != "best":
                gains = values - [getattr(row.best, split) for row in rows]
                deviation = float(gains.std(ddof=1)) if len(gains) > 1 else 0.0
                figures[f"{kind}, gain, {split}"] = [round(float(gains.mean()), 4), round(deviation, 4)]
    return {
        "singles, mean": [round(float(np.mean(row.single)), 4) for row in rows],
        "singles, worst": [round(min(row.single), 4) for row in rows],
        "ingredients of greedy": [row.taken for row in rows],
        **figures,
    }


if __name__ == "__main__":
    main()
