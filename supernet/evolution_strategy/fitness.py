"""Fitness of members: compiled figures, users' functions, and how a population's fitness becomes coefficients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, Shaped

from search_spaces import Registry, UserError
from supernet.tasks.outputs import Outputs

HostFitness = Callable[[Float[np.ndarray, "b *t c"], Shaped[np.ndarray, "b ..."]], float]
"""A user's function of a member's outputs and targets, which runs in Python; higher is better.

Outputs are float[b, *t, c]. Targets of images are distributions, float[b, c]: one-hot, unless augmentation or label
smoothing changes them. Those of other data with classes are their numbers, int[b] or int[b, t], a negative one is no
label; with label smoothing they are distributions too. Those of regression are float[b, c], standardised; NaN is no
label. Factors of examples, which samplers give, do not reach the function.
"""


@dataclass(frozen=True)
class CompiledFitness:
    """A fitness that is part of the compiled program.

    Attributes:
        function: Function of what outputs mean, logits, targets and the examples' weights [b]; higher is better.
        figure: Name of the figure that outputs must have; None fits all.
    """

    function: Callable[[Outputs, Float[Array, "b *t c"], Any, Float[Array, " b"]], Num[Array, ""]]
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


def shaped(
    fitness: Float[np.ndarray, " n"], shaping: Literal["rank", "standardise", "sign"], groups: int
) -> Float[np.ndarray, " n"]:
    """Coefficients of members: ranks or values, less the mean of their group, over the deviation of the population.

    Both members of a pair, of which one has a fitness that is not finite, get 0: the other one alone would pull along
    its perturbation whatever its fitness is, as nothing is subtracted.

    Args:
        fitness: Members of a pair after each other, groups after each other.
        shaping: `rank`: the mean rank of equals, within the group. `standardise`: the value. `sign`: 1 for the better
            one of a pair, -1 for the other, 0 for equals, whatever the group.
        groups: Number of groups.

    Returns:
        float64[n] of unit variance, but for equals of `sign`; zeros where all members are equal.
    """
    if shaping == "sign":
        first, second = np.where(finite_pairs(fitness), fitness.reshape(-1, 2).T, 0.0)
        better = np.sign(first - second)
        return np.stack([better, -better], axis=1).reshape(-1)
    finite = np.repeat(finite_pairs(fitness), 2)
    values = np.zeros(len(fitness))
    for group in np.split(np.arange(len(fitness)), groups):
        rows = group[finite[group]]
        if len(rows):
            own = ranks(fitness[rows]) if shaping == "rank" else fitness[rows].astype(np.float64)
            values[rows] = own - own.mean()
    deviation = np.sqrt(np.mean(np.square(values[finite]))) if finite.any() else 0.0
    return values / deviation if deviation > 0 else values


def ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns ranks from 0; equals share the mean of theirs."""
    from scipy.stats import rankdata  # takes most of a second to import, so only where it is used

    return rankdata(values) - 1


def finite_pairs(fitness: Float[np.ndarray, "*k n"]) -> Bool[np.ndarray, "*k pairs"]:
    """Returns which pairs have two members with a finite fitness; the others are left out of the update."""
    first, second = fitness[..., ::2], fitness[..., 1::2]
    return np.isfinite(first) & np.isfinite(second)


def weighted_mean(values: Float[Array, " b"], weights: Float[Array, " b"]) -> Float[Array, ""]:
    """Returns the mean over examples of values times their weights."""
    return jnp.mean(values * weights)
