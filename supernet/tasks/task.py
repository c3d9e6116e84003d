"""Task: the interface of what examples are and what outputs mean, and the registry of those that are known."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from search_spaces import Architecture, SearchSpace
from search_spaces.registry import Registry
from supernet.tasks.inputs import Input
from supernet.tasks.outputs import Outputs


class Task(ABC):
    """Kind of examples and outputs, and the way in which an exported network is used again.

    A family names, as `inputs`, the task or tasks whose examples its networks take. How examples are read, split and
    augmented is said by a data set of the task (`experiments.data.Dataset`), what becomes of raw ones by its `Input`,
    losses, figures and the meaning of labels by its `Outputs`.

    Attributes:
        unit: Plural name of examples, such as `images`.
    """

    unit: ClassVar[str]

    @classmethod
    @abstractmethod
    def example(cls, space: SearchSpace, architecture: Architecture) -> jax.ShapeDtypeStruct:
        """Returns shape and type of one input of a network, from the sizes that its space has of the data."""

    @classmethod
    @abstractmethod
    def read_input(cls, config: Mapping[str, Any]) -> Input:
        """Returns what an exported network does to what it is given.

        Args:
            config: Content of its `config.json`.

        Raises:
            KeyError, TypeError: The configuration does not contain it.
        """

    @classmethod
    @abstractmethod
    def read_outputs(cls, config: Mapping[str, Any]) -> Outputs:
        """Returns what the outputs of an exported network mean; arguments and errors as of `read_input`."""


TASKS: Registry[type[Task]] = Registry("task", "supernet.tasks")
