"""Passes: in which precision forward and backward passes are computed, and what is kept for the backward one."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Passes:
    """Precision and memory of passes; what they compute is the same, but for rounding.

    Args:
        precision: Precision of products, and of the residuals for the backward pass. Sums, norms, softmax and the
            residual stream are float32, as are weights and their gradients.
        rematerialize: Keep nothing but each sublayer's input for the backward pass, and compute the rest again.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    rematerialize: bool = False

    def product(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Converts an operand of a product to the precision; the plain precision keeps float64."""
        return wide(x) if self.precision == PLAIN.precision else x.astype(self.precision)


PLAIN = Passes()


def wide(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Converts to a type for long sums: at least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
