"""Data sets: what holds for each, whatever it is of, and so what the stages of an experiment may know about it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, ClassVar, Self

import jax
import numpy as np
from jaxtyping import Int

from experiments.data.augment import Augmentation
from search_spaces import SearchSpace, UserError
from supernet.inputs import Input

MakeBatch = Callable[[int, "Split", np.ndarray], tuple[jax.Array, jax.Array]]
"""Step, split and rows to what the network takes, and what its outputs should be."""


class Split(ABC):
    """Examples, by number."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, rows: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
        """Examples as they are stored, and the class of each of their outputs (negative for none); always the same."""

    @abstractmethod
    def take(self, indices: Int[np.ndarray, " n"]) -> Self:
        """These examples alone."""

    @property
    def strata(self) -> Int[np.ndarray, " n"]:
        """Group of each example, from 0; parts of a split have their share of each. One group where none is known."""
        return np.zeros(len(self), np.int32)


class Dataset(ABC):
    """Three splits that share no example.

    Attributes:
        inputs: What the examples are, as `SearchSpace.inputs` says what a family takes.
        unit: What one example is called.
        train: What the supernet learns from.
        validation: What search ranks subnets by.
        test: Read once, at export. Training and search must not touch it: a figure on it is honest only as long as
            nothing was chosen by it.
        fingerprint: SHA-256 of the source (every split, before splitting), in hexadecimal.
        class_names: Name of each class; none where outputs are tokens.
        tokenizer: Name of the tokenizer; None where there is none.
        notes: What a user should know of the data, a sentence each.
        bos: Whether texts begin with what the tokenizer puts before them.
    """

    inputs: ClassVar[str]
    unit: ClassVar[str]

    train: Split
    validation: Split
    test: Split
    fingerprint: str
    class_names: tuple[str, ...]
    tokenizer: str | None
    bos: bool
    notes: tuple[str, ...] = ()

    @abstractmethod
    def settings(self, names: Collection[str]) -> dict[str, Any]:
        """Those settings of a space that follow from the data.

        Args:
            names: Settings that the space's family has.

        Raises:
            UserError: The family cannot take such examples.
        """

    def check_setting(self, name: str, given: Any, value: Any) -> None:
        """Refuses a setting that the user gives and that the data contradict.

        Raises:
            UserError: They do.
        """
        if given != value:
            raise UserError(f"space.{name}: {given} is not what the data have, {value}. Set {value}, or leave it out.")

    def fitted(self, space: SearchSpace) -> Self:
        """Returns the data as networks of a space, which was built for them, can take them."""
        return self

    @property
    @abstractmethod
    def chance(self) -> float:
        """What a network that guesses has: an error, or for tokens a loss."""

    @abstractmethod
    def prepared(self, examples: np.ndarray) -> jax.Array:
        """What a network takes of examples as they are stored."""

    @abstractmethod
    def batches(
        self, seed: int, augmentation: Augmentation, label_smoothing: float, architecture: bool = False
    ) -> MakeBatch:
        """Returns what makes the batch of a training step: a function of the seed, the step and the rows.

        Args:
            seed: Seed of the run.
            augmentation: How images are changed.
            label_smoothing: Share of each label that is spread over all classes.
            architecture: Whether an architecture learns from the batches, whose draws are not those of the weights'.

        Raises:
            UserError: The settings are not for such examples.
        """

    @abstractmethod
    def preprocessing(self, space: SearchSpace, example: jax.ShapeDtypeStruct) -> Input:
        """What an exported network of a space does to examples before, so that they are like `example`."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Sizes, for `supernest check`."""
