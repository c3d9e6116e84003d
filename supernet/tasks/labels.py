"""Labels: what outputs should have been, as classes or as distributions over classes, of one or many an example.

Targets are float[b, *t, c], distributions, or int[b, *t], classes, of which a negative one is left out of everything.
Where an example has several outputs (the tokens of a text), its figures are means over those that have a label.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Targets = Float[Array, "b *t c"] | Int[Array, "b *t"]


def are_classes(targets: Targets) -> bool:
    """Returns whether targets are classes, not distributions."""
    return jnp.issubdtype(targets.dtype, jnp.integer)


def output_losses(logits: Float[Array, "b *t c"], targets: Targets) -> Float[Array, "b *t"]:
    """Cross-entropy of each output; of one without a label, anything."""
    log_q = jax.nn.log_softmax(logits)
    if are_classes(targets):
        return -jnp.take_along_axis(log_q, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    return -jnp.sum(targets * log_q, axis=-1)


def over_outputs(values: Float[Array, "b *t"], targets: Targets) -> Float[Array, " b"]:
    """Returns the mean of each example over its labelled outputs; 0 if it has none."""
    axes = tuple(range(1, values.ndim))
    if are_classes(targets):
        counted = targets >= 0
        return jnp.sum(values * counted, axis=axes) / jnp.maximum(jnp.sum(counted, axis=axes), 1)
    return jnp.mean(values, axis=axes) if axes else values


def gradient_norms(logits: Float[Array, "b *t c"], targets: Targets, smoothing: float = 0.0) -> Float[Array, " b"]:
    """Computes the norm of each example's loss gradient by its logits: `|softmax(z) - target|` for one output.

    Of a class, the target has 1, less the share `smoothing` that is spread evenly over all classes.
    """
    p = jax.nn.softmax(logits)
    if are_classes(targets):
        own = jnp.take_along_axis(p, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
        squares = jnp.sum(p * p, axis=-1) + 1 - 2 * own
        if smoothing:
            own_share, even = 1 - smoothing, smoothing / logits.shape[-1]
            of_target = own_share**2 + 2 * own_share * even + smoothing * even
            squares = squares - 1 + of_target + 2 * own - 2 * (own_share * own + even)
        axes = tuple(range(1, squares.ndim))
        # The loss is a mean over the outputs that count, so is its gradient.
        counted = jnp.maximum(jnp.sum(targets >= 0, axis=axes), 1)
        return jnp.sqrt(over_outputs(jnp.maximum(squares, 0), targets) / counted)
    norms = jnp.linalg.norm(p - targets, axis=-1)
    if norms.ndim == 1:
        return norms
    return jnp.linalg.norm(norms.reshape(len(norms), -1), axis=-1) / math.prod(norms.shape[1:])
