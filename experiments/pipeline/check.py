"""Implementation of `supernest check`: builds an experiment without running it, and describes it."""

from collections.abc import Sequence

import jax
import numpy as np

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.contracts import is_plugin
from experiments.contracts.data import check_source, check_task
from experiments.contracts.families import check_family
from experiments.contracts.samplers import check_sampler
from experiments.contracts.searchers import check_searcher
from experiments.contracts.sharing import check_sharing
from experiments.data.pictures import check_pictures
from experiments.data.text import caches_written_last
from experiments.devices.runtime import runtime_here
from experiments.experiment import Experiment, build_experiment
from experiments.federation.federation import KEY as FEDERATION
from experiments.federation.federation import Federation, check_federation
from experiments.incubation.members import KEY, check_incubation
from experiments.pipeline.demands import check_demands, warnings
from experiments.pipeline.description import (
    DataSizes,
    Description,
    FederationPlan,
    IncubationPlan,
    SearchPlan,
    SpaceCosts,
    SubSupernets,
    TrainedWeights,
    TrainingPlan,
)
from experiments.process.plugin_errors import plugin_errors
from experiments.ranking.proxies import check_predictors, proxies_of
from experiments.ranking.stage import panel_of
from experiments.records import OnDevice
from experiments.searching.with_proxies import search_proxies
from experiments.training.adapters import check_adapters
from experiments.training.batches import BatchMaker
from experiments.training.division import check_division, schedule_of
from experiments.training.evolution_strategy import check_evolution_strategy
from experiments.training.parent import parent_of
from experiments.training.rematerialization import training_net
from experiments.training.stage import train_step
from samplers.sampler import equal_scores
from search_spaces import UserError
from supernet.engine.supernet import weight_bytes
from supernet.engine.superposed import build_superposed
from supernet.layers.passes import Passes
from supernet.sharing.split import SplitSharing
from supernet.standalone import MODULES
from supernet.tasks.task import TASKS


def validate(config: ExperimentConfig, stages: Sequence[str] = ()) -> Experiment:
    """Puts an experiment together, its data included, and checks what its parts can only tell together.

    Args:
        config: The experiment.
        stages: Stages to run.

    Raises:
        UserError: The experiment cannot run as it is.
    """
    with caches_written_last(), plugin_errors(config.plugins, "the experiment was put together"):
        return _validated(config, stages)


def _validated(config: ExperimentConfig, stages: Sequence[str]) -> Experiment:
    experiment = build_experiment(config)
    check_demands(experiment)
    check_evolution_strategy(experiment)
    check_incubation(experiment)
    check_federation(experiment)
    check_adapters(experiment, stages)
    if experiment.config.start is not None:
        experiment.config.start.check(experiment.space)
    parent_of(experiment)
    config.train.optimizer.rate(experiment.steps)  # the warm-up must end, also where the file counts epochs
    sampler = experiment.sampler
    config.train.distillation.check_roles(sampler.sample(sampler.init(), 0, score=equal_scores(sampler)).roles)
    BatchMaker(experiment)  # teachers must be found, and augmentation suit the data
    if config.train.method == "gradient":  # members are dealt out otherwise
        check_division(experiment)
    _check_passes(experiment)
    _check_statistics(experiment)
    panel_of(experiment)
    if "federate" in stages and config.federation is None:
        raise UserError(f"{FEDERATION}: not set. Give the section, with rounds and clients.")
    if "export" in stages and experiment.cost_on_device is not None:
        runtime_here(experiment.cost_on_device.device)  # must be installed where it times the exports
    if config.search.proxies is not None:
        search_proxies(experiment, config.search.proxies)
    if "proxies" in stages:
        check_predictors(experiment)
        proxies_of(experiment, np.array(experiment.space.largest.genes, np.int32))
    if "gradient" in stages:
        if config.train.incubation is not None:
            raise UserError(f"{KEY}: not for gradient search, which trains fresh weights. Leave it out.")
        if config.supernet.parent is not None:
            raise UserError("supernet.parent: not for gradient search, which trains fresh weights. Leave it out.")
        if config.train.method != "gradient":
            raise UserError(
                f"train.method: {config.train.method} is not for gradient search, which trains by backpropagation. Set "
                "gradient."
            )
        build_superposed(experiment.space, experiment.net.sharing, Passes(config.train.precision))
        if config.train.rematerialize is True:
            raise UserError("train.rematerialize: true is not for gradient search, which keeps all. Set auto or false.")
    return experiment


def _check_passes(experiment: Experiment) -> None:
    """Refuses passes that the family does not have, and to cut batches that it normalises as a whole."""
    train, net = experiment.config.train, training_net(experiment)
    if train.accumulate > 1 and net.has_statistics:
        raise UserError(
            f"train.accumulate: {train.accumulate}, but family {experiment.space.family} normalises with its batch, so "
            "that parts of it give something else. Set 1."
        )
    if train.accumulate > train.batch_size:
        raise UserError(
            f"train.accumulate: {train.accumulate} parts of {train.batch_size} rows. Set {train.batch_size} or less."
        )


