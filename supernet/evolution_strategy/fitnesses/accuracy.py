"""Accuracy, which has no gradient."""

from typing import Any

import jax
import jax.numpy as jnp

from supernet.evolution_strategy.fitness import FITNESS, CompiledFitness, weighted_mean
from supernet.tasks.outputs import Outputs


def _accuracy(outputs: Outputs, logits: jax.Array, targets: Any, weights: jax.Array) -> jax.Array:
    return weighted_mean(outputs.mean(outputs.figures(logits, targets).astype(jnp.float32), targets), weights)


FITNESS.register("accuracy")(CompiledFitness(_accuracy, "accuracy"))
