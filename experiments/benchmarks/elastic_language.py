"""Cost of elasticity: sizes cut out of one elastically trained language model, against the same sizes trained alone.

Command: `python -m experiments.benchmarks.elastic_language --data TEXT --seeds 3 --json`

A byte-level model is trained, ordered by importance, and then trained elastically: every step trains all three sizes on
one batch, the largest with the labels, the others with labels and distillation from the largest. Each size is also
trained alone from fresh weights, for as many batches as both trainings of the elastic model together, or for
`--alone-steps`. Losses are those of held-out text; a ratio below 1 means that the elastic model is better.
"""

import dataclasses
from pathlib import Path

import click
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.ordering import BATCH, CALIBRATION, SHARES, SPACE, held_out_loss, of_size, read, trained
from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from search_spaces.randomness import Purpose, stream
from supernet.engine.supernet import Params
from supernet.families.language import LanguageSupernet
from supernet.ordering.importance import importance
from supernet.ordering.reorder import reordered
from supernet.sharing import SHARING
from supernet.tasks.distillation import Distillation
from supernet.training.optimizer import OptimizerSettings
from supernet.training.training import TrainStep

_DISTILLATION = Distillation(type="largest", weight=0.5)
_OPTIMIZER = OptimizerSettings(learning_rate=4e-3, weight_decay=0.0, warmup_steps=20)
_ROLES = ("largest", "random", "smallest")


def elastically_trained(
    net: LanguageSupernet, parent: Params, x: np.ndarray, labels: np.ndarray, steps: int, seed: int
) -> Params:
    """Returns the weights after elastic training of all sizes; `parent` is consumed."""
    step = TrainStep(net, _OPTIMIZER.build(steps), _DISTILLATION)
    state, rng = step.init(parent), stream(seed, Purpose.DISTILLED_STUDENT)
    genes = np.stack([of_size(size) for size in reversed(range(len(SHARES)))])
    for _ in tqdm(range(steps), desc="elastic", disable=None):
        rows = rng.integers(0, len(x), BATCH)
        weights = np.full(len(genes), 1 / len(genes), np.float32)
        state, _ = step(state, genes, _ROLES, weights, jnp.asarray(x[rows]), jnp.asarray(labels[rows]))
    return state.params


def alone(size: int) -> LanguageSupernet:
    """Returns a supernet whose only network has this size."""
    sizes = {name: (getattr(SPACE, name)[size],) for name in ("width", "kv_heads", "mlp_width")}
    return LanguageSupernet(dataclasses.replace(SPACE, **sizes), SHARING["entangled"](SPACE))


def measured(data: Path, parent_steps: int, steps: int, alone_steps: int, seed: int) -> dict[str, float]:
    """Measures the losses of one seed, in nats a token."""
    net, (x, labels), held_out = LanguageSupernet(SPACE, SHARING["entangled"](SPACE)), *read(data)
    parent = trained(net, x, labels, parent_steps, seed)
    parent = reordered(net.space, parent, importance(net, parent, [jnp.asarray(x[:CALIBRATION])]))
    loss = held_out_loss(net, *held_out)
    found = {"parent": loss(parent, of_size(len(SHARES) - 1))}
    elastic = elastically_trained(net, parent, x, labels, steps, seed)
    for size, share in enumerate(SHARES):
        found[f"elastic, {share} %"] = loss(elastic, of_size(size))
        own = alone(size)
        params = trained(own, x, labels, alone_steps, seed)
        found[f"alone, {share} %"] = held_out_loss(own, *held_out)(params, np.array(own.space.largest.genes, np.int32))
    return found


@click.command(cls=Benchmark)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Text file to train on.")
@click.option("--parent-steps", default=300, show_default=True, help="Number of training steps of the parent.")
@click.option("--steps", default=900, show_default=True, help="Number of steps of elastic training.")
@click.option(
    "--alone-steps",
    type=click.IntRange(min=1),
    help="Number of training steps of each size on its own.  [default: the sum of both above]",
)
@click.option("--seeds", default=3, show_default=True, help="Number of seeds.")
@json_option
def main(data: Path, parent_steps: int, steps: int, alone_steps: int | None, seeds: int, as_json: bool) -> None:
    """Trains models elastically and alone, and compares their losses."""
    alone_steps = alone_steps or parent_steps + steps
    found = [measured(data, parent_steps, steps, alone_steps, seed) for seed in range(seeds)]
    figures: dict[str, int | list[float] | None] = {
        "parent_steps": parent_steps,
        "steps": steps,
        "alone_steps": alone_steps,
        "seeds": seeds,
    }
    for name in found[0]:
        figures[name] = [round(losses[name], 3) for losses in found]
    for share in SHARES:
        ratios = [losses[f"elastic, {share} %"] / losses[f"alone, {share} %"] for losses in found]
        figures[f"elastic over alone, {share} %"] = [round(ratio, 4) for ratio in ratios]
    kept = [losses[f"elastic, {SHARES[-1]} %"] / losses["parent"] for losses in found]
    figures["largest over parent"] = [round(ratio, 4) for ratio in kept]
    show(figures, as_json)


if __name__ == "__main__":
    main()
