"""The negative loss of the task."""

from typing import Any

import jax

from supernet.evolution_strategy.fitness import FITNESS, CompiledFitness, weighted_mean
from supernet.tasks.outputs import Outputs


def _negative_loss(outputs: Outputs, logits: jax.Array, targets: Any, weights: jax.Array) -> jax.Array:
    return -weighted_mean(outputs.mean(outputs.losses(logits, targets), targets), weights)


FITNESS.register("loss")(CompiledFitness(_negative_loss))
