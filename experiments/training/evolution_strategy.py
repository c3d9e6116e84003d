"""Training by an evolution strategy: its step, and what it refuses."""

from math import prod

import numpy as np

from experiments.experiment import Experiment
from search_spaces import UserError
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key
from supernet.engine.supernet import Supernet, build_supernet
from supernet.evolution_strategy.fitness import check_fitness
from supernet.evolution_strategy.perturbed import PerturbedPass
from supernet.evolution_strategy.step import EvolutionStep
from supernet.evolution_strategy.votes import accumulated_votes
from supernet.layers.integers import EXACT, LARGEST, MOST_CLASSES, MOST_LOSSES
from supernet.layers.passes import Passes


def check_evolution_strategy(experiment: Experiment) -> None:
    """Refuses settings that need gradients or that the strategy has no use for, and matrices that it cannot perturb.

    Raises:
        UserError: There is one.
    """
    train, sampler = experiment.config.train, experiment.config.sampler.type
    if train.method != "evolution_strategy":
        refuse_integer_weights(experiment.net, "train.method: gradient")
        if train.optimizer.type == "votes":
            train.optimizer.build(experiment.steps)  # which refuses them
        return
    none = "train.method: evolution_strategy has no gradients"
    if "gene_norms" in experiment.sampler.needs:
        raise UserError(
            f"sampler.type: {sampler} learns from the gradients of weights. {none}. Set sandwich or uniform."
        )
    refused = {
        "distillation": (train.distillation.type != "none", f"{none} for a teacher to shape. Set type to none."),
        "exits": (bool(train.exits), f"{none} to combine. Set []."),
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
    if settings.fitness == "integer_loss":
        _check_integer_loss(experiment)
    _costs(experiment, experiment.space.extremes)  # the metric must be known, also where the exponent is 0
    net, largest = _net(experiment), np.array(experiment.space.largest.genes, np.int32)
    example = net.example(experiment.space.largest)
    shape = np.zeros((1, *example.shape), example.dtype)
    passes = evolution_step(experiment).population.perturbed(experiment.space.program(largest), shape)
    if net.has_integer_weights:
        _check_integers(experiment, passes)


def evolution_step(experiment: Experiment) -> EvolutionStep:
    """Builds the configured step."""
    config, settings, net = experiment.config, experiment.config.train, _net(experiment)
    exponent = settings.evolution_strategy.cost_exponent
    if net.has_integer_weights and settings.optimizer.type == "votes":
        voters = settings.evolution_strategy.population // 2 * experiment.sampler.paths_per_step
        optimizer = accumulated_votes(settings.optimizer.rate(experiment.steps), voters**0.5)
    elif net.has_integer_weights:
        raise UserError(
            f"train.optimizer.type: {settings.optimizer.type} moves weights by fractions, and those of family "
            f"{net.space.family} are int8. Set votes."
        )
    else:
        optimizer = settings.optimizer.build(experiment.steps)

    def penalty(genes: np.ndarray) -> np.ndarray:
        costs = _costs(experiment, np.concatenate([genes, [experiment.space.largest.genes]]))
        return (costs[:-1] / costs[-1]) ** -exponent

    return EvolutionStep(
        net, settings.evolution_strategy, optimizer,
        key(config.seed, Purpose.PERTURBATIONS), settings.ema,
        experiment.data.training_outputs(settings.label_smoothing), penalty if exponent else None,
    )  # fmt: skip


def refuse_integer_weights(net: Supernet, what: str) -> None:
    """Refuses to train by gradients what has none.

    Args:
        net: Network to train.
        what: Where that is asked for, and what.

    Raises:
        UserError: The weights are whole numbers.
    """
    if net.has_integer_weights:
        raise UserError(
            f"{what} cannot train family {net.space.family}, whose weights are int8 and have no gradients. Set "
            "train.method to evolution_strategy, and train with `run` or `train`."
        )


def _check_integer_loss(experiment: Experiment) -> None:
    """Refuses the loss by integers where outputs are none, and where its sums may leave int32.

    Raises:
        UserError: Outputs are not integers, or the sums may leave int32.
    """
    net, train, key = experiment.net, experiment.config.train, "train.evolution_strategy.fitness"
    example = net.example(net.space.largest)
    if not net.has_integer_weights or not np.issubdtype(example.dtype, np.integer):
        raise UserError(
            f"{key}: integer_loss is that of integer logits of tokens, and those of family {net.space.family} are "
            "none. Set loss."
        )
    if net.classes > MOST_CLASSES:
        raise UserError(f"{key}: integer_loss adds up at most {MOST_CLASSES:,} tokens, not {net.classes:,}. Set loss.")
    predicted = train.batch_size // train.evolution_strategy.groups * prod(example.shape)
    if predicted > MOST_LOSSES:
        raise UserError(
            f"{key}: integer_loss adds up the losses of at most {MOST_LOSSES:,} tokens a member, not {predicted:,}. "
            "Set more train.evolution_strategy.groups, a smaller train.batch_size or data.context, or loss."
        )


def _check_integers(experiment: Experiment, passes: PerturbedPass) -> None:
    """Refuses settings that int8 weights have no use for, and sums beyond what float32 holds exactly.

    Raises:
        UserError: There is one.
    """
    train, settings = experiment.config.train, experiment.config.train.evolution_strategy
    if train.ema is not None:
        raise UserError(f"train.ema: {train.ema}, but an average of int8 weights is none. Set null.")
    if settings.shaping != "sign":
        raise UserError(
            f"train.evolution_strategy.shaping: {settings.shaping}, but pairs vote on int8 weights. Set sign."
        )
    if settings.sigma != round(settings.sigma):
        raise UserError(
            f"train.evolution_strategy.sigma: {settings.sigma} is no whole number, which int8 weights need. Set 1 or 2."
        )
    reads = max((prod(leaf.shape[axis] for axis in leaf.reads) for leaf in passes.leaves if leaf.low_rank), default=1)
    largest = LARGEST * (LARGEST + int(settings.sigma) * settings.rank) * reads
    if largest >= EXACT:
        raise UserError(
            f"train.evolution_strategy.sigma: sums over {reads} perturbed weights may reach {largest:,}, beyond the "
            f"{EXACT:,} that are exact. Set a smaller sigma or rank."
        )


def _net(experiment: Experiment) -> Supernet:
    passes, net = Passes(experiment.config.train.precision), experiment.net
    return net if passes == net.passes else build_supernet(net.space, net.sharing, passes)


def _costs(experiment: Experiment, genes: np.ndarray) -> np.ndarray:
    metric = experiment.config.train.evolution_strategy.cost_metric
    found = experiment.cost(np.asarray(genes, np.int32))
    if metric not in found:
        raise UserError(
            f"train.evolution_strategy.cost_metric: {metric!r} is not known. Set one of {', '.join(sorted(found))}."
        )
    return np.asarray(found[metric], np.float64)
