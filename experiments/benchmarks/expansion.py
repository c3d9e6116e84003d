"""Networks of several depths expanded from trained blocks (TLEG, SWS), compared with other first weights.

Command: `python -m experiments.benchmarks.expansion --seeds 3 --json`

For each seed, a vision transformer is trained on the digits by labels, and teaches an auxiliary network of each scheme
by soft distillation alone, without labels. Networks of each depth then start from
    linear      base and slope, expanded (TLEG);
    stage       a block for each stage, expanded (SWS);
    slope       the trained base with a fresh slope;
    uniform     copies of the trained base in all layers;
    random      fresh weights, those outside the layers included
and are trained by labels for one epoch with equal batches and settings. Figures are the loss in nats and the accuracy
on the validation split, before (step 0) and after it, of the auxiliary networks and of their teacher too. Stored
weights are those of an auxiliary network, against the sum of those of the networks of all depths. Seconds are processor
seconds, compilation included.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial

import click
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.data.dataset import Dataset
from experiments.data.digits import Digits
from search_spaces import SearchSpace, build_space
from search_spaces.divided import at_depths
from search_spaces.randomness import Purpose, stream
from search_spaces.sealed_json import JsonObject
from supernet.engine.randomness import key
from supernet.engine.supernet import Params, Supernet, build_supernet
from supernet.sharing.expansion import LayerExpansion
from supernet.sharing.linear_expansion import LinearExpansion
from supernet.sharing.stage_expansion import StageExpansion
from supernet.tasks.distillation import Distillation, Teacher
from supernet.training.optimizer import OptimizerSettings
from supernet.training.training import TrainStep

_FORM = {"width": [48], "depth": [6], "heads": [3], "mlp_ratio": [2.0], "head_dim": 16}
_TEACHER = {**_FORM, "width": [64], "heads": [4]}
_BATCH, _HELD_OUT = 64, 0.2


class Trainer:
    """Trains and evaluates the one network of a space; its programs are compiled once for all seeds.

    Args:
        net: Its supernet.
        steps: Number of steps of a training.
        optimizer: Settings of the optimiser.
        distilled: Whether a teacher trains it, without labels.
    """

    def __init__(self, net: Supernet, steps: int, optimizer: OptimizerSettings, distilled: bool = False) -> None:
        self.net, self._steps = net, steps
        distillation = Distillation("external", teachers=("teacher",)) if distilled else None
        self._step = TrainStep(net, optimizer.build(steps), distillation)
        self._genes = np.array(net.space.largest.genes, np.int32)

    def logits(self, params: Params, x: jax.Array) -> jax.Array:
        """Returns the outputs of the network."""
        program = self.net.space.program(self._genes)
        return self.net.compiled_apply(params, jnp.asarray(self._genes), x, program=program)[0]

    def trained(self, params: Params, data: Dataset, seed: int, teacher: Teacher | None = None) -> Params:
        """Returns the weights after training; with a teacher, by what it predicts."""
        state, rng, split = self._step.init(jax.tree.map(jnp.copy, params)), stream(seed, Purpose.PATHS), data.train
        order = np.concatenate([rng.permutation(len(split)) for _ in range(1 + self._steps * _BATCH // len(split))])
        for number in tqdm(range(self._steps), disable=None):
            examples, labels = split.read(order[number * _BATCH : (number + 1) * _BATCH])
            x, targets = jnp.asarray(data.prepared(examples)), jnp.asarray(data.outputs.encode(labels))
            taught = None if teacher is None else data.outputs.teach(teacher(x), 1.0)
            paths = self._genes[None], ("random",), np.ones(1, np.float32)
            state, _ = self._step(state, *paths, x, targets, teacher=taught)
        return state.params

    def figures(self, params: Params, data: Dataset) -> list[float]:
        """Returns the loss and the accuracy on the validation split."""
        examples, labels = data.validation.read(np.arange(len(data.validation)))
        logits = self.logits(params, jnp.asarray(data.prepared(examples)))
        loss = float(jnp.mean(data.outputs.losses(logits, jnp.asarray(data.outputs.encode(labels)))))
        return [round(loss, 4), round(float(np.mean(np.argmax(logits, axis=-1) == labels)), 4)]


class Comparison:
    """Trainings of one seed after another.

    Args:
        depths: Numbers of layers of the expanded networks.
        teacher_steps: Number of training steps of the teacher.
        steps: Number of training steps of an auxiliary network.
        rate: Learning rate of the epoch.
    """

    def __init__(self, depths: Sequence[int], teacher_steps: int, steps: int, rate: float) -> None:
        space, teacher = build_space("vit", "small", _FORM), build_space("vit", "small", _TEACHER)
        self._linear, self._stage = LinearExpansion(space), StageExpansion(space)
        long = OptimizerSettings(learning_rate=2e-3)
        self._teacher = Trainer(build_supernet(teacher), teacher_steps, long)
        self._auxiliary = {
            scheme.name: Trainer(build_supernet(space, scheme), steps, long, distilled=True)
            for scheme in (self._linear, self._stage)
        }
        epoch, short = len(Digits().load(0, _HELD_OUT).train) // _BATCH, OptimizerSettings(learning_rate=rate)
        nets = {depth: build_supernet(at_depths(space, (depth,))) for depth in depths}
        self._expanded = {depth: Trainer(net, epoch, short) for depth, net in nets.items()}

    def measured(self, seed: int) -> JsonObject:
        """Measures the figures of one seed."""
        start, data, fresh = time.process_time(), Digits().load(seed, _HELD_OUT), key(seed, Purpose.WEIGHTS)
        taught = self._teacher.trained(self._teacher.net.init(fresh), data, seed)
        found: JsonObject = {"teacher": self._teacher.figures(taught, data)}
        blocks: dict[str, Params] = {}
        for name, trainer in self._auxiliary.items():
            teacher = partial(self._teacher.logits, taught)
            blocks[name] = trainer.trained(trainer.net.init(fresh), data, seed, teacher)
            found[f"auxiliary, {name}"] = trainer.figures(blocks[name], data)
        for depth, trainer in self._expanded.items():
            found[str(depth)] = {
                name: {
                    "step 0": trainer.figures(params, data),
                    "one epoch": trainer.figures(trainer.trained(params, data, seed), data),
                }
                for name, params in self._starts(trainer.net, blocks, depth, seed).items()
            }
        return {**found, "seconds": round(time.process_time() - start, 1)}

    def _starts(self, net: Supernet, blocks: Mapping[str, Params], depth: int, seed: int) -> dict[str, Params]:
        """The first weights of a network with this depth, by name."""
        linear, own, layers = self._linear, blocks[self._linear.name], self._linear.stack.path
        fresh = net.init(key(seed, Purpose.WEIGHTS))
        drawn = linear.init(fresh, key(seed, Purpose.WEIGHTS, 1))[layers]
        slopes = {"linear": own[layers], "slope": drawn, "uniform": jax.tree.map(jnp.zeros_like, own[layers])}
        starts = {}
        for name, of in slopes.items():
            mixed = jax.tree.map(lambda base, slope: jnp.stack([base[0], slope[1]]), own[layers], of)
            starts[name] = linear.expanded({**own, layers: mixed}, depth)
        return {**starts, "stage": self._stage.expanded(blocks[self._stage.name], depth), "random": fresh}


def stored(space: SearchSpace, scheme: LayerExpansion, depths: Sequence[int]) -> JsonObject:
    """Returns the weights that a scheme stores, those of networks of all depths, and how many times more these are.

    Args:
        space: Space of the auxiliary network.
        scheme: Its scheme.
        depths: Numbers of layers of the networks.
    """
    own = build_supernet(space, scheme).shapes
    apart = [build_supernet(at_depths(space, (depth,))).shapes for depth in depths]
    parts = {"all": [own, *apart], "layers": [tree[scheme.stack.path] for tree in (own, *apart)]}
    found: JsonObject = {}
    for name, trees in parts.items():
        size, *sizes = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in trees)
        found[name] = [size, sum(sizes), round(sum(sizes) / size, 2)]
    return found


def summary(found: Sequence[JsonObject], depths: Sequence[int]) -> JsonObject:
    """Returns for each depth and start the mean and standard deviation over seeds of both losses and accuracies."""
    means: JsonObject = {}
    for depth in map(str, depths):
        for name in found[0][depth]:
            for when in ("step 0", "one epoch"):
                values = np.array([one[depth][name][when] for one in found])
                spread = values.std(axis=0, ddof=1 if len(found) > 1 else 0)
                for i, figure in enumerate(("loss", "accuracy")):
                    means[f"{depth} layers, {name}, {when}, {figure}"] = [
                        round(float(values.mean(axis=0)[i]), 4), round(float(spread[i]), 4),
                    ]  # fmt: skip
    return means


@click.command(cls=Benchmark)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Number of seeds.")
@click.option("--depth", "depths", multiple=True, default=(3, 4, 6, 8), show_default=True, type=click.IntRange(3))
@click.option("--teacher-steps", default=300, show_default=True, type=click.IntRange(2))
@click.option("--steps", default=400, show_default=True, type=click.IntRange(2), help="Steps of an auxiliary network.")
@click.option("--learning-rate", default=5e-4, show_default=True, help="Learning rate of the epoch.")
@json_option
def main(
    seeds: int, depths: tuple[int, ...], teacher_steps: int, steps: int, learning_rate: float, as_json: bool
) -> None:
    """Trains blocks, expands them to each depth and trains the networks for an epoch."""
    comparison, found = Comparison(depths, teacher_steps, steps, learning_rate), []
    for seed in range(seeds):
        found.append(comparison.measured(seed))
        click.echo(f"seed {seed}: {found[-1]}", err=True)
    space = build_space("vit", "small", _FORM)
    weights = {
        f"stored weights, {scheme.name}": stored(space, scheme, depths)
        for scheme in (LinearExpansion(space), StageExpansion(space))
    }
    show({**weights, **summary(found, depths), **{f"seed_{i}": one for i, one in enumerate(found)}}, as_json)


if __name__ == "__main__":
    main()
