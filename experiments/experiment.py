"""Experiment: what a configuration stands for, put together once and shared by all stages."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.data import Dataset, Split
from experiments.devices.device_file import DeviceCost
from experiments.metrics import METRICS, Metric, checked
from experiments.objective import LOSS, Objective, objective_of, search_objective
from experiments.process.freed_memory import choose_arenas
from samplers import Plan, Sampler
from search import CostFunction, ResolvedBudget, Searcher
from search_spaces import Program, SearchSpace, UserError
from search_spaces.randomness import Purpose, stream
from supernet.engine.exits import check_exits
from supernet.engine.supernet import Params, Statistics, Supernet, build_supernet
from supernet.training.evaluation import Evaluator, Scores, calibrate


@dataclass(frozen=True)
class Experiment:
    """The parts of an experiment.

    Attributes:
        config: The validated YAML.
        data: Its data set.
        space: Its search space, with sizes as in the data.
        sampler: Draws the paths of a step.
        searcher: Proposes candidates.
        budgets: In absolute numbers.
    """

    config: ExperimentConfig
    data: Dataset
    space: SearchSpace
    sampler: Sampler
    searcher: Searcher
    budgets: tuple[ResolvedBudget, ...]

    @property
    def cost(self) -> CostFunction:
        """Costs of architectures: those of the space, and on the device where the experiment names one."""
        return self.searcher.costs

    @cached_property
    def cost_on_device(self) -> DeviceCost | None:
        """Costs of architectures on the device that the experiment names, if it does."""
        return _device_cost(self.config, self.space)

    @cached_property
    def net(self) -> Supernet:
        """The supernet."""
        return build_supernet(self.space, self.config.supernet.scheme(self.space))

    @property
    def reference_error(self) -> float:
        """An objective that no network should have: that of the space, or that of guessing."""
        return self.space.reference_error if objective_of(self.data).bounded else self.data.chance

    @property
    def objective(self) -> Objective:
        """Objective of the search: that of its metric, or that of the data."""
        return search_objective(self.config.search.objective, self.data)

    @property
    def worst_objective(self) -> float:
        """An objective of the search that no network should have."""
        return self.reference_error if self.objective.worst is None else self.objective.worst

    @property
    def chance(self) -> float:
        """Objective of the search for guessing."""
        return self.data.chance if self.objective.worst is None else self.objective.worst

    @cached_property
    def scorer(self) -> Callable[..., Scores]:
        """`(params, genes, fraction)` to the scores of candidates of the search."""
        name, examples = self.config.search.objective, self.config.search.objective_examples
        return self.evaluator if name is None else METRICS[name].scorer(self.net, self.data.validation, examples)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Further figures of exported networks: those of the section `evaluation`, and that of the search."""
        names = (*self.config.evaluation.metrics, *filter(None, [self.config.search.objective]))
        return tuple(METRICS[name] for name in dict.fromkeys(names))

    @property
    def steps(self) -> int:
        """Training steps, also where the configuration counts epochs."""
        return self.config.train.total_steps(len(self.data.train))

    @cached_property
    def calibration(self) -> np.ndarray:
        """Batches of training inputs for batch statistics; a fixed draw from the seed."""
        settings = self.config.evaluation
        size = min(settings.calibration_batch_size, len(self.data.train))
        rng = stream(self.config.seed, Purpose.CALIBRATION)
        rows = np.resize(rng.permutation(len(self.data.train)), settings.calibration_batches * size)
        x, _ = self._read(self.data.train, rows)
        return x.reshape(settings.calibration_batches, size, *x.shape[1:])

    @cached_property
    def evaluator(self) -> Evaluator:
        """Scores subnets on the validation split; one for all stages, so that its programs compile once."""
        validation = self.data.validation
        x, labels = self._read(validation, np.arange(len(validation)))
        outputs, batch_size = self.data.outputs, self.config.evaluation.batch_size
        return Evaluator(self.net, x, outputs.encode(labels), batch_size, self.calibration, outputs)

    @cached_property
    def statistics_program(self) -> Callable[..., Statistics | None]:
        """`(params, genes, batches, program=...)` to calibrated batch statistics; compiled once for all exports."""
        net = self.net

        def run(params: Params, genes: jax.Array, batches: jax.Array, program: Program) -> Statistics | None:
            return calibrate(net, params, genes, batches, program)

        return jax.jit(run, static_argnames="program")

    def _read(self, split: Split, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        examples, labels = split.read(rows)
        return np.asarray(self.data.prepared(examples)), labels


def part_count(config: ExperimentConfig, data: Dataset) -> int:
    """Returns the number of parts in which candidates may be evaluated: batches of the split, or examples."""
    if config.search.objective is not None:
        return min(config.search.objective_examples, len(data.validation))
    return -(-len(data.validation) // config.evaluation.batch_size)


def _device_cost(config: ExperimentConfig, space: SearchSpace) -> DeviceCost | None:
    return None if config.device is None else config.device.cost(space)


def _check_ranking(config: ExperimentConfig, data: Dataset) -> None:
    known, given = (data.outputs.figure, LOSS), config.rank.objective
    if given not in (None, *known):
        raise UserError(f"rank.objective: {given!r} is no figure of these data. Set {' or '.join(known)}.")


def _check_metrics(config: ExperimentConfig, data: Dataset) -> None:
    checked(config.evaluation.metrics, data.inputs, "evaluation.metrics")
    if (name := config.search.objective) is not None:
        checked([name], data.inputs, "search.objective")
        try:
            search_objective(name, data)
        except KeyError:
            raise UserError(
                f"search.objective: {name} says of exported networks alone what they reach. Add an Objective that "
                "follows from it to experiments.objective.OBJECTIVES, or leave it out."
            ) from None


def build_experiment(config: ExperimentConfig, data: Dataset | None = None) -> Experiment:
    """Loads the data and puts the parts together.

    Args:
        config: The experiment.
        data: Its data, where they are there already.

    Raises:
        UserError: Parts that cannot work, alone or together.
    """
    choose_arenas(config.space.family)  # before anything that may start threads, which choose theirs
    data = config.data.load(config.seed) if data is None else data
    space = config.space.build(data)
    data = data.fitted(space)
    data.outputs.check(config.train.distillation)
    if config.train.exits:
        check_exits(config.train.exits, build_supernet(space))
    _check_ranking(config, data)
    _check_metrics(config, data)
    cost = _device_cost(config, space)
    budgets = tuple(budget.resolve(space, cost) for budget in config.budgets)
    if cost is not None and config.device is not None:
        cost.check_order((metric for budget in budgets for metric in dict(budget.limits)), config.device.min_tau)
    plan = Plan(config.train.total_steps(len(data.train)), len(data.train), config.train.batch_size)
    return Experiment(
        config,
        data,
        space,
        config.sampler.build(space, config.seed, plan, cost),
        config.search.build(space, budgets, config.seed, part_count(config, data), cost),
        budgets,
    )
