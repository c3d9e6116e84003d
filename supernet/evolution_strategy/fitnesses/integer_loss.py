"""The negative loss of integer logits, computed with integers alone."""

from typing import Any

import jax
import jax.numpy as jnp

from supernet.evolution_strategy.fitness import FITNESS, CompiledFitness
from supernet.layers.integers import integer_logits, integer_losses
from supernet.tasks.outputs import Outputs


def _negative_loss(outputs: Outputs, logits: jax.Array, targets: Any, weights: jax.Array) -> jax.Array:
    del outputs, weights
    return -jnp.sum(integer_losses(integer_logits(logits), targets), dtype=jnp.int32)


FITNESS.register("integer_loss")(CompiledFitness(_negative_loss, "accuracy"))
