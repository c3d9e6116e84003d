"""Demands of an experiment on its data and this machine: too large ones are refused, costly ones are warned of."""

import math

import jax

from experiments.experiment import Experiment
from experiments.training.rematerialization import device_bytes
from samplers.sampler import MOST_PATHS
from search_spaces import UserError, ViTSpace
from supernet.evolution_strategy.settings import EvolutionStrategySettings

_TRAINING_COPIES = 4  # of each weight: itself, its gradient and two moments
_ANY_BATCH = 4096  # examples; batches may repeat examples up to here, however few there are
_MOST_STEPS = 10**9
_CALIBRATION_PASSES = 16  # over the training split
_MANY_TOKENS = 256
_UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB", "EB")


def in_bytes(count: float) -> str:
    """Returns a number of bytes in the unit that suits it: `1.5 GB`."""
    power = min(int(math.log(max(count, 1), 1000)), len(_UNITS) - 1)
    return f"{count / 1000**power:.3g} {_UNITS[power]}"


def check_demands(experiment: Experiment) -> None:
    """Refuses numbers that the data or the machine cannot meet.

    With a section `ray` the experiment runs elsewhere, so that the memory of this machine decides nothing.

    Raises:
        UserError: Batches of more examples than there are, more steps than are counted, costs that are no numbers, or
            more memory than the machine has.
    """
    config, examples = experiment.config, len(experiment.data.train)
    _check_costs(experiment)
    paths = experiment.sampler.paths_per_step
    if paths > MOST_PATHS:
        raise UserError(f"sampler.type: {config.sampler.type} has {paths:,} paths a step. Set at most {MOST_PATHS:,}.")
    if experiment.steps > _MOST_STEPS:
        raise UserError(f"train.epochs: {config.train.epochs} are {experiment.steps:,} steps. Give fewer epochs.")
    most = max(examples, _ANY_BATCH)
    if config.train.batch_size > most:
        raise UserError(
            f"train.batch_size: {config.train.batch_size} is more than the {examples:,} training examples. Give at "
            f"most {most:,}."
        )
    evaluation = config.evaluation
    rows = evaluation.calibration_batches * min(evaluation.calibration_batch_size, examples)
    most = _CALIBRATION_PASSES * max(examples, _ANY_BATCH)
    if rows > most:
        raise UserError(
            f"evaluation.calibration_batches: {evaluation.calibration_batches} read {rows:,} images, of "
            f"{examples:,} for training. Give at most {most // min(evaluation.calibration_batch_size, examples):,}."
        )
    if config.ray is None:
        _check_memory(experiment, rows)


def warnings(experiment: Experiment) -> list[str]:
    """Returns what works but asks for much more than it needs to, a line each with numbers and what to set."""
    space, config, found = experiment.space, experiment.config, []
    memory, activations = device_bytes(), _activations(experiment)
    rows = -(-config.train.batch_size // config.train.accumulate)
    kept = rows * activations
    if isinstance(space, ViTSpace) and (space.tokens > _MANY_TOKENS or kept > memory / 2):
        sizes = [size for size in range(space.patch_size + 1, space.image_size + 1) if space.image_size % size == 0]
        fit = next((size for size in sizes if (space.image_size // size) ** 2 <= _MANY_TOKENS), space.image_size)
        found.append(
            f"space.patch_size: {space.patch_size} makes {space.tokens:,} tokens of images of {space.image_size} "
            f"pixels; the largest subnet computes {in_bytes(activations)} of activations an image, {in_bytes(kept)} a "
            f"path of {rows:,}. Patches of {fit} make {(space.image_size // fit) ** 2 + space.class_token:,} tokens: "
            f"--set space.patch_size={fit}"
        )
    elif kept > memory:
        found.append(
            f"train.batch_size: a path of {rows:,} examples computes {in_bytes(kept)} of activations in the largest "
            f"subnet ({in_bytes(activations)} an example), and this machine has {in_bytes(memory)}. Set a smaller "
            "train.batch_size, or train.accumulate."
        )
    if config.train.method == "evolution_strategy":
        found += _small_chunks(config.train.evolution_strategy)
    return found


def _small_chunks(settings: EvolutionStrategySettings) -> list[str]:
    """Warns where programs hold few members, as the pairs of a group have no larger divisor within the chunk."""
    pairs, most = settings.population // (2 * settings.groups), settings.chunk // 2
    if 2 * settings.pairs_of_chunk >= min(pairs, most):
        return []
    better = 2 * settings.groups * most * -(-pairs // most)
    return [
        f"train.evolution_strategy.chunk: {settings.chunk}, but programs of equal size that hold the {pairs:,} pairs "
        f"of a group have {2 * settings.pairs_of_chunk} members each, which is slow. Set "
        f"train.evolution_strategy.population={better}."
    ]


def _activations(experiment: Experiment) -> float:
    costs = experiment.space.cost(experiment.space.extremes)
    return float(max(costs["activation_bytes"])) if "activation_bytes" in costs else 0.0


def _check_costs(experiment: Experiment) -> None:
    """Refuses costs of the ends of a space, on its own or on a device, that are negative or not finite."""
    for metric, values in experiment.cost(experiment.space.extremes).items():
        for value in values.tolist():
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"space.family: {metric} of a subnet is {value}. Correct the family's cost model.")


def _check_memory(experiment: Experiment, calibration_rows: int) -> None:
    config, memory = experiment.config, device_bytes()
    costs, net = experiment.space.cost(experiment.space.extremes), experiment.net
    has = f"and this machine has {in_bytes(memory)}"

    def check_weights(trained: int, frozen: int, what: str) -> None:
        if (weights := 4 * (trained * _TRAINING_COPIES + frozen)) > memory:
            raise UserError(
                f"space: training takes {in_bytes(weights)} for the {trained + frozen:,} {what} with gradients and "
                f"moments, {has}. Give smaller sizes."
            )

    names = net.sharing.trained
    if "params" in costs and names is None:  # first, as the supernet of very large sizes cannot be traced
        check_weights(int(max(costs["params"])), 0, "parameters of the largest subnet")
    # Beside those of the largest subnet it holds what the sharing scheme adds, and every alternative of a choice.
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in net.shapes.items()}
    trained = sum(size for name, size in sizes.items() if names is None or name in names)
    held = f"weights of the supernet (sharing {config.supernet.sharing})"
    check_weights(trained, sum(sizes.values()) - trained, held)
    example = 4 * math.prod(net.example(experiment.space.largest).shape)
    for key, rows in (
        ("space", 1),
        ("train.batch_size", config.train.batch_size),
        ("evaluation.calibration_batches", calibration_rows),
    ):
        if rows * example > memory:
            raise UserError(
                f"{key}: the inputs of {rows:,} examples take {in_bytes(rows * example)}, {has}. Give a smaller number."
            )
