"""Input: what becomes of what a user gives before an exported network takes it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float, Shaped

from search_spaces.sealed_json import JsonObject


class Input(ABC):
    """Preprocessing of what a user gives, before a network takes it.

    Attributes:
        task: Name in `TASKS` of the task that it belongs to.
        dtype: Type of what a user gives.
    """

    task: ClassVar[str]
    dtype: str

    @abstractmethod
    def __call__(self, given: Shaped[Array, "b ..."]) -> Shaped[Array, "b ..."]:
        """Returns what the network takes."""

    @abstractmethod
    def check(self, given: Shaped[np.ndarray, "n ..."], shape: Sequence[int]) -> None:
        """Refuses what the network was not made for.

        Args:
            given: Examples, along the first axis.
            shape: Shape of the examples that it was trained on.

        Raises:
            UserError: Another type, shape or range.
        """

    @abstractmethod
    def traced(self, shape: Sequence[int]) -> jax.ShapeDtypeStruct:
        """Returns a batch of what the network takes, of any size, from the shape of what a user gives."""

    def guarded(self, given: Shaped[Array, "b ..."], logits: Float[Array, "b *t c"]) -> Float[Array, "b *t c"]:
        """Marks the outputs of a compiled program that was given what the network does not take: they become NaN.

        Args:
            given: Input of the program, in the shapes of `traced`.
            logits: Output of the program.
        """
        return logits

    @abstractmethod
    def as_dict(self) -> JsonObject:
        """Returns what `config.json` says of it under `preprocessing`."""
