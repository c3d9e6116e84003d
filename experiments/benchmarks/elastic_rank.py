"""Compares one training of adapters of all ranks (DyLoRA) with a search over ranks, which trains each rank on its own.

Command: `python -m experiments.benchmarks.elastic_rank --parent-data TEXT --data OTHER_TEXT --seeds 3 --json`

A byte-level model is trained on one text and adapted to another: its weights stay, and the matrices of its layers get
low-rank adapters. `alone` trains an adapter for each rank. `elastic` trains one adapter, each step at a random rank;
`last` does too, but a step trains the last rank alone, which is the paper's other setting. `truncated` is the adapter
that was trained at the highest rank, cut to fewer ranks. Losses are those of held-out text in nats a byte, seconds are
processor seconds, without compilation.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.ordering import held_out_loss
from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.data.text import Text
from search_spaces import LanguageSpace
from search_spaces.randomness import Purpose, stream
from supernet.engine.supernet import Params, weight_bytes
from supernet.families.language import LanguageSupernet
from supernet.sharing.elastic_rank import AdapterSettings, ElasticRank
from supernet.sharing.entangled import Entangled
from supernet.training.optimizer import OptimizerSettings
from supernet.training.training import TrainStep

RANKS = tuple(range(1, 9))
_FORM = {
    "width": (64,), "depth": (4,), "kv_heads": (4,), "mlp_width": (192,), "vocabulary": 258, "context": 32,
    "head_size": 16,
}  # fmt: skip
PLAIN, SPACE = LanguageSpace(**_FORM), LanguageSpace(**_FORM, adapter_rank=RANKS)
_PARENT = OptimizerSettings(learning_rate=4e-3, weight_decay=0.0, warmup_steps=20)
_BATCH, _HELD_OUT = 16, 512  # sequences

Examples = tuple[np.ndarray, np.ndarray]


def read(data: Path) -> tuple[Examples, Examples]:
    """Reads tokens and labels of the training text and of the held-out text."""
    dataset = Text(str(data), SPACE.context).load(0, 0.05)
    held_out = dataset.validation.read(np.arange(min(_HELD_OUT, len(dataset.validation))))
    return dataset.train.read(np.arange(len(dataset.train))), held_out


class Trainer:
    """Trains one network or several, with programs that are compiled before a clock runs.

    Args:
        net: Supernet.
        optimizer: Settings of the optimiser.
        examples: Tokens and labels.
    """

    def __init__(self, net: LanguageSupernet, optimizer: OptimizerSettings, examples: Examples) -> None:
        self.net, self._optimizer, self._examples = net, optimizer, examples
        self._steps: dict[int, TrainStep] = {}

    def __call__(
        self, params: Params, genes: Sequence[np.ndarray], steps: int, seed: int, name: str
    ) -> tuple[Params, float]:
        """Returns the weights after training, and its processor seconds; a step trains a random one of the networks."""
        x, labels = self._examples
        if steps not in self._steps:
            self._steps[steps] = TrainStep(self.net, self._optimizer.build(steps))
            self._run(self._steps[steps], params, genes[:1], x, labels, 1, seed, "compiling")
        start = time.process_time()
        params = self._run(self._steps[steps], params, genes, x, labels, steps, seed, name)
        return params, time.process_time() - start

    @staticmethod
    def _run(
        step: TrainStep, params: Params, genes: Sequence[np.ndarray], x: np.ndarray, labels: np.ndarray, steps: int,
        seed: int, name: str,
    ) -> Params:  # fmt: skip
        state, rng = step.init(jax.tree.map(jnp.copy, params)), stream(seed, Purpose.PATHS)
        for _ in tqdm(range(steps), desc=name, disable=None):
            rows, path = rng.integers(0, len(x), _BATCH), genes[int(rng.integers(len(genes)))]
            one = jnp.asarray(x[rows]), jnp.asarray(labels[rows])
            state, _ = step(state, path[None], ("random",), np.ones(1, np.float32), *one)
        return jax.block_until_ready(state.params)


def of_rank(rank: int) -> np.ndarray:
    """Returns the genes of the network with a rank."""
    genes = np.array(SPACE.largest.genes, np.int32)
    genes[SPACE.column("adapter_rank")] = RANKS.index(rank)
    return genes


def measured(
    texts: tuple[Path, Path],
    parent_steps: int,
    steps: int,
    elastic_steps: int,
    rate: float,
    adapters: AdapterSettings,
    seed: int,
) -> dict[str, Sequence[float]]:
    """Measures losses by rank and seconds of one seed."""
    (examples, _), (own, held_out) = map(read, texts)
    plain = LanguageSupernet(PLAIN, Entangled(PLAIN))
    largest = np.array(PLAIN.largest.genes, np.int32)
    parent, _ = Trainer(plain, _PARENT, examples)(
        plain.init(jax.random.key(seed)), [largest], parent_steps, seed, "parent"
    )
    optimizer = OptimizerSettings(learning_rate=rate, weight_decay=0.0, warmup_steps=20, untouched="hold")
    nets = {
        mode: LanguageSupernet(SPACE, ElasticRank(SPACE, dataclasses.replace(adapters, trained_ranks=mode)))
        for mode in ("all", "last")
    }
    net, (train, last) = nets["all"], (Trainer(net, optimizer, own) for net in nets.values())
    start, loss = net.shared(parent, jax.random.key(seed)), held_out_loss(net, *held_out)
    every = [of_rank(rank) for rank in RANKS]
    found: dict[str, Sequence[float]] = {"parent": [held_out_loss(plain, *held_out)(parent, largest)]}
    alone = [train(start, [genes], steps, seed, f"rank {rank}") for rank, genes in zip(RANKS, every, strict=True)]
    found["alone"] = [loss(params, genes) for (params, _), genes in zip(alone, every, strict=True)]
    found["truncated"] = [loss(alone[-1][0], genes) for genes in every]
    found["seconds alone"] = [seconds for _, seconds in alone]
    for name, of in (("elastic", train), ("last", last)):
        params, seconds = of(start, every, elastic_steps, seed, name)
        found[name], found[f"seconds {name}"] = [loss(params, genes) for genes in every], [seconds]
    states = TrainStep(net, optimizer.build(steps)), TrainStep(net, optimizer.build(steps), trained=net.shapes)
    bytes_of = [weight_bytes(jax.eval_shape(step.init, net.shapes).optimizer) for step in states]
    return {**found, "optimizer bytes": bytes_of}


@click.command(cls=Benchmark)
@click.option("--parent-data", type=click.Path(path_type=Path), required=True, help="Text file of the first training.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Text file that the model is adapted to.")
@click.option("--parent-steps", default=300, show_default=True, help="Number of steps of the first training.")
@click.option("--steps", default=120, show_default=True, help="Number of training steps of each rank alone.")
@click.option("--elastic-steps", default=200, show_default=True, help="Number of steps of the training of all ranks.")
@click.option("--learning-rate", default=1e-2, show_default=True, help="Peak learning rate of adapters.")
@click.option("--alpha", default=32.0, show_default=True, help="Factor of an adapter times the divisor --scale.")
@click.option(
    "--scale",
    type=click.Choice(["rank", "square_root", "largest"]),
    default="largest",
    show_default=True,
    help="Divisor of --alpha: the rank, its square root, or the largest rank.",
)
@click.option("--seeds", default=3, show_default=True, help="Number of seeds.")
@json_option
def main(
    parent_data: Path, data: Path, parent_steps: int, steps: int, elastic_steps: int, learning_rate: float,
    alpha: float, scale: Literal["rank", "square_root", "largest"], seeds: int, as_json: bool,
) -> None:  # fmt: skip
    """Trains adapters of all ranks at once and each alone, and compares losses and seconds."""
    settings = parent_steps, steps, elastic_steps, learning_rate, AdapterSettings(alpha=alpha, scale=scale)
    found = [measured((parent_data, data), *settings, seed) for seed in range(seeds)]
    figures: dict[str, object] = {
        "parent_steps": parent_steps, "steps": steps, "elastic_steps": elastic_steps, "learning_rate": learning_rate,
        "alpha": alpha, "scale": scale, "seeds": seeds,
        "parent": [round(one["parent"][0], 3) for one in found],
    }  # fmt: skip
    for i, rank in enumerate(RANKS):
        figures[f"alone, rank {rank}"] = [round(one["alone"][i], 3) for one in found]
        for name in ("elastic", "last", "truncated"):
            figures[f"{name} over alone, rank {rank}"] = [round(one[name][i] / one["alone"][i], 4) for one in found]
    for name in ("elastic", "last"):
        shares = [one[f"seconds {name}"][0] / sum(one["seconds alone"]) for one in found]
        figures[f"seconds, {name} over alone"] = [round(share, 3) for share in shares]
        worst = [max(a / b for a, b in zip(one[name], one["alone"], strict=True)) for one in found]
        figures[f"{name} over alone, worst"] = [round(ratio, 4) for ratio in worst]
    figures["optimizer bytes, adapters and all"] = found[0]["optimizer bytes"]
    show(figures, as_json)


if __name__ == "__main__":
    main()
