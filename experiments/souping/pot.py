"""Pot: exported networks in their supernet's coordinates, averaged there and judged on held-out examples.

A soup of one ingredient is that ingredient, with the batch statistics that it has. All others have the mean of the
weights and batch statistics that are calibrated anew, since statistics of an average are no average of statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.data import Dataset
from experiments.experiment import Experiment, build_experiment
from experiments.finetuning.frame import alone, architecture_of, data_for
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
        architectures: Architectures of the networks.

    Attributes:
        experiment: The same.
        held_out: Measures on its validation split.
    """

    def __init__(
        self,
        experiment: Experiment,
        ingredients: Sequence[Ingredient],
        architectures: Sequence[Architecture],
    ) -> None:
        self._net, self._ingredients, self._architectures = experiment.net, ingredients, architectures
        self.experiment = experiment
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
        has_any = self._net.has_statistics
        moments = embed_statistics(self._net, weights, architecture) if has_any else None
        return Mixed(embed(self._net, weights, architecture), architecture, moments)

    def placed(self, number: int) -> tuple[Params, Params]:
        """Returns the weights of an ingredient in the supernet's coordinates, and which of these it owns."""
        weights, architecture = self._ingredients[number].weights, self._architectures[number]
        return embed(self._net, weights, architecture), owned(self._net, architecture)

    def mean(self, members: Members) -> Params:
        """Returns the mean weights of some ingredients, each entry over those that own it; 0 where nobody does."""
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self._net.plain_shapes)
        return owned_mean(map(self.placed, members), nothing)

    def cut(self, params: Params, architecture: Architecture) -> Mixed:
        """Returns the network of an architecture among mixed weights; its batch statistics are calibrated."""
        return Mixed(params, architecture, self.held_out.statistics(params, architecture))

    def networks(self, members: Members) -> dict[Genes, Mixed]:
        """Returns the network of each shape of a soup's members."""
        if len(members) == 1:
            return {self.shapes[members[0]]: self.alone(members[0])}
        params = self.mean(members)
        by_shape = {self.shapes[number]: self._architectures[number] for number in members}
        return {shape: self.cut(params, architecture) for shape, architecture in by_shape.items()}

    def errors_of(self, members: Members) -> Mapping[Genes, float]:
        """Measures the soup of some ingredients, cut to each of their shapes."""
        return {shape: self.error(network) for shape, network in self.networks(members).items()}

    def error(self, network: Mixed) -> float:
        """Returns the error of a network on the validation split; NaN where it has failed."""
        return self.held_out.error(network.params, network.architecture, network.statistics)


def pot_of(config: ExperimentConfig, ingredients: Sequence[Ingredient], loaded: Dataset, where: str) -> Pot:
    """Puts exported networks into their supernet's coordinates.

    Args:
        config: Experiment that they were trained with.
        ingredients: The networks, which take and predict the same.
        loaded: The experiment's data.
        where: Its file, for messages.

    Raises:
        UserError: The data do not suit the networks, or these were cut from another space.
    """
    first = ingredients[0]
    experiment = build_experiment(alone(config), data_for(first.path, first.subnet, loaded, where))
    return Pot(experiment, ingredients, [architecture_of(one.path, experiment.space, where) for one in ingredients])
