"""Metric: a figure that is computed on request, of exported networks and of candidates of a search."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Int
from numpy import ndarray

from experiments.data import Split
from search_spaces import Registry, UserError
from supernet.engine.supernet import Params, Supernet
from supernet.export.subnet import Subnet
from supernet.tasks.answers import Figures
from supernet.training.evaluation import Scores


class Scorer(ABC):
    """Scores of candidates with inherited weights, on the same examples for all."""

    @abstractmethod
    def __call__(self, params: Params, genes: Int[ndarray, "p g"], fraction: float = 1.0) -> Scores:
        """Returns the metric of each candidate as the figure, and as the loss its distance from the best value.

        Args:
            params: The supernet's.
            genes: The candidates.
            fraction: Share of the examples, above 0, rounded up; a larger part holds the smaller ones.
        """


class Metric(ABC):
    """A figure of networks of one task.

    A search by it minimises the objective that follows from the figure (`experiments.objective.OBJECTIVES`); figures
    are shown as `FORMS` says there.

    Attributes:
        name: Name of the figure.
        inputs: Name of the task.
    """

    name: ClassVar[str]
    inputs: ClassVar[str]

    @abstractmethod
    def check(self, where: str) -> None:
        """Refuses a metric that cannot be computed here, before anything runs.

        Args:
            where: Setting or option that asks for it, in messages.

        Raises:
            UserError: A library is missing.
        """

    @abstractmethod
    def figures(self, subnet: Subnet, split: Split, where: str) -> Figures:
        """Computes the figures of an exported network on a split.

        Raises:
            UserError: The network or the split is not of the task.
        """

    @abstractmethod
    def scorer(self, net: Supernet, split: Split, examples: int) -> Scorer:
        """Returns what scores candidates on at most so many random examples of a split."""


METRICS: Registry[Metric] = Registry("metric", "experiments.metrics")
"""Metrics by name."""


def checked(names: Sequence[str], inputs: str, where: str) -> tuple[Metric, ...]:
    """Returns the metrics of these names, which can be computed on data of a task.

    Raises:
        UserError: A name is not known, or a metric is of another task or lacks a library.
    """
    found = []
    for name in names:
        try:
            metric = METRICS[name]
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if metric.inputs != inputs:
            raise UserError(f"{where}: {name} is a figure of {metric.inputs}, and the data are {inputs}. Leave it out.")
        metric.check(where)
        found.append(metric)
    return tuple(found)
