"""Compares gradient search with evolution on a sandwich-trained supernet, in equal time, at half of the largest MACs.

Command: `python -m experiments.benchmarks.gradient_search --seeds 3 --json`; of language models,
`... --config experiments/benchmarks/panels/gradient_search_text.yaml --set data.path=PATH`.

For each seed, `drnas` (or another relaxation) trains weights and architecture together. The other side gets the same
time: evolution uses a part of it to evaluate candidates, and its supernet is trained with the sandwich rule for as many
steps as fit in the rest. Time is processor time over all cores, which other jobs on the machine hardly change; it
excludes compilation and loading of the data. Both networks are evaluated on the test split, which neither side sees:
with inherited weights, and trained alone from fresh weights, as `supernest rank` trains its panel. The metric is the
accuracy of classes or the perplexity of tokens.
"""

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import ExperimentConfig, load_config
from experiments.experiment import Experiment, build_experiment
from experiments.gradient.stage import gradient_search
from experiments.objective import LOSS, Objective, objective_of
from experiments.process.compilation import use_compilation_cache
from experiments.process.interrupt import StopRequest
from experiments.ranking.training import train_panel
from experiments.records import GradientFigures
from experiments.run_directory import RunDirectory
from experiments.searching.stage import search
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.stage import train, trained_params
from search import Archive, best
from search_spaces.sealed_json import JsonObject
from supernet.engine.supernet import Params

_WARM_STEPS, _SIDES = 24, ("gradient", "evolution")
_CONFIG = Path(__file__).parent / "panels" / "gradient_search.yaml"


@dataclass(frozen=True)
class Network:
    """The best network of a side within the budget; figures are those of the objective for people.

    Attributes:
        genes: Genes int[g] of the network.
        architecture: Its readable form.
        macs: Its multiply-adds.
        validation: Figure on the validation split with inherited weights.
        test: Figure on the test split with inherited weights.
    """

    genes: Int[np.ndarray, " g"]
    architecture: JsonObject
    macs: int
    validation: float
    test: float


