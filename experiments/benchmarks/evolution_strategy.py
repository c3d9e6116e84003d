"""Cost of a member of an evolution strategy, compared with a plain pass and with a perturbed copy of the weights.

Command: `python -m experiments.benchmarks.evolution_strategy --json`

The network is a vision transformer of two layers. Timed in turn are: a chunk of members in one program; a plain pass on
as many rows as the whole chunk, and on the rows of one member; and a full copy of the weights with independent normal
noise in every entry, drawn and evaluated by itself.
"""

from functools import partial
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.benchmarks.timing import alternate, memory_as_in_runs
from experiments.commands.options import json_option
from search_spaces import build_space
from search_spaces.randomness import Purpose
from search_spaces.sealed_json import JsonObject
from supernet.engine.randomness import key
from supernet.engine.supernet import build_supernet
from supernet.evolution_strategy.population import Population
from supernet.evolution_strategy.settings import EvolutionStrategySettings
from supernet.tasks.classes import CLASSES


@click.command(cls=Benchmark)
@click.option("--width", default=512, show_default=True, help="Width of the network in channels.")
@click.option(
    "--images",
    default="1,4,16",
    show_default=True,
    help="Numbers of images (4 tokens each) for each member, separated by commas.",
)
@click.option("--ranks", default="1,4", show_default=True, help="Ranks of the perturbations, separated by commas.")
@click.option("--chunk", default=16, show_default=True, help="Number of members in one program.")
@click.option("--rounds", default=5, show_default=True, help="Number of alternating rounds; the median counts.")
@json_option
def main(width: int, images: str, ranks: str, chunk: int, rounds: int, as_json: bool) -> None:
    """Runs the benchmark."""
    memory_as_in_runs("vit")
    found = {
        f"rank {rank}, {count} images": measure(width, count, rank, chunk, rounds)
        for rank in map(int, ranks.split(","))
        for count in map(int, images.split(","))
    }
    show({"width": width, "chunk": chunk, "members": found}, as_json)


def measure(width: int, images: int, rank: int, chunk: int, rounds: int) -> JsonObject:
    """Measures all figures for one size."""
    settings = {"width": [width], "depth": [2], "heads": [width // 16], "mlp_ratio": [4.0], "patch_size": 4}
    space = build_space("vit", "small", settings)
    net, genes = build_supernet(space), np.array(space.largest.genes, np.int32)
    program, example = space.program(genes), net.example(space.largest)
    params = net.init(key(0, Purpose.WEIGHTS))
    x = jax.random.normal(key(0, Purpose.MEASURED_INPUTS), (images, *example.shape))
    targets, weights = jnp.arange(images) % net.classes, np.ones(images, np.float32)
    strategy = EvolutionStrategySettings(population=chunk, rank=rank, chunk=chunk)
    population = Population(net, strategy, CLASSES, key(0, Purpose.PERTURBATIONS))
    drawn = key(1, Purpose.PERTURBATIONS)

    @jax.jit
    def plain(params: Any, x: jax.Array, targets: jax.Array) -> jax.Array:
        logits, _ = net.apply(params, jnp.asarray(genes), x, program=program)
        return -jnp.mean(CLASSES.mean(CLASSES.losses(logits, targets), targets))

    @jax.jit
    def copied(params: Any, number: jax.Array) -> Any:
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.fold_in(drawn, number), len(leaves))
        each = zip(leaves, keys, strict=True)
        return jax.tree.unflatten(structure, [a + strategy.sigma * jax.random.normal(k, a.shape) for a, k in each])

    rows, many = jnp.concatenate([x] * chunk), jnp.concatenate([targets] * chunk)
    calls = (
        partial(population.fitness, params, genes, 0, 0, x, targets, weights),
        partial(plain, params, rows, many),
        partial(plain, params, x, targets),
        lambda: plain(copied(params, 0), x, targets),
    )
    together, wide, alone, copy = alternate(calls, rounds)
    passes = population.perturbed(program, x)
    return {
        "member_ms": 1e3 * together / chunk,
        "plain_pass_on_all_rows_ms_a_member": 1e3 * wide / chunk,
        "plain_pass_of_one_member_ms": 1e3 * alone,
        "member_over_plain_on_all_rows": together / wide,
        "member_over_plain_of_one": together / chunk / alone,
        "full_copy_ms": 1e3 * copy,
        "members_a_second_over_full_copies": copy * chunk / together,
        "weights": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "numbers_of_noise_a_member": passes.numbers,
    }


if __name__ == "__main__":
    main()
