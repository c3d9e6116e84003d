"""Training by an evolution strategy: its step, and what it refuses."""

import numpy as np

from experiments.experiment import Experiment
from search_spaces import UserError
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key
from supernet.engine.supernet import Supernet, build_supernet
from supernet.evolution_strategy.fitness import check_fitness
from supernet.evolution_strategy.step import EvolutionStep
from supernet.layers.passes import Passes


def check_evolution_strategy(experiment: Experiment) -> None:
    """Refuses settings that need gradients or that the strategy has no use for, and matrices that it cannot perturb.

    Raises:
        UserError: There is one.
    """
    train, sampler = experiment.config.train, experiment.config.sampler.type
    if train.method != "evolution_strategy":
        return
    none = "train.method: evolution_strategy has no gradients"
    if "gene_norms" in experiment.sampler.needs:
        raise UserError(
            f"sampler.type: {sampler} learns from the gradients of weights. {none}. Set sandwich or uniform."
        )
    refused = {
        "distillation": (train.distillation.type != "none", f"{none} for a teacher to shape. Set type to none."),
        "incubation": (train.incubation is not None, f"{none}, by which modules are trained. Set null."),
        "rematerialize": (train.rematerialize is True, f"{none}, so that nothing is kept. Set auto or false."),
        "accumulate": (
            train.accumulate > 1, "is for gradients. Set 1, and train.evolution_strategy.chunk for less memory.",
        ),
        "path_batch": (
            train.path_batch != "whole",
            "share is for gradients. Set whole, and train.evolution_strategy.groups for parts of the batch.",
        ),
    }  # fmt: skip
    for name, (bad, text) in refused.items():
        if bad:
            raise UserError(f"train.{name}: {text}")
    ray, settings = experiment.config.ray, train.evolution_strategy
    if ray is not None and ray.storage is not None:
        raise UserError("ray.storage: the checkpoints of evolution_strategy lie in the run directory. Set null.")
    if train.batch_size % settings.groups:
        raise UserError(
            f"train.evolution_strategy.groups: {settings.groups} do not divide train.batch_size {train.batch_size}. "
            "Set a divisor of it."
        )
    check_fitness(settings.fitness, experiment.data.outputs)
    _costs(experiment, experiment.space.extremes)  # the metric must be known, also where the exponent is 0
    net, largest = _net(experiment), np.array(experiment.space.largest.genes, np.int32)
    example = net.example(experiment.space.largest)
    shape = np.zeros((1, *example.shape), example.dtype)
    evolution_step(experiment).population.perturbed(experiment.space.program(largest), shape)


def evolution_step(experiment: Experiment) -> EvolutionStep:
    """The step that the configuration asks for."""
    config, settings = experiment.config, experiment.config.train
    exponent = settings.evolution_strategy.cost_exponent

    def penalty(genes: np.ndarray) -> np.ndarray:
        costs = _costs(experiment, np.concatenate([genes, [experiment.space.largest.genes]]))
        return (costs[:-1] / costs[-1]) ** -exponent

    return EvolutionStep(
        _net(experiment), settings.evolution_strategy, settings.optimizer.build(experiment.steps),
        key(config.seed, Purpose.PERTURBATIONS), settings.ema, experiment.data.outputs, penalty if exponent else None,
    )  # fmt: skip


def _net(experiment: Experiment) -> Supernet:
    passes, net = Passes(experiment.config.train.precision), experiment.net
    return net if passes == net.passes else build_supernet(net.space, experiment.config.supernet.sharing, passes)


def _costs(experiment: Experiment, genes: np.ndarray) -> np.ndarray:
    metric = experiment.config.train.evolution_strategy.cost_metric
    found = experiment.cost(np.asarray(genes, np.int32))
    if metric not in found:
        raise UserError(
            f"train.evolution_strategy.cost_metric: {metric!r} is not known. Set one of {', '.join(sorted(found))}."
        )
    return np.asarray(found[metric], np.float64)
