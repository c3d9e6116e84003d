"""JAX keys of the random streams of `search_spaces.randomness`."""

from typing import SupportsIndex

import jax
import numpy as np

from search_spaces.randomness import Purpose, entropy


def key(seed: SupportsIndex, purpose: Purpose, *numbers: SupportsIndex) -> jax.Array:
    """Returns the key of a purpose's draws; a step that is traced is folded into it.

    Args:
        seed: Seed of the run.
        purpose: What is drawn.
        numbers: What tells draws of the same purpose apart.
    """
    bits = entropy(seed, purpose, *numbers)
    low, high = np.uint32(bits & 0xFFFFFFFF), np.uint32((bits >> 32) & 0xFFFFFFFF)
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), low), high)
