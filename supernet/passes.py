"""Passes: in which precision forward and backward passes are computed, and what is kept for the backward one."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Passes:
    """How passes are computed; what they compute is the same, but for rounding.

    Args:
        precision: Of products, and of what is kept for the backward pass. Sums, norms, softmax and the residual stream
            are float32, as weights and their gradients are.
        rematerialize: Keep nothing but each sublayer's input for the backward pass, and compute the rest again.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    rematerialize: bool = False

    @property
    def dtype(self) -> Any:
        """The precision as a type of arrays."""
        return jnp.dtype(self.precision)


PLAIN = Passes()


def wide(x: jax.Array) -> jax.Array:
    """The same numbers in a type that adds up many of them well: float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
