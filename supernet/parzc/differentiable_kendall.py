"""DiffKendall: Kendall's tau with a slope, so that gradients can raise it.

References:
    Zheng, Zhang, Huang. DiffKendall: A Novel Approach for Few-Shot Learning with Differentiable
    Kendall's Rank Correlation. NeurIPS 2023, arXiv:2307.15317.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def differentiable_kendall(
    predicted: Float[Array, " a"], truth: Float[Array, " a"], temperature: float
) -> Float[Array, ""]:
    """Computes the mean over pairs of the product of both sides' tanh(difference ÷ temperature).

    As the temperature falls, the mean tends to Kendall's tau-a: tanh becomes the sign. At a high temperature, pairs
    that lie far apart decide.

    Args:
        predicted: Predicted figure of each network.
        truth: True figure of each network; at least two.
        temperature: In the unit of both sides, above 0; of sigmoids with slope s, it is 2 ÷ s.

    Returns:
        A number in -1…1; larger is better.
    """
    count = predicted.shape[0]
    agreement = _softened(predicted, temperature) * _softened(truth, temperature)
    return jnp.sum(agreement) / (count * (count - 1))  # a network with itself adds 0


def _softened(values: Float[Array, " a"], temperature: float) -> Float[Array, "a a"]:
    return jnp.tanh((values[:, None] - values[None, :]) / temperature)
