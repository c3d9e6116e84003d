"""Data sets: what holds for each, whatever it is of, and so what the stages of an experiment may know about it."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, Generic, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Int64
from typing_extensions import TypeVar

from experiments.data.augment import Augmentation
from experiments.data.batches import batch_indices
from experiments.records.plain import JsonObject
from search_spaces import SearchSpace, UserError
from search_spaces.randomness import Purpose
from supernet.export.subnet import Subnet
from supernet.tasks.inputs import Input
from supernet.tasks.outputs import Outputs
from supernet.tasks.task import TASKS

MakeBatch = Callable[[int, "Split", np.ndarray], tuple[jax.Array, jax.Array]]
"""Step, split and rows to what the network takes, and the targets of its outputs."""


class Split(ABC):
    """Examples, by number."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, rows: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
        """Examples as they are stored, and their labels, such as classes (negative for none); always the same."""

    @abstractmethod
    def take(self, indices: Int[np.ndarray, " n"]) -> Self:
        """Returns the examples in these rows alone."""

    @property
    def strata(self) -> Int[np.ndarray, " n"]:
        """Group of each example, from 0; parts of a split have their share of each. One group where none is known."""
        return np.zeros(len(self), np.int32)

    def batch(
        self, size: int, seed: int, step: int, purpose: Purpose = Purpose.EXAMPLE_ORDER
    ) -> Int64[np.ndarray, " b"]:
        """Returns the rows of one batch, a function of its arguments; by default, what `batch_indices` gives.

        Args:
            size: Examples a batch, at least 1.
            seed: Decides the order, with the epoch.
            step: Number of the batch, from 0.
            purpose: Whose order it is.

        Raises:
            UserError: No examples, or a size of less than 1.
        """
        return batch_indices(len(self), size, seed, step, purpose)

    def for_network(self, where: str, class_names: Sequence[str], subnet: Subnet) -> "Split":
        """Returns these examples as an exported network takes them, and labels as it counts them.

        Args:
            where: The examples in messages.
            class_names: Names of their classes; numbers where empty.
            subnet: The network.

        Raises:
            UserError: The network does not know a class or a feature of the examples.
        """
        return self


Part = TypeVar("Part", bound=Split, covariant=True, default=Split)


class Dataset(ABC, Generic[Part]):
    """Three splits that share no example.

    Attributes:
        inputs: Name of the task, one of `TASKS`, as `SearchSpace.inputs` says what a family takes.
        outputs: Meaning of a network's outputs, and of labels as targets.
        train: Examples that the supernet learns from.
        validation: Examples on which search ranks subnets.
        test: Read once, at export. Training and search must not touch it: a figure on it is honest only as long as
            nothing was chosen by it.
        fingerprint: SHA-256 of the source (every split, before splitting), in hexadecimal.
        class_names: Name of each class; none where outputs are tokens or numbers.
        tokenizer: Name of the tokenizer; None where there is none.
        notes: Remarks on the data for the user, a sentence each.
        bos: Whether texts begin with what the tokenizer puts before them.
    """

    inputs: ClassVar[str]
    outputs: Outputs

    train: Part
    validation: Part
    test: Part
    fingerprint: str
    class_names: tuple[str, ...]
    tokenizer: str | None
    bos: bool
    notes: tuple[str, ...] = ()

    @abstractmethod
    def settings(self, names: Collection[str]) -> JsonObject:
        """Returns the settings of a space, of these names, that follow from the data.

        Args:
            names: Settings that the space's family has.

        Raises:
            UserError: The family cannot take such examples.
        """

    def check_setting(self, name: str, given: Any, value: Any) -> None:
        """Refuses a setting that the user gives and that the data contradict.

        Raises:
            UserError: The data contradict the setting.
        """
        if given != value:
            raise UserError(f"space.{name}: {given} is not what the data have, {value}. Set {value}, or leave it out.")

    @property
    def unit(self) -> str:
        """Plural name of examples, such as `images`."""
        return TASKS[self.inputs].unit

    def fitted(self, space: SearchSpace) -> Self:
        """Returns the data as networks of a space, which was built for them, can take them."""
        return self

    def for_network(self, where: str, subnet: Subnet) -> Self:
        """Returns the data as an exported network takes them, so that it can be trained on.

        Classes and features are the network's, and so are the statistics by which inputs are normalised.

        Args:
            where: The data in messages.
            subnet: The network.

        Raises:
            UserError: The network does not know a class or a feature, or takes examples of another kind.
        """
        if subnet.config["task"] != self.inputs:
            raise UserError(f"{where}: holds {self.unit}, and the network takes {TASKS[subnet.config['task']].unit}.")
        changed = self._of_network(subnet)
        for name in ("train", "validation", "test"):
            changed[name] = getattr(self, name).for_network(where, self.class_names, subnet)
        found = dataclasses.replace(self, **changed)  # type: ignore[type-var]
        subnet.preprocessing.check(found.train.read(np.zeros(1, np.int64))[0], subnet.config["input"]["shape"])
        return found

    def _of_network(self, subnet: Subnet) -> dict[str, Any]:
        """Returns the fields of the data that become those of a network."""
        return {}

    @property
    @abstractmethod
    def chance(self) -> float:
        """Objective of guessing: the error of the commonest class, the loss of equal odds, or the error of the mean."""

    def prepared(self, examples: np.ndarray) -> jax.Array:
        """Returns stored examples in the form that a network takes: by default as they are."""
        return jnp.asarray(examples)

    @abstractmethod
    def batches(
        self, seed: int, augmentation: Augmentation, label_smoothing: float, architecture: bool = False
    ) -> MakeBatch:
        """Returns what makes the batch of a training step: a function of the seed, the step and the rows.

        Args:
            seed: Seed of the run.
            augmentation: Changes of images.
            label_smoothing: Share of each label that is spread over all classes.
            architecture: Whether an architecture learns from the batches, whose draws are not those of the weights'.

        Raises:
            UserError: The settings are not for such examples.
        """

    def training_outputs(self, label_smoothing: float) -> Outputs:
        """Returns what outputs mean to training; `outputs`, where smoothing is part of the targets.

        Args:
            label_smoothing: As in `batches`.
        """
        del label_smoothing
        return self.outputs

    def example_weights(self, targets: jax.Array) -> np.ndarray:
        """Returns the factor of each example's loss in the mean of a step, of mean 1: float32[b], by default 1.

        Args:
            targets: Targets that `batches` returns.
        """
        return np.ones(len(targets), np.float32)

    @abstractmethod
    def preprocessing(self, space: SearchSpace, example: jax.ShapeDtypeStruct) -> Input:
        """Returns the preprocessing of an exported network of a space, whose result is like `example`."""

    @abstractmethod
    def describe(self) -> JsonObject:
        """Sizes, for `supernest check`."""

    @property
    @abstractmethod
    def examples_text(self) -> str:
        """Description of the examples for people, such as `images of 8x8x1, 10 classes`."""
