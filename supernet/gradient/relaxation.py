"""Relaxations: how logits of the genes' values become the weights of a relaxed architecture.

References:
    Liu, Simonyan, Yang. DARTS: Differentiable Architecture Search. ICLR 2019, arXiv:1806.09055 (`darts`).
    Dong, Yang. Searching for a Robust Neural Architecture in Four GPU Hours. CVPR 2019, arXiv:1910.04465 (`gdas`).
    Chen, Wang, Cheng, Tang, Hsieh. DrNAS: Dirichlet Neural Architecture Search. ICLR 2021, arXiv:2006.10355 (`drnas`).
    Differs: `darts` is first order, and takes softmax, where TangleNAS takes sparsemax of entangled weights. `gdas`
    differentiates the one-hot weights of all values, which superposition gives for nothing; theirs only computes the
    value that was drawn. Decay is added to the gradient, as theirs is by Adam.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Bool, Float, Key

from search_spaces import UserError
from search_spaces.registry import Registry

Logits = Float[Array, "g v"]
Values = Bool[Array, "g v"]

INITIAL = 1e-3
"""Standard deviation of fresh logits."""


@dataclass(frozen=True)
class Relaxation(ABC):
    """A method. Entries of the matrices that are no values of their gene have weight 0.

    Args:
        decay: Weight decay of the logits towards 0, where all values are equally likely: the loss gets this factor
            times half of their squares.
        temperature: Temperature of the softmax at the first step.
        final_temperature: Temperature of the softmax at the last step; linear between.

    Raises:
        UserError: A setting out of range.
    """

    decay: float = 1e-3
    temperature: float = 1.0
    final_temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1e9:
            raise UserError(f"gradient.decay: {self.decay} is not in 0..1e9. Give 0.001 or so.")
        for name in ("temperature", "final_temperature"):
            if not 1e-6 <= getattr(self, name) <= 1e6:
                raise UserError(f"gradient.{name}: {getattr(self, name)} is not in 1e-6..1e6. Give 0.1 or so.")

    @abstractmethod
    def draw(self, logits: Logits, values: Values, key: Key[Array, ""], temperature: Float[Array, ""]) -> Logits:
        """Draws the weights of a step; differentiable in the logits."""

    def probabilities(self, logits: Logits, values: Values) -> Logits:
        """Returns the distribution of each gene, for the expected cost, the entropy and the final choice."""
        return jax.nn.softmax(logits, where=values)

    def penalty(self, logits: Logits, values: Values) -> Float[Array, ""]:
        """Returns what is added to the loss of the logits."""
        return self.decay / 2 * jnp.sum(jnp.square(logits), where=values)

    def temperature_at(self, progress: float) -> float:
        """Returns the temperature at a share of the search, 0 to 1."""
        return self.temperature + (self.final_temperature - self.temperature) * progress


RELAXATIONS: Registry[type[Relaxation]] = Registry("relaxation", "supernet.gradient")


@RELAXATIONS.register("darts")
@dataclass(frozen=True)
class Darts(Relaxation):
    """Softmax of the logits, first order."""

    def draw(self, logits: Logits, values: Values, key: Key[Array, ""], temperature: Float[Array, ""]) -> Logits:
        """See `Relaxation.draw`; nothing is random."""
        del key
        return jax.nn.softmax(logits / temperature, where=values)


@RELAXATIONS.register("gdas")
@dataclass(frozen=True)
class Gdas(Relaxation):
    """One value drawn by Gumbel noise; its gradient is that of the softmax at the temperature (straight through)."""

    temperature: float = 10.0
    final_temperature: float = 0.1

    def draw(self, logits: Logits, values: Values, key: Key[Array, ""], temperature: Float[Array, ""]) -> Logits:
        """See `Relaxation.draw`."""
        noisy = jax.nn.log_softmax(logits, where=values) + jax.random.gumbel(key, logits.shape)
        soft = jax.nn.softmax(noisy / temperature, where=values)
        hard = jax.nn.one_hot(jnp.argmax(jnp.where(values, noisy, -jnp.inf), axis=-1), logits.shape[-1])
        return hard + (soft - jax.lax.stop_gradient(soft))


@RELAXATIONS.register("drnas")
@dataclass(frozen=True)
class Drnas(Relaxation):
    """A draw from the Dirichlet distribution of concentration elu(logits) + 1, differentiated implicitly.

    Args:
        anchor: Term that holds the concentration near its anchor 1, the uniform distribution on the simplex: `l2`, the
            decay of the logits; or `kl`, `decay` times the divergence from that distribution.
    """

    anchor: Literal["l2", "kl"] = "l2"

    def draw(self, logits: Logits, values: Values, key: Key[Array, ""], temperature: Float[Array, ""]) -> Logits:
        """See `Relaxation.draw`; a temperature of 1 is the Dirichlet's own draw."""
        # Gamma variates over their sum are a Dirichlet draw, and JAX differentiates their logarithms implicitly.
        gamma = jax.random.loggamma(key, jnp.where(values, _concentration(logits), 1.0))
        return jax.nn.softmax(gamma / temperature, where=values)

    def probabilities(self, logits: Logits, values: Values) -> Logits:
        """Returns the mean of the Dirichlet distribution."""
        concentration = jnp.where(values, _concentration(logits), 0.0)
        return concentration / jnp.sum(concentration, axis=-1, keepdims=True)

    def penalty(self, logits: Logits, values: Values) -> Float[Array, ""]:
        """See `Relaxation.penalty`."""
        if self.anchor == "l2":
            return super().penalty(logits, values)
        a = jnp.where(values, _concentration(logits), 1.0)
        total, count = jnp.sum(a, axis=-1, where=values), jnp.sum(values, axis=-1)
        terms = (a - 1) * (digamma(a) - digamma(total)[:, None]) - gammaln(a)
        return self.decay * jnp.sum(gammaln(total) - gammaln(count) + jnp.sum(terms, axis=-1, where=values))


def _concentration(logits: Logits) -> Logits:
    return jax.nn.elu(logits) + 1
