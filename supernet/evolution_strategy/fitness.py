"""Fitness of members: compiled figures, users' functions, and how a population's fitness becomes coefficients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from search_spaces import Registry, UserError
from supernet.tasks.outputs import Outputs

HostFitness = Callable[[np.ndarray, np.ndarray], float]
"""A user's function of a member's outputs [b, ..., c] and the targets [b, ...]; higher is better. Runs in Python."""


@dataclass(frozen=True)
class CompiledFitness:
    """A fitness that is part of the compiled program.

    Attributes:
        function: Of what outputs mean, logits, targets and the examples' weights [b]; higher is better.
        figure: Name of the figure that outputs must have; None fits all.
    """

    function: Callable[[Outputs, jax.Array, Any, jax.Array], Float[Array, ""]]
    figure: str | None = None


FITNESS: Registry[CompiledFitness | HostFitness] = Registry("fitness", "supernet.evolution_strategy.fitnesses")


def check_fitness(name: str, outputs: Outputs) -> None:
    """Refuses a fitness that outputs do not have.

    Raises:
        UserError: With the figure that they have.
    """
    fitness = FITNESS[name]
    if isinstance(fitness, CompiledFitness) and fitness.figure not in (None, outputs.figure):
        raise UserError(
            f"train.evolution_strategy.fitness: {name} is no figure of these data, which have {outputs.figure}. Set "
            "loss, or register a function."
        )


def shaped(fitness: Float[np.ndarray, " n"], shaping: Literal["rank", "standardise"], groups: int) -> np.ndarray:
    """Coefficients of members: ranks or values, less the mean of their group, over the deviation of the population.

    Both members of a pair, of which one has a fitness that is not finite, get 0: the other one alone would pull along
    its perturbation whatever its fitness is, as nothing is subtracted.

    Args:
        fitness: Members of a pair after each other, groups after each other.
        shaping: `rank`: the mean rank of equals, within the group. `standardise`: the value.
        groups: How many there are.

    Returns:
        float64[n] of unit variance; zeros where all members are equal.
    """
    finite = np.repeat(np.isfinite(fitness.reshape(-1, 2)).all(axis=1), 2)
    values = np.zeros(len(fitness))
    for group in np.split(np.arange(len(fitness)), groups):
        rows = group[finite[group]]
        if len(rows):
            own = ranks(fitness[rows]) if shaping == "rank" else fitness[rows].astype(np.float64)
            values[rows] = own - own.mean()
    deviation = np.sqrt(np.mean(np.square(values[finite]))) if finite.any() else 0.0
    return values / deviation if deviation > 0 else values


def ranks(values: np.ndarray) -> Float[np.ndarray, " n"]:
    """Ranks from 0; equals share the mean of theirs."""
    unique, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    del unique
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]


def left_out(fitness: np.ndarray) -> int:
    """Members whose fitness is not finite."""
    return int(np.count_nonzero(~np.isfinite(fitness)))


def weighted_mean(values: jax.Array, weights: jax.Array) -> Float[Array, ""]:
    """Mean over examples of values times their weights."""
    return jnp.mean(values * weights)
