"""Pot: exported networks in their supernet's coordinates, averaged there and judged on held-out examples.

A soup of one ingredient is that ingredient, with the batch statistics that it has. All others have the mean of the
weights and batch statistics that are calibrated anew, since statistics of an average are no average of statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp

from experiments.experiment import Experiment
from experiments.souping.choice import Members
from experiments.souping.held_out import HeldOut
from experiments.souping.ingredients import Genes, Ingredient
from search_spaces import Architecture
from supernet.engine.embedding import embed, embed_statistics, owned
from supernet.engine.supernet import Params, Statistics
from supernet.weights.averages import owned_mean


@dataclass(frozen=True)
class Mixed:
    """A network of a soup, in the supernet's coordinates.

    Attributes:
        params: Its weights; other entries may be those of other shapes.
        architecture: Its architecture.
        statistics: Its batch statistics; None for families without any.
    """

    params: Params
    architecture: Architecture
    statistics: Statistics | None


class Pot:
    """Averages exported networks of one parent, and measures what comes out.

    Args:
        experiment: The experiment of the networks alone.
        ingredients: The networks.
        architectures: Of each.
        otherwise: Weights that no ingredient owns: the parent's; zeros when None, which no ingredient's shape reads.
    """

    def __init__(
        self,
        experiment: Experiment,
        ingredients: Sequence[Ingredient],
        architectures: Sequence[Architecture],
        otherwise: Params | None = None,
    ) -> None:
        self._net, self._ingredients, self._architectures = experiment.net, ingredients, architectures
        self._otherwise = otherwise
        self.held_out = HeldOut(experiment)

    @property
    def shapes(self) -> list[Genes]:
        """Shape of each ingredient."""
        return [architecture.genes for architecture in self._architectures]

    @cached_property
    def errors(self) -> list[float]:
        """Error of each ingredient alone, with the batch statistics that it has; NaN where it has failed."""
        return [self.error(self.alone(number)) for number in range(len(self._ingredients))]

    def alone(self, number: int) -> Mixed:
        """Returns an ingredient as it is."""
        weights, architecture = self._ingredients[number].weights, self._architectures[number]
        has_any = bool(jax.tree.leaves(self._net.statistics_shapes))
        moments = embed_statistics(self._net, weights, architecture) if has_any else None
        return Mixed(embed(self._net, weights, architecture), architecture, moments)

    def mean(self, members: Members) -> Params:
        """Returns the mean weights of some ingredients, each entry over those that own it."""

        def parts():
            for number in members:
                weights, architecture = self._ingredients[number].weights, self._architectures[number]
                yield embed(self._net, weights, architecture), owned(self._net, architecture)

        otherwise = self._otherwise
        if otherwise is None:
            otherwise = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self._net.plain_shapes)
        return owned_mean(parts(), otherwise)

    def networks(self, members: Members) -> dict[Genes, Mixed]:
        """Returns the network of each shape of a soup's members."""
        if len(members) == 1:
            return {self.shapes[members[0]]: self.alone(members[0])}
        params = self.mean(members)
        by_shape = {self.shapes[number]: self._architectures[number] for number in members}
        return {
            shape: Mixed(params, architecture, self.held_out.statistics(params, architecture))
            for shape, architecture in by_shape.items()
        }

    def errors_of(self, members: Members) -> Mapping[Genes, float]:
        """Measures the soup of some ingredients, cut to each of their shapes."""
        return {shape: self.error(network) for shape, network in self.networks(members).items()}

    def error(self, network: Mixed) -> float:
        """Returns the error of a network on the validation split; NaN where it has failed."""
        return self.held_out.error(network.params, network.architecture, network.statistics)
