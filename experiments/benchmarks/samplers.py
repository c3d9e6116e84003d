"""Leaderboard of samplers: each trains with the same number of forward-backward passes.

Command: `python -m experiments.benchmarks.samplers --config experiments/benchmarks/panels/digits.yaml --seeds 3 --json`

Each sampler, with its default settings, trains a supernet for each seed. The comparison covers:
    fidelity     tau-b and the other metrics of `supernest rank`, against one panel that is trained once for all;
    accuracy     on the test split, at four shares of the largest subnet's MACs: of a fixed stratified set of
                 candidates, the one with the best validation accuracy within the budget;
    gradients    variance and cosines over further steps of the sampler at its trained weights;
    time         a step, and a pass.
All train with labels only (no distillation), on the same split of the data; `warmup_steps` keeps its share of the
steps. The seed decides weights, batches and draws. Results are saved in --out, so the same command resumes.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from experiments.benchmarks.leaderboard import leaderboard, markdown, text
from experiments.benchmarks.output import Benchmark
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import load_config
from experiments.configuration.search_sections import SamplerSection
from experiments.experiment import Experiment, build_experiment
from experiments.process.compilation import use_compilation_cache
from experiments.process.interrupt import Interrupted, StopRequest, stop_on_signals
from experiments.ranking.fidelity import kendall_tau
from experiments.ranking.panel import choose
from experiments.ranking.stage import compare, panel_of
from experiments.ranking.training import Truth, panel_directory, share, train_panel
from experiments.storage.cached_results import cached, digest
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.gradient_statistics import gradient_statistics
from experiments.training.stage import gradient_step, initial, train
from samplers import SAMPLERS, Plan, Sampler
from samplers.sampler import equal_scores
from search_spaces import Genes, UserError
from search_spaces.sealed_json import JsonObject
from supernet.tasks.distillation import Distillation
from supernet.training.evaluation import Evaluator, Scores

_BUDGETS = (0.25, 0.5, 0.75, 1.0)
_CANDIDATES, _DRAWN_STEPS, _LOOKS, _FORMAT = 64, 48, 100, 1


@click.command(cls=Benchmark)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    required=True,
    help="Experiment file with data, space, training and panel.",
)
@set_option
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1), help="Number of supernets for each sampler."
)
@click.option("--samplers", default=None, help="Samplers to compare, separated by commas.  [default: all]")
@click.option(
    "--passes",
    default=None,
    type=click.IntRange(1),
    help="Number of forward-backward passes.  [default: those of the experiment]",
)
@click.option(
    "--panel", default=None, type=click.IntRange(3), help="Number of architectures in the panel.  [default: rank.panel]"
)
@click.option("--ceiling", is_flag=True, help="Train the panel twice and report how well both trainings agree.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/samplers"), show_default=True)
@json_option
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown tables.")
def main(
    config: Path,
    overrides: Sequence[str],
    seeds: int,
    samplers: str | None,
    passes: int | None,
    panel: int | None,
    ceiling: bool,
    out: Path,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """Trains and compares samplers; results are saved in --out."""
    changes = [*overrides, *([] if panel is None else [f"rank.panel={panel}"])]
    try:
        names = list(SAMPLERS) if samplers is None else samplers.split(",")
        for name in names:
            SAMPLERS[name]
        use_compilation_cache(out / "cache")
        with stop_on_signals() as stop:
            board = _Board(build_experiment(load_config(config, changes)), out, stop)
            figures = board.run(names, seeds, passes or board.passes, ceiling)
    except Interrupted as stopped:
        _say(f"{stopped}. The same command resumes it.")
        raise click.exceptions.Exit(130) from None
    figures = {"config": str(config), **figures}
    click.echo(json.dumps(figures, indent=1) if as_json else markdown(figures) if as_markdown else text(figures))


@dataclass(frozen=True)
class Result:
    """Figures of one sampler and seed.

    Attributes:
        steps: Training steps.
        paths: Mean number of paths in a step.
        panel: Scores of the panel with the supernet's weights.
        metrics: Figures by name.
    """

    steps: int
    paths: float
    panel: Scores
    metrics: dict[str, float]

    @classmethod
    def of(cls, saved: JsonObject) -> "Result":
        """Reads a saved result."""
        return cls(saved["steps"], saved["paths"], Scores(*map(np.array, saved["panel"])), dict(saved["metrics"]))


class _Board:
    """Data, network, panel, candidates and evaluators that all samplers share.

    Args:
        experiment: Experiment of the configuration.
        out: Directory of the results.
        stop: Stop request, read between steps.
    """

    def __init__(self, experiment: Experiment, out: Path, stop: StopRequest) -> None:
        self._base, self._out, self._stop = experiment, out, stop
        self._panel = panel_of(experiment)
        self._candidates = choose(experiment.space, _CANDIDATES, "macs", 8, experiment.config.seed + 1)
        test = experiment.data.test
        examples, labels = test.read(np.arange(len(test)))
        self._test = Evaluator(
            experiment.net, np.asarray(experiment.data.prepared(examples)), labels,
            experiment.config.evaluation.batch_size, experiment.calibration,
        )  # fmt: skip

    @property
    def passes(self) -> int:
        """Number of forward-backward passes of the configured training."""
        return round(self._base.steps * np.mean(_paths(self._base.sampler)))

    def run(self, names: Sequence[str], seeds: int, passes: int, ceiling: bool) -> JsonObject:
        """Measures all samplers; trains those without saved results."""
        truth = self._truth(0)
        results: dict[str, list[Result]] = {}
        refused: dict[str, str] = {}
        for i, name in enumerate(names):
            for seed in range(seeds):
                begun = time.perf_counter()
                try:
                    experiment = self._experiment(name, self._base.config.seed + seed, passes)
                    key = self._key(experiment, passes)
                    home = self._out / "trained" / f"{name}-{seed}-{digest(key)}"
                    result = Result.of(cached(home, key, partial(self._measure, experiment), self._stop))
                except UserError as error:
                    refused[name] = str(error)
                    _say(f"{name}: not measured: {error}")
                    break
                estimates = compare(self._base, result.panel, truth)
                result.metrics.update({metric: estimate.value for metric, estimate in estimates.items()})
                results.setdefault(name, []).append(result)
                _say(
                    f"[{i * seeds + seed + 1}/{len(names) * seeds}] {name}, seed {seed}: tau-b "
                    f"{result.metrics['kendall_tau']:.3f}, {time.perf_counter() - begun:.0f} s"
                )
        rows = {name: [result.metrics for result in found] for name, found in results.items()}
        trained = {name: {"steps": found[0].steps, "paths": found[0].paths} for name, found in results.items()}
        figures = {
            "passes": passes,
            "seeds": seeds,
            "panel": len(self._panel),
            "panel_steps": self._base.config.rank.steps or self._base.steps,
            "panel_accuracy": [float(truth.figure.min()), float(truth.figure.max())],
            "samplers": leaderboard(rows, trained),
            "refused": refused,
        }
        return {**figures, "ceiling": kendall_tau(truth.figure, self._truth(1).figure)} if ceiling else figures

    def _truth(self, repetition: int) -> Truth:
        directory = panel_directory(self._base.config.rank.cache, self._out)
        _say(f"panel of {len(self._panel)} networks, each on its own, in {directory}")
        return train_panel(self._base, self._panel, directory, self._stop, not sys.stderr.isatty(), repetition)

    def _experiment(self, name: str, seed: int, passes: int) -> Experiment:
        """Returns the training of one sampler and seed with as many whole steps as the passes allow."""
        base, settings = self._base, self._base.config.train
        section = SamplerSection.model_validate({"type": name})
        examples = len(base.data.train)
        batch = settings.batch_size
        paths = np.mean(_paths(section.build(base.space, seed, Plan(passes, examples, batch))))
        steps = max(1, round(passes / paths))
        optimizer = settings.optimizer
        warmup = min(steps - 1, round(optimizer.warmup_steps * steps / base.steps))
        train = settings.model_copy(
            update={
                "steps": steps,
                "epochs": None,
                "distillation": Distillation(),
                "optimizer": dataclasses.replace(optimizer, warmup_steps=warmup),
                "evaluate_every": steps,
                "diagnose_every": None,
            }
        )
        config = base.config.model_copy(update={"seed": seed, "sampler": section, "train": train})
        sampler = section.build(base.space, seed, Plan(steps, examples, batch))
        return share(base, dataclasses.replace(base, config=config, sampler=sampler))

    def _key(self, experiment: Experiment, passes: int) -> JsonObject:
        config = experiment.config.as_dict()
        return {
            "format": _FORMAT,
            **{name: config[name] for name in ("seed", "data", "supernet", "sampler", "evaluation")},
            "train": {name: value for name, value in config["train"].items() if not name.endswith("_every")},
            "data_seed": self._base.config.seed,
            "space": experiment.space.fingerprint,
            "passes": passes,
            "panel": self._panel.tolist(),
            "candidates": self._candidates.tolist(),
            "gradient_steps": _DRAWN_STEPS,
        }

    def _measure(self, experiment: Experiment, work: Path) -> JsonObject:
        """Trains one supernet, from a checkpoint in `work` if there is one, and measures it."""
        step, speed = gradient_step(experiment), _Speed(work)
        with Checkpoints(work / "checkpoints", keep_last=1, keep_best=0) as checkpoints:
            train(experiment, checkpoints, lambda done: speed, self._stop, not sys.stderr.isatty(), step=step)
            _, progress = checkpoints.restore(initial(experiment, step))
        state = progress.train
        params = state.evaluation_params
        panel = experiment.evaluator(params, self._panel)
        further = range(experiment.steps - min(_DRAWN_STEPS, experiment.steps), experiment.steps)
        with np.errstate(over="ignore"):
            gradients = gradient_statistics(experiment, step, state.params, progress.sampler, further)
        del gradients["relative_variance"]  # after training the mean gradient, by which it divides, is about 0
        metrics = {**self._at_budgets(experiment, params), **gradients, **speed.milliseconds}
        return {
            "sampler": experiment.config.as_dict()["sampler"],
            "steps": experiment.steps,
            "paths": float(np.mean(_paths(experiment.sampler))),
            "panel": [panel.figure.tolist(), panel.loss.tolist()],
            "metrics": {name: value for name, value in metrics.items() if np.isfinite(value)},
        }

    def _at_budgets(self, experiment: Experiment, params: Any) -> dict[str, float]:
        scores = experiment.evaluator(params, self._candidates)
        chosen = best_within(self._base.space.cost(self._candidates)["macs"], scores, _BUDGETS)
        found: Genes = self._candidates[list(chosen.values())]
        accuracy = self._test(params, found).figure
        return {f"test_{share:.0%}": float(value) for share, value in zip(chosen, accuracy, strict=True)}


class _Speed(EventLog):
    """Event log that writes nothing and records the training speed between entries."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, main_process=False)
        self._intervals: list[tuple[float, float]] = []
        self._last: tuple[int, float] | None = None

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        if "train/examples_per_second" not in values:
            return
        now = time.perf_counter()
        if self._last is not None:
            paths = values["train/path_examples_per_second"] / values["train/examples_per_second"]
            seconds = (now - self._last[1]) / (step - self._last[0])
            self._intervals.append((seconds, seconds / paths))
        self._last = step, now

    @property
    def milliseconds(self) -> dict[str, float]:
        """Returns the median times of a step and of a pass between entries; nothing if there are too few."""
        if not self._intervals:
            return {}
        step, one = (1e3 * median(column) for column in zip(*self._intervals, strict=True))
        return {"ms_per_step": step, "ms_per_pass": one}


def _paths(sampler: Sampler) -> list[int]:
    """Returns the number of paths of each step in the plan of the sampler."""
    score = equal_scores(sampler)
    state, steps = sampler.init(), range(sampler.planned.steps)
    some = [len(sampler.sample(state, step, score=score).roles) for step in steps[:: max(1, len(steps) // _LOOKS)]]
    if len(set(some)) == 1:
        return some
    return [len(sampler.sample(state, step, score=score).roles) for step in steps]


def best_within(macs: np.ndarray, scores: Scores, shares: Sequence[float]) -> dict[float, int]:
    """Returns, for each share of the largest cost, the candidate with the best accuracy (then lowest loss) within it.

    A share that no candidate fits is left out.
    """
    order = np.lexsort((scores.loss, -scores.figure))
    best = {share: next((int(i) for i in order if macs[i] <= share * macs.max()), None) for share in shares}
    return {share: i for share, i in best.items() if i is not None}


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
