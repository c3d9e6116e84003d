"""Sorted fine-tuning: exits of one language model that is trained at all of them, against normal training.

Command: `python -m experiments.benchmarks.sorted_exits --data TEXT --seeds 3 --json`

Two byte-level models begin with the same weights and see the same batches, in turn: one is trained after its last layer
only, the other at each exit. Losses are those of held-out text after the layers of each exit, with the final norm and
output matrix.
"""

from pathlib import Path
from statistics import median

import click
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.ordering import held_out_loss
from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.timing import seconds
from experiments.commands.options import json_option
from experiments.data.text import Text
from search_spaces import LanguageSpace
from search_spaces.randomness import Purpose, stream
from supernet.families.language import LanguageSupernet
from supernet.sharing import SHARING
from supernet.training.optimizer import OptimizerSettings
from supernet.training.training import TrainStep

SPACE = LanguageSpace(
    width=(96,), depth=(2, 4, 6), kv_heads=(6,), mlp_width=(288,), vocabulary=258, context=64, head_size=16
)
BATCH, _HELD_OUT = 16, 256


def measured(data: Path, steps: int, seed: int) -> dict[str, list[float]]:
    """Measures one seed: held-out losses in nats a byte of both models by exit, and the median seconds of a step."""
    net, dataset = LanguageSupernet(SPACE, SHARING["entangled"](SPACE)), Text(str(data), SPACE.context).load(0, 0.05)
    optimizer = OptimizerSettings(learning_rate=2e-3, weight_decay=0.0, warmup_steps=steps // 20)
    kinds = {"normal": TrainStep(net, optimizer.build(steps))}
    kinds["sorted"] = TrainStep(net, optimizer.build(steps), exits=SPACE.depth)
    states = {name: step.init(net.init(jax.random.key(seed))) for name, step in kinds.items()}
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    genes, rng = np.array([SPACE.largest.genes], np.int32), stream(seed, Purpose.DISTILLED_STUDENT)
    for _ in tqdm(range(steps), desc=f"seed {seed}", disable=None):
        x, labels = map(jnp.asarray, dataset.train.read(rng.integers(0, len(dataset.train), BATCH)))
        for name, step in kinds.items():

            def update(
                name: str = name, step: TrainStep = step, x: jax.Array = x, labels: jax.Array = labels
            ) -> object:
                states[name], _ = step(states[name], genes, ("largest",), np.ones(1, np.float32), x, labels)
                return states[name].params

            taken[name].append(seconds(update))
    loss = held_out_loss(net, *dataset.validation.read(np.arange(min(_HELD_OUT, len(dataset.validation)))))
    exits = np.repeat(genes, len(SPACE.depth), axis=0)
    exits[:, SPACE.column("depth")] = np.arange(len(SPACE.depth))
    found = {name: [loss(state.params, row) for row in SPACE.canonical(exits)] for name, state in states.items()}
    return {**found, "seconds": [median(taken[name][1:]) for name in kinds]}


@click.command(cls=Benchmark)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Text file to train on.")
@click.option("--steps", default=400, show_default=True, help="Number of training steps of each model.")
@click.option("--seeds", default=3, show_default=True, help="Number of seeds.")
@json_option
def main(data: Path, steps: int, seeds: int, as_json: bool) -> None:
    """Trains models at all exits and at the last one, and compares losses and times."""
    found = [measured(data, steps, seed) for seed in range(seeds)]
    figures: dict[str, int | list[float]] = {"steps": steps, "seeds": seeds}
    for number, layers in enumerate(SPACE.depth):
        for name in ("normal", "sorted"):
            figures[f"{name}, loss after {layers} layers"] = [round(losses[name][number], 3) for losses in found]
    figures["sorted over normal, last exit"] = [round(one["sorted"][-1] / one["normal"][-1], 4) for one in found]
    figures["sorted over normal, seconds a step"] = [round(one["seconds"][1] / one["seconds"][0], 3) for one in found]
    show(figures, as_json)


if __name__ == "__main__":
    main()
