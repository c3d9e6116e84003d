"""Compares prefixes of a trained byte-level model: units ordered by importance, against random permutations.

Command: `python -m experiments.benchmarks.ordering --data TEXT --seeds 3 --json`

A model is trained alone at full size, without elastic training. Its prefixes, with a given share of the stream, of the
heads and of each MLP, are then evaluated on held-out text, after ordering and after random permutations.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.data.text import Text
from search_spaces import LanguageSpace
from supernet.engine.supernet import Params
from supernet.families.language import LanguageSupernet
from supernet.ordering.importance import Importance, importance
from supernet.ordering.reorder import reordered
from supernet.sharing import SHARING
from supernet.tasks.labels import output_losses

SPACE = LanguageSpace(
    width=(32, 48, 64), depth=(4,), kv_heads=(2, 3, 4), mlp_width=(96, 144, 192), uniform=True, vocabulary=258,
    context=64, head_size=16,
)  # fmt: skip
SHARES = (50, 75, 100)
"""Per cent of the largest sizes, by index of the choice."""

BATCH, _HELD_OUT, CALIBRATION = 32, 256, 64


def read(data: Path) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Reads tokens and labels of the training text and of the held-out text."""
    dataset = Text(str(data), SPACE.context).load(0, 0.05)
    held_out = dataset.validation.read(np.arange(min(_HELD_OUT, len(dataset.validation))))
    return dataset.train.read(np.arange(len(dataset.train))), held_out


def of_size(size: int) -> np.ndarray:
    """Returns the genes of the network with the size-th value of each choice."""
    return np.minimum(size, SPACE.cardinalities - 1).astype(np.int32)


def held_out_loss(net: LanguageSupernet, x: np.ndarray, labels: np.ndarray) -> Callable[[Params, np.ndarray], float]:
    """Returns a function of weights and genes to the held-out loss in nats a token."""
    apply = jax.jit(net.apply, static_argnames="program")

    def loss(params: Params, genes: np.ndarray) -> float:
        logits, _ = apply(params, jnp.asarray(genes), jnp.asarray(x), program=net.space.program(genes))
        return float(output_losses(logits, jnp.asarray(labels)).mean())

    return loss


def trained(net: LanguageSupernet, x: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> Params:
    """Returns the weights of the largest network after training it alone."""
    params = net.init(jax.random.key(seed))
    optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, steps))

    def loss(params: Params, x: jax.Array, labels: jax.Array) -> jax.Array:
        return output_losses(net.apply_sliced(params, net.space.largest, x), labels).mean()

    @jax.jit
    def step(params: Params, state: Any, x: jax.Array, labels: jax.Array) -> tuple[Params, Any]:
        updates, state = optimizer.update(jax.grad(loss)(params, x, labels), state)
        return optax.apply_updates(params, updates), state  # type: ignore[return-value]

    state, rng = optimizer.init(params), np.random.default_rng(seed)
    for _ in tqdm(range(steps), desc=f"seed {seed}", disable=None):
        rows = rng.integers(0, len(x), BATCH)
        params, state = step(params, state, x[rows], labels[rows])
    return params


def random_scores(scores: Importance, seed: int) -> Importance:
    """Returns random scores, which permute all units at random."""
    rng = np.random.default_rng(seed)
    return Importance(*(rng.random(part.shape).astype(np.float32) for part in scores))


def measured(data: Path, steps: int, seed: int, permutations: int) -> dict[str, list[float]]:
    """Measures the losses in nats a byte for each share of the size: `ordered` first, then each random permutation."""
    net, (x, labels), held_out = LanguageSupernet(SPACE, SHARING["entangled"](SPACE)), *read(data)
    params = trained(net, x, labels, steps, seed)
    loss = held_out_loss(net, *held_out)
    scores = importance(net, params, [jnp.asarray(x[:CALIBRATION])])
    every = scores, *(random_scores(scores, i) for i in range(permutations))
    orders = [reordered(net.space, params, one) for one in every]
    return {f"{share} %": [loss(order, of_size(size)) for order in orders] for size, share in enumerate(SHARES)}


@click.command(cls=Benchmark)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Text file to train on.")
@click.option("--steps", default=300, show_default=True, help="Number of training steps of each model.")
@click.option("--seeds", default=3, show_default=True, help="Number of models.")
@click.option("--permutations", default=8, show_default=True, help="Number of random permutations of each model.")
@json_option
def main(data: Path, steps: int, seeds: int, permutations: int, as_json: bool) -> None:
    """Trains models and compares the losses of their prefixes."""
    found = [measured(data, steps, seed, permutations) for seed in range(seeds)]
    figures: dict[str, int | list[float]] = {"steps": steps, "seeds": seeds, "permutations": permutations}
    for share in found[0]:
        figures[f"ordered, {share}"] = [round(losses[share][0], 3) for losses in found]
        figures[f"random, mean, {share}"] = [round(float(np.mean(losses[share][1:])), 3) for losses in found]
    show(figures, as_json)


if __name__ == "__main__":
    main()
