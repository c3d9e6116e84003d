"""Ensembles of two networks that share first layers against single networks, and diverse against random paths.

Command: `python -m experiments.benchmarks.ensembles --seeds 3 --json`, with `fashion_mnist/` below `$SUPERNEST_DATA`.

For each seed three supernets of ensembles of one or two vision transformers are trained, by as many passes on the same
batches: by diverse paths, by random ones (one candidate), and by diverse paths over values that shrink to two a gene.
Of each, random subnets of one and of two members whose multiply-adds are within a tenth below one budget are compared
by validation error, and of the best of both kinds the test accuracy is taken:
    inherited     with the supernet's weights;
    alone         trained from nothing, by as many steps of one pass (of the diverse and the random supernet's picks).
Of pairs, further: `members`, mean test accuracy of their members, with inherited weights; `disagreement`, share of the
test images to which two members give different classes, and `drawn`, both over random pairs of the budget.
Seconds are of the processor. `--out` keeps the figures of each seed; the same command goes on.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.benchmarks.incubation import Clock
from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.real_data import real_data
from experiments.benchmarks.split import summary
from experiments.commands.options import json_option, set_option
from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.objective import objective_of
from experiments.process.interrupt import StopRequest
from experiments.ranking.training import share
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.one_path import OnePath, one_path_probe
from experiments.training.stage import train, train_step, trained_params
from samplers import Sampler
from samplers.diverse import DiverseSampler
from search_spaces import Genes, UserError
from search_spaces.ensemble import MEMBERS, Ensemble
from search_spaces.randomness import Purpose, stream
from supernet.engine.embedding import embed
from supernet.engine.randomness import key
from supernet.engine.supernet import Params

_CONFIG = Path(__file__).parent / "panels" / "ensembles_fashion_mnist.yaml"
_ARMS: dict[str, dict[str, Any]] = {
    "diverse": {},
    "random": {"candidates": 1},
    "diverse, shrinking": {"keep": 2},
}
_WITHIN = 0.1  # below the budget
_DRAWN = 200_000
_PAIRS = 4  # of which disagreement is the mean


@click.command(cls=Benchmark)
@click.option("--directory", type=click.Path(path_type=Path), help="Of the data.  [default: $SUPERNEST_DATA]")
@click.option("--seeds", default=3, show_default=True)
@click.option("--budget", default=0.7, show_default=True, help="Multiply-adds, of those of the largest single network.")
@click.option(
    "--candidates", default=24, show_default=True, help="Subnets of each number of members that are compared."
)
@click.option("--out", type=click.Path(path_type=Path), help="File that keeps the figures, a line a seed; continued.")
@set_option
@json_option
def main(
    directory: Path | None, seeds: int, budget: float, candidates: int, out: Path | None, overrides: Sequence[str],
    as_json: bool,
) -> None:  # fmt: skip
    """Runs the benchmark."""
    place = real_data(directory) / "fashion_mnist"
    kept = [json.loads(line) for line in out.read_text().splitlines()] if out is not None and out.exists() else []
    for seed in range(len(kept), seeds):
        config = load_config(_CONFIG, [f"data.path={place}", f"seed={seed}", *overrides])
        kept.append(Comparison(build_experiment(config), budget).measured(candidates))
        if out is not None:
            with out.open("a") as file:
                file.write(json.dumps(kept[-1]) + "\n")
    figures = {f"seed_{seed}": found for seed, found in enumerate(kept[:seeds])}
    show({**figures, "mean (deviation)": summary(kept[:seeds])}, as_json)


class Comparison:
    """Trainings of one seed.

    Args:
        experiment: The experiment of ensembles.
        budget: Most multiply-adds, as a share of the largest single network's.
    """

    def __init__(self, experiment: Experiment, budget: float) -> None:
        if not isinstance(experiment.space, Ensemble):
            raise UserError(f"space.family: {experiment.space.family} has no ensembles. Choose vit_ensemble or so.")
        self._experiment, self._space = experiment, experiment.space
        base = self._space.base
        self._budget = budget * float(base.cost(base.extremes)["macs"][1])
        self._step = train_step(experiment)
        self._objective = objective_of(experiment.data)
        tested = dataclasses.replace(experiment.data, validation=experiment.data.test)  # type: ignore[type-var]
        self._test = dataclasses.replace(experiment, data=tested)
        vars(self._test).update(net=experiment.net, calibration=experiment.calibration)

    def measured(self, candidates: int) -> dict[str, Any]:
        """Figures of one seed."""
        clock, found = time.process_time(), {}
        panel = {count: self._within(count, candidates) for count in self._space.members}
        for arm, settings in _ARMS.items():
            experiment = self._experiment
            assert isinstance(experiment.sampler, DiverseSampler)
            params = self._supernet(dataclasses.replace(experiment.sampler, **settings))
            found[arm] = self._arm(params, panel, alone="keep" not in settings)
        found["seconds"] = round(time.process_time() - clock, 1)
        return found

    def _within(self, count: int, candidates: int) -> Genes:
        """Different subnets of so many members that use the budget."""
        rng = stream(self._experiment.config.seed, Purpose.PANEL, count)
        genes = self._space.sample(rng, _DRAWN)
        macs = self._space.cost(genes)["macs"]
        of_count = np.array(self._space.members)[genes[:, self._space.column(MEMBERS)]] == count
        there = of_count & (macs <= self._budget) & (macs > (1 - _WITHIN) * self._budget)
        unique = np.unique(genes[there], axis=0)
        if len(unique) < candidates:
            raise UserError(
                f"--candidates: {candidates}, but {len(unique)} subnets of {count} members were found that cost the "
                "budget. Give fewer, or another --budget."
            )
        return unique[np.sort(rng.permutation(len(unique))[:candidates])]

    def _arm(self, params: Params, panel: dict[int, Genes], alone: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for count, genes in panel.items():
            errors = self._objective.of(self._experiment.evaluator(params, genes))
            best = genes[int(np.nanargmin(errors))]
            of: dict[str, Any] = {
                "macs": int(self._space.cost(best[None])["macs"][0]),
                "inherited": self._tested(params, best),
                "mean of the candidates": round(float(1 - errors.mean()), 4),
            }
            if alone:
                of["alone"] = self._tested(self._alone(best), best)
            if count > 1:
                predictions = self._predictions(params, best)
                of |= {"members": self._right(predictions), "disagreement": self._disagreement(predictions)}
                drawn = [self._disagreement(self._predictions(params, row)) for row in genes[:_PAIRS]]
                of["drawn"] = round(float(np.mean(drawn)), 4)
            found[f"{count} members"] = of
        return found

    def _tested(self, params: Params, genes: np.ndarray) -> float:
        return round(float(self._test.evaluator(params, genes[None]).figure[0]), 4)

    def _predictions(self, params: Params, genes: np.ndarray) -> np.ndarray:
        """Classes that each member of an ensemble gives the test images: int[m, n]."""
        program, (batches, _) = self._space.program(genes), self._test.evaluator.batches
        each = [self._members(params, jnp.asarray(genes), x, program=program) for x in batches]
        return np.asarray(jnp.concatenate([jnp.stack(of).argmax(axis=-1) for of in each], axis=1))

    @cached_property
    def _members(self) -> Any:
        return jax.jit(self._experiment.net.apply_members, static_argnames="program")

    def _right(self, predictions: np.ndarray) -> float:
        _, labels = self._test.evaluator.batches
        return round(float((predictions == np.asarray(labels).reshape(-1)).mean()), 4)

    @staticmethod
    def _disagreement(predictions: np.ndarray) -> float:
        return round(float((predictions[0] != predictions[1]).mean()), 4)

    # ---------------------------------------------------------------- trainings

    def _supernet(self, sampler: Sampler) -> Params:
        """The weights that a sampler's paths train."""
        experiment = self._experiment
        start = experiment.net.init(key(experiment.config.seed, Purpose.WEIGHTS))
        member = share(experiment, dataclasses.replace(experiment, sampler=sampler))
        return self._trained(member, start, np.array(self._space.largest.genes, np.int32))

    def _alone(self, genes: np.ndarray) -> Params:
        """The weights of one subnet that is trained from nothing."""
        experiment, seed = self._experiment, self._experiment.config.seed
        architecture = self._space.architecture(genes)
        module = experiment.net.module(architecture, nnx.Rngs(key(seed, Purpose.PANEL_WEIGHTS)))
        start = embed(experiment.net, nnx.to_pure_dict(nnx.state(module)), architecture)
        sampler = OnePath(self._space, seed, genes=tuple(int(gene) for gene in genes))
        return self._trained(share(experiment, dataclasses.replace(experiment, sampler=sampler)), start, genes)

    def _trained(self, member: Experiment, start: Params, probed: np.ndarray) -> Params:
        settings = member.config.train.model_copy(update={"evaluate_every": member.steps})
        member = share(member, dataclasses.replace(member, config=member.config.model_copy(update={"train": settings})))
        with tempfile.TemporaryDirectory() as home, Checkpoints(Path(home), 1, 0) as checkpoints:
            train(
                member, checkpoints, lambda done: EventLog(Path(home), done, main_process=False), StopRequest(), True,
                start, self._step, bar=Clock(), probe=one_path_probe(member, probed),
            )  # fmt: skip
            return trained_params(member, checkpoints, self._step)


if __name__ == "__main__":
    main()
