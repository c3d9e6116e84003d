"""Arithmetic of networks whose weights are int8: products, shifts, saturation, and a log-sum-exp, all of whole numbers.

Each function takes integers, or whole numbers that float32 carries: what type the weights have decides. Both give the
same numbers as long as sums stay below `EXACT`, and products of carried numbers are several times faster on CPUs.

References:
    Sarkar et al. Evolution Strategies at the Hyperscale. 2025, arXiv:2511.16652 (int8 weights, 4 fractional bits, no
    activation function but saturation). Differs: powers of two by a parabola in the exponent's fraction.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Num

EXACT = 2**24
"""Whole numbers up to here are exact in float32."""
ONE = 16
"""Integer that stands for 1.0 in activations and weights, which have 4 fractional bits."""
LARGEST = 127
"""Largest magnitude of a weight and of what a product reads."""
NATS = math.log(2) / ONE
"""Nats of one unit of an integer logit: logits are logarithms to base 2, with 4 fractional bits."""
MOST_CLASSES = 2**15 - 1
"""Classes or tokens over which a loss by integers is taken: more powers of two, all equal, would leave int32."""
MOST_LOSSES = 2**16
"""Losses by integers whose sum is certain to stay within int32."""

_RECIPROCAL, _RECIPROCAL_BITS = 2**12, 8
_FRACTION_BITS = 8
_FARTHEST = 64 * ONE - 1
"""Largest distance of a target's logit below the largest one that counts, so that a loss is less than 2^15."""
_LOGARITHMS = np.round(256 * np.log2(1 + (np.arange(256) + 0.5) / 256)).astype(np.int32)
"""Logarithms to base 2 of 1 to 2, with 8 fractional bits, in the middle of 256 equal parts."""


def is_carried(x: Num[Array, "..."]) -> bool:
    """Tells whether whole numbers are held in floating point."""
    return jnp.issubdtype(x.dtype, jnp.floating)


def wide(x: Num[Array, "..."]) -> Num[Array, "..."]:
    """Converts to the type of sums: int32, or floats that carry integers unchanged."""
    return x if is_carried(x) else x.astype(jnp.int32)


def product(x: Num[Array, "... m"], kernel: Num[Array, "m n"]) -> Num[Array, "... n"]:
    """Multiplies rows by a matrix, int8 with int8 into int32; floats that carry integers stay floats.

    Args:
        x: At most `LARGEST` in magnitude.
        kernel: int8, or of a wider type, in which the product is then computed.
    """
    if is_carried(kernel):
        return x @ kernel
    contracted = ((x.ndim - 1,), (0,)), ((), ())
    return jax.lax.dot_general(x.astype(kernel.dtype), kernel, contracted, preferred_element_type=jnp.int32)


def halved(x: Num[Array, "..."], times: int) -> Num[Array, "..."]:
    """Divides by 2 a number of times and rounds down."""
    return jnp.floor(x * 2.0**-times) if is_carried(x) else x >> times


def saturated(x: Num[Array, "..."], most: int) -> Num[Array, "..."]:
    """Values beyond `most` in magnitude become `most`."""
    return jnp.clip(x, jnp.asarray(-most, x.dtype), jnp.asarray(most, x.dtype))


def halvings(reads: int) -> int:
    """Returns how often a product over so many entries is halved, to be about as large as the entries that it reads."""
    return math.ceil(math.log2(ONE) + math.log2(reads) / 2)


def normalised(x: Num[Array, "... d"]) -> Num[Array, "... d"]:
    """Scales to a mean magnitude of about `ONE` and saturates at `LARGEST`.

    Args:
        x: Values with a power of two of channels, magnitudes up to 511.
    """
    total = jnp.sum(jnp.abs(x), axis=-1, keepdims=True, dtype=x.dtype)
    mean = jnp.maximum(halved(total, int(math.log2(x.shape[-1]))), jnp.asarray(1, x.dtype))
    whole = jnp.asarray(_RECIPROCAL, x.dtype)
    reciprocal = jnp.floor(whole / mean) if is_carried(x) else jax.lax.div(whole, mean)
    return saturated(halved(x * reciprocal, _RECIPROCAL_BITS), LARGEST)


def integer_logits(logits: Num[Array, "..."]) -> Int32[Array, "..."]:
    """Converts logits in nats, which are multiples of `NATS`, to integers."""
    return jnp.round(logits * (1 / NATS)).astype(jnp.int32)


def integer_losses(logits: Int32[Array, "*b v"], targets: Int32[Array, "*b"]) -> Int32[Array, "*b"]:
    """Cross-entropy of integer logits in 1/256 bit, by integers alone; 0 where a target is negative.

    Its error is below 0.02 bit, where the target's logit is at most 64 bits below the largest; one farther below counts
    as if it were there. Powers of two are a parabola of the exponent's fraction and a shift, the logarithm of their sum
    the place of its first bit and a table.

    Args:
        logits: Logarithms to base 2, with 4 fractional bits, of at most `MOST_CLASSES` classes or tokens.
        targets: The right class.
    """
    largest = jnp.max(logits, axis=-1, keepdims=True)
    below = largest - logits
    fraction, whole = below & (ONE - 1), jnp.minimum(below >> 4, 31)
    # 2^(-f/16) with 16 fractional bits, within 0.4 percent.
    powers = (65536 - 2779 * fraction + 46 * fraction * fraction) >> whole
    total = jnp.sum(powers, axis=-1, dtype=jnp.int32)
    place = 31 - jax.lax.clz(total)
    part = ((total << (30 - place)) >> 22) & 255
    log_sum = ((place - 16) << _FRACTION_BITS) + jnp.asarray(_LOGARITHMS)[part]
    is_target = jnp.arange(logits.shape[-1], dtype=jnp.int32) == targets[..., None]
    right = jnp.sum(jnp.where(is_target, jnp.minimum(below, _FARTHEST), 0), axis=-1, dtype=jnp.int32)
    return jnp.where(targets < 0, 0, log_sum + (right << 4))
