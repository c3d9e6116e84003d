"""What exported networks take: images of bytes, made into numbers first, or tokens as they are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from search_spaces import UserError
from supernet.resolution import resize


class Input(ABC):
    """What becomes of what a user gives before a network takes it.

    Attributes:
        dtype: Of what a user gives.
    """

    dtype: str

    @abstractmethod
    def __call__(self, given: jax.Array) -> jax.Array:
        """What the network takes."""

    @abstractmethod
    def check(self, given: np.ndarray, shape: Sequence[int]) -> None:
        """Refuses what the network was not made for.

        Args:
            given: Examples, along the first axis.
            shape: Of the examples that it was trained on.

        Raises:
            UserError: Another type, shape or range.
        """

    @abstractmethod
    def traced(self, shape: Sequence[int]) -> jax.ShapeDtypeStruct:
        """A batch of what the network takes, of any size, from the shape of what a user gives."""

    def guarded(self, given: jax.Array, logits: jax.Array) -> jax.Array:
        """Marks the outputs of a compiled program that was given what the network does not take: they become NaN.

        Args:
            given: What the program was given, in the shapes of `traced`.
            logits: What it computed.
        """
        return logits

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """What `config.json` says of it under `preprocessing`."""


@dataclass(frozen=True)
class Preprocessing(Input):
    """Images of bytes: scaled to 0..1, resized, less the mean, over the deviation.

    Attributes:
        image_size: Height and width that the network takes.
        mean: Per channel, of pixels in 0..1.
        std: Per channel.
    """

    dtype = "uint8"

    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, given: jax.Array) -> jax.Array:
        """uint8[b, h, w, c] to float32[b, *image_size, c]."""
        x = (given.astype(jnp.float32) / 255 - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        return resize(x, self.image_size)

    def check(self, given: np.ndarray, shape: Sequence[int]) -> None:
        """See `Input.check`."""
        if given.dtype != np.uint8 or given.shape[1:] != tuple(shape):
            raise UserError(
                f"images: {given.dtype} of shape {given.shape[1:]}, expected uint8 of shape {tuple(shape)}. "
                "Give images like those that the network was trained on."
            )

    def traced(self, shape: Sequence[int]) -> jax.ShapeDtypeStruct:
        """See `Input.traced`."""
        (batch,) = jax.export.symbolic_shape("b")
        return jax.ShapeDtypeStruct((batch, *self.image_size, shape[-1]), jnp.float32)

    def as_dict(self) -> dict[str, Any]:
        """See `Input.as_dict`."""
        return {"scale": "1/255", "resize": "bilinear, antialiased", **asdict(self)}


@dataclass(frozen=True)
class Tokens(Input):
    """Tokens, of which a network takes any number up to its longest sequence.

    Attributes:
        vocabulary: How many different ones there are.
        length: Longest sequence.
    """

    dtype = "int32"

    vocabulary: int
    length: int

    def __call__(self, given: jax.Array) -> jax.Array:
        """int[b, t] to int32[b, t]."""
        return given.astype(jnp.int32)

    def check(self, given: np.ndarray, shape: Sequence[int]) -> None:
        """See `Input.check`."""
        if given.dtype.kind not in "iu" or given.ndim != 2 or not 0 < given.shape[1] <= self.length:
            raise UserError(
                f"tokens: {given.dtype} of shape {given.shape}, expected integers [n, t] with t in 1..{self.length}. "
                "Cut longer texts."
            )
        if given.size and not 0 <= given.min() <= given.max() < self.vocabulary:
            raise UserError(
                f"tokens: {given.min()} to {given.max()}, outside 0..{self.vocabulary - 1}. Use the tokenizer that the "
                "network was trained with."
            )

    def traced(self, shape: Sequence[int]) -> jax.ShapeDtypeStruct:
        """See `Input.traced`; sequences of any length up to the longest, which the program then insists on."""
        symbols = jax.export.symbolic_shape("b, t", constraints=(f"t <= {self.length}",))
        return jax.ShapeDtypeStruct(symbols, jnp.int32)

    def guarded(self, given: jax.Array, logits: jax.Array) -> jax.Array:
        """See `Input.guarded`: of each sequence that holds a token outside the vocabulary."""
        known = jnp.all((given >= 0) & (given < self.vocabulary), axis=1)
        return jnp.where(known[:, None, None], logits, jnp.nan)

    def as_dict(self) -> dict[str, Any]:
        """See `Input.as_dict`."""
        return asdict(self)


def read_input(config: Mapping[str, Any]) -> Input:
    """The input that a `config.json` tells of.

    Raises:
        KeyError, TypeError: It tells of none.
    """
    given = config["preprocessing"]
    if config["input"]["dtype"] == Tokens.dtype:
        return Tokens(given["vocabulary"], given["length"])
    return Preprocessing(tuple(given["image_size"]), tuple(given["mean"]), tuple(given["std"]))