@dataclass(frozen=True)
class Side:
    """Result of one side.

    Attributes:
        network: The best network of the side.
        seconds: Processor seconds of its training and search.
        alone: Test figure of the network after training alone.
    """

    network: Network
    seconds: float
    alone: float

    def as_json(self, shown: str) -> JsonObject:
        """Returns the side as JSON; `shown` names the figure."""
        return {
            "seconds": self.seconds, "architecture": self.network.architecture, "macs": self.network.macs,
            f"validation_{shown}_inherited": self.network.validation, f"test_{shown}_inherited": self.network.test,
            f"test_{shown}_alone": self.alone,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Both sides with one seed.

    Attributes:
        sandwich_steps: Training steps of the supernet that evolution searches.
        figures: Figures of the gradient search.
        cpu_seconds: Processor seconds of the whole comparison.
        sides: Result of each side, by name.
    """

    sandwich_steps: int
    figures: GradientFigures
    cpu_seconds: float
    sides: dict[str, Side]

    def as_json(self, shown: str) -> JsonObject:
        """Returns the comparison as JSON; `shown` names the figure."""
        return {
            "sandwich_steps": self.sandwich_steps, "gradient_steps": self.figures.steps,
            "expected_cost_over_budget": self.figures.expected_cost_over_budget,
            "genes_changed_for_budget": self.figures.genes_changed_for_budget, "cpu_seconds": self.cpu_seconds,
            **{name: side.as_json(shown) for name, side in self.sides.items()},
        }  # fmt: skip


@click.command(cls=Benchmark)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=_CONFIG,
    help="Experiment file.  [default: panels/gradient_search.yaml of the benchmarks (digits)]",
)
@click.option("--seeds", default=3, show_default=True)
@click.option("--type", "kind", default="drnas", show_default=True, help="Relaxation of the gradient search.")
@set_option
@json_option
def main(config: Path, seeds: int, kind: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Runs the benchmark."""
    with tempfile.TemporaryDirectory() as scratch:
        use_compilation_cache(Path(scratch) / "cache")
        given = load_config(config, (*overrides, f"gradient.type={kind}"))
        rows = [
            compare(given.model_copy(update={"seed": given.seed + i}), Path(scratch) / str(i))
            for i in tqdm(range(seeds), desc="seeds", disable=None)
        ]
    objective = objective_of(build_experiment(given).data)
    seeds_ = [row.as_json(objective.shown) for row in rows]
    show({"config": config.name, "type": kind, **summarised(rows, objective), "seeds": seeds_}, as_json)


def compare(config: ExperimentConfig, scratch: Path) -> Comparison:
    """Compares both sides with one seed."""
    start = time.process_time()
    few = config.train.optimizer.warmup_steps + _WARM_STEPS
    short = _with_steps(config, few)
    _gradient(short, scratch / "gradient_cold")
    begun, *_ = _gradient(short, scratch / "gradient_warm")
    config = _with_steps(config, config.train.steps or build_experiment(config).steps)
    seconds, by_gradient, figures = _gradient(config, scratch / "gradient")

    _evolution(short, scratch / "evolution_cold")
    started, *_ = _evolution(short, scratch / "evolution_warm")
    longer, *_ = _evolution(_with_steps(config, few + 4 * _WARM_STEPS), scratch / "evolution_longer")
    a_step = max(longer - started, 1e-3) / (4 * _WARM_STEPS)
    # What both sides need to begin is left out; the search of the other side is in its short run.
    searching = _search_seconds(short, scratch)
    fitting = int((seconds - begun - searching) / a_step) + few
    config = _with_steps(config, max(fitting, few))
    used, by_evolution, experiment = _evolution(config, scratch / "evolution")

    judged, found = _on_test(experiment), (by_gradient, by_evolution)
    genes = np.array([network.genes for network in found], np.int32)
    alone = train_panel(judged, genes, scratch / "panel", StopRequest(), quiet=True)
    objective = objective_of(judged.data)
    figures_alone = alone.loss if objective.figure == LOSS else alone.figure
    taken = seconds - begun, used - started + searching
    sides = {
        name: Side(network, spent, objective.value(float(figure)))
        for name, network, spent, figure in zip(_SIDES, found, taken, objective.lower(figures_alone), strict=True)
    }
    assert config.train.steps is not None  # as `_with_steps` sets it
    return Comparison(config.train.steps, figures, time.process_time() - start, sides)


def summarised(rows: Sequence[Comparison], objective: Objective) -> JsonObject:
    """Returns means over seeds, and differences with their spread (the larger standard deviation of the two sides)."""
    figures: dict[str, float | bool] = {}
    for metric, figure in {
        f"test_{objective.shown}_inherited": lambda side: side.network.test,
        f"test_{objective.shown}_alone": lambda side: side.alone,
        "seconds": lambda side: side.seconds,
        "macs": lambda side: side.network.macs,
    }.items():
        values = {name: np.array([figure(row.sides[name]) for row in rows], float) for name in _SIDES}
        for side, of_side in values.items():
            figures[f"{metric}_{side}"] = float(of_side.mean())
        if metric.startswith("test"):
            spread = max(float(np.std(of_side, ddof=1)) if len(rows) > 1 else 0.0 for of_side in values.values())
            difference = float((values["gradient"] - values["evolution"]).mean())
            better = difference if objective.higher else -difference
            figures |= {
                f"{metric}_spread": spread,
                f"{metric}_difference": difference,
                f"{metric}_not_worse_than_the_spread": better >= -spread,
            }
    return figures


def _judged(experiment: Experiment, run: RunDirectory, params: Params) -> Network:
    """Returns the best network of the archive within the budget, and its test figure with inherited weights."""
    archive = Archive.read(run.archive, experiment.space)
    name = experiment.config.gradient.budget
    index = best(archive, next(budget for budget in experiment.budgets if budget.name == name))
    assert index is not None
    genes = archive.genes[index]
    objective = objective_of(experiment.data)
    on_test = objective.of(_on_test(experiment).evaluator(params, genes[None]))
    return Network(
        genes,
        experiment.space.architecture(genes).description,
        int(archive.costs["macs"][index]),
        objective.value(float(archive.errors[index])),
        objective.value(float(on_test[0])),
    )


def _on_test(experiment: Experiment) -> Experiment:
    """Returns the experiment with the test split in place of the validation split."""
    data: Any = experiment.data  # a dataclass, whatever it is of
    return dataclasses.replace(experiment, data=dataclasses.replace(data, validation=data.test))


# ---------------------------------------------------------------- equal seconds


def _gradient(config: ExperimentConfig, path: Path) -> tuple[float, Network, GradientFigures]:
    """Returns the seconds of a gradient search, its network, and the figures of the stage."""
    experiment = build_experiment(config)
    with RunDirectory.create_or_resume(path, config) as run, Checkpoints(run.checkpoints) as checkpoints:
        since = time.process_time()
        figures = gradient_search(experiment, checkpoints, run, StopRequest(), quiet=True)
        seconds = time.process_time() - since
        return seconds, _judged(experiment, run, trained_params(experiment, checkpoints)), figures


def _evolution(config: ExperimentConfig, path: Path) -> tuple[float, Network, Experiment]:
    """Returns the seconds of sandwich training and search, the best network, and the experiment."""
    experiment = build_experiment(config)
    with RunDirectory.create_or_resume(path, config) as run, Checkpoints(run.checkpoints) as checkpoints:
        since = time.process_time()
        train(
            experiment, checkpoints, lambda step: EventLog(run.path, step, main_process=False), StopRequest(), True
        )  # fmt: skip
        params = trained_params(experiment, checkpoints)
        search(experiment, params, run, StopRequest(), quiet=True)
        return time.process_time() - since, _judged(experiment, run, params), experiment


def _search_seconds(config: ExperimentConfig, scratch: Path) -> float:
    """Measures the seconds of a search with compiled programs; the quality of the weights does not matter."""
    experiment = build_experiment(config)
    params = experiment.net.init(jax.random.key(0))
    experiment.evaluator(params, experiment.space.sample(np.random.default_rng(0), 64))
    with RunDirectory.create_or_resume(scratch / "search", config) as run:
        since = time.process_time()
        search(experiment, params, run, StopRequest(), quiet=True)
        return time.process_time() - since


def _with_steps(config: ExperimentConfig, steps: int) -> ExperimentConfig:
    """Returns the experiment with another number of steps, and without evaluation or checkpoints on the way."""
    train = config.train.model_copy(
        update={"steps": steps, "epochs": None, "evaluate_every": steps, "checkpoint_every": steps,
                "diagnose_every": None}
    )  # fmt: skip
    return config.model_copy(update={"train": train})


if __name__ == "__main__":
    main()