def _check_statistics(experiment: Experiment) -> None:
    """Refuses batch statistics of a single value: what they normalise is zero, so nothing is learned through it."""
    net, config = experiment.net, experiment.config
    if not net.has_statistics or net.values_per_statistic > 1:
        return
    paths = experiment.sampler.paths_per_step
    why = (
        f"is all that batch statistics of family {experiment.space.family} have here, and its last map has one "
        "position: of one value, normalisation leaves zero"
    )
    if config.train.method == "evolution_strategy":
        _check_groups(config.train.batch_size, config.train.evolution_strategy.groups, why)
    elif _fewest_rows(experiment, paths) < 2:
        parts = paths if config.train.path_batch == "share" else 1
        raise UserError(
            f"train.batch_size: {config.train.batch_size}; one image a path {why}. Set {2 * parts} or more, or larger "
            "images, or smaller strides."
        )
    if min(config.evaluation.calibration_batch_size, len(experiment.data.train)) < 2:
        raise UserError(
            f"evaluation.calibration_batch_size: {config.evaluation.calibration_batch_size}; one image {why}. Set 2 or "
            "more."
        )


def _check_groups(batch_size: int, groups: int, why: str) -> None:
    if batch_size // groups < 2:
        raise UserError(
            f"train.evolution_strategy.groups: {groups} parts of a batch of {batch_size}; one image a member {why}. "
            f"Set train.batch_size {2 * groups} or more, or fewer groups, or larger images, or smaller strides."
        )


def _fewest_rows(experiment: Experiment, paths: int) -> int:
    """Returns the rows of the smallest share of a step with gradients, however many workers there are."""
    ray = experiment.config.ray
    sizes = (1,) if ray is None else ray.sizes
    shares = [share for workers in sizes for share in schedule_of(experiment, workers).shares(paths)]
    return min(share.rows.stop - share.rows.start for share in shares)


def _check_contracts(experiment: Experiment) -> None:
    """Runs the contract of each plug-in that the experiment names; those of Supernest itself are tested."""
    space, net, sampler, searcher = experiment.space, experiment.net, experiment.sampler, experiment.searcher
    with plugin_errors(experiment.config.plugins, "supernest check tried it"):
        source, data = experiment.config.data.build(), experiment.data
        if is_plugin(type(source)):
            check_source(source)
        if is_plugin(type(data), type(data.outputs), TASKS[data.inputs]):
            check_task(data, net)
        if is_plugin(type(net.sharing)):
            check_sharing(net)
        if is_plugin(type(sampler)):
            check_sampler(sampler)
        if is_plugin(type(searcher)):
            check_searcher(searcher)
        written = [MODULES[space.family]] if space.family in MODULES else []
        if is_plugin(type(space), type(net), *written, type(net.sharing)):
            check_family(net)


def describe(config: ExperimentConfig) -> Description:
    """Checks an experiment as `validate` does, and returns what it holds."""
    experiment = validate(config)
    data, space = experiment.data, experiment.space
    check_pictures((data.train, data.validation, data.test))
    _check_contracts(experiment)
    sizes = len(data.train), len(data.validation), len(data.test)
    smallest, largest = (_cost(experiment, end.genes) for end in (space.smallest, space.largest))
    return Description(
        name=config.name,
        data=DataSizes(config.data.source, *sizes, data.describe(), data.examples_text, list(data.notes)),
        device=_device(config),
        space=SpaceCosts(space.family, space.size, space.num_genes, space.programs, smallest, largest),
        train=_training(experiment),
        search=SearchPlan(config.search.type, config.search.evaluations),
        budgets={budget.name: dict(budget.limits) for budget in experiment.budgets},
        warnings=warnings(experiment),
        federation=None if config.federation is None else _federation(experiment),
    )


def _training(experiment: Experiment) -> TrainingPlan:
    train = experiment.config.train
    parts, population = train.incubation, None
    if train.method == "evolution_strategy":
        population = train.evolution_strategy.population
    return TrainingPlan(
        experiment.steps,
        experiment.sampler.paths_per_step,
        bool(training_net(experiment).passes.rematerialize),
        None if parts is None else IncubationPlan(parts.modules, parts.meta_steps, parts.module_steps),
        population,
        _sub_supernets(experiment),
        _trained_weights(experiment),
    )


def _federation(experiment: Experiment) -> FederationPlan:
    federation = Federation(experiment)
    settings = federation.settings
    return FederationPlan(
        settings.rounds,
        settings.local_steps,
        settings.client_choice.number or settings.number,
        {size.name: len(size.clients) for size in federation.sizes},
        {size.name: _cost(experiment, size.architecture.genes) for size in federation.sizes},
    )


def _sub_supernets(experiment: Experiment) -> SubSupernets | None:
    sharing = experiment.net.sharing
    if not isinstance(sharing, SplitSharing):
        return None
    return SubSupernets(sharing.sub_supernets, weight_bytes(experiment.net.shapes))


def _trained_weights(experiment: Experiment) -> TrainedWeights | None:
    """The weights that are trained and the optimiser's state, beside that of all; None where all are trained."""
    names, shapes = experiment.net.sharing.trained, experiment.net.shapes
    if names is None:
        return None
    partly, wholly = train_step(experiment), train_step(experiment, shapes.keys())
    state, whole = (weight_bytes(jax.eval_shape(step.init, shapes).optimizer) for step in (partly, wholly))
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(shapes[name])) for name in shapes}
    return TrainedWeights(sum(sizes[name] for name in names), sum(sizes.values()), state, whole)


def _device(config: ExperimentConfig) -> OnDevice | None:
    if config.device is None:
        return None
    device = config.device.device
    return OnDevice(device.name, config.device.batch_size or next(iter(device.tables)))


def _cost(experiment: Experiment, genes: tuple[int, ...]) -> dict[str, int | float]:
    return {metric: values[0].item() for metric, values in experiment.cost(np.array([genes], np.int32)).items()}
