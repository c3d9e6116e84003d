"""JAX keys of the random streams of `search_spaces.randomness`, and of fresh weights."""

from typing import SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key

from search_spaces.randomness import Purpose, entropy


def key(seed: SupportsIndex, purpose: Purpose, *numbers: SupportsIndex) -> Key[Array, ""]:
    """Returns the key of a purpose's draws; a step that is traced is folded into it.

    Args:
        seed: Seed of the run.
        purpose: Purpose of the draws.
        numbers: Numbers that distinguish draws of the same purpose.
    """
    bits = entropy(seed, purpose, *numbers)
    low, high = np.uint32(bits & 0xFFFFFFFF), np.uint32((bits >> 32) & 0xFFFFFFFF)
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), low), high)


class FreshWeights(nnx.Rngs):
    """Keys of a module's fresh weights: those of `nnx.Rngs`, drawn in a traced function without its cost.

    Each key of Flax 0.12 adds 1 to an array and compares shardings; where it is traced, JAX 0.10 words an error about
    that, with the whole program so far in it (`findings/flax_keys_in_traced_functions.sh`). Here a plain number counts.
    This is for constructors: a module that draws from such keys later, as a dropout does, needs `nnx.Rngs`.

    Args:
        seed: Number or key that the keys are drawn from.
    """

    def __init__(self, seed: int | Key[Array, ""]) -> None:
        super().__init__(seed)
        self.default = _Counted(self.default.key[...], tag="default")


class _Counted(nnx.RngStream):
    def __init__(self, key: jax.Array, *, tag: str) -> None:
        super().__init__(key, tag=tag)
        self.drawn = 0

    def __call__(self) -> jax.Array:
        key = jax.random.fold_in(self.key[...], jnp.uint32(self.drawn))
        self.drawn += 1
        return key
