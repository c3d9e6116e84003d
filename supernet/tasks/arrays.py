"""Task `arrays`: float arrays of one shape (rows of a table, signals, maps), with classes or numbers to predict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from search_spaces import Architecture, UserError
from search_spaces.sealed_json import JsonObject
from supernet.tasks.classes import CLASSES
from supernet.tasks.inputs import Input
from supernet.tasks.numbers import Numbers
from supernet.tasks.outputs import Outputs
from supernet.tasks.task import TASKS, Task


@dataclass(frozen=True)
class Standardised(Input):
    """Arrays of numbers, standardised: less the mean of the feature, over its deviation.

    The features are the entries along the last axis.

    Attributes:
        names: Name of each feature.
        mean: Mean of each over the training split.
        std: Standard deviation of each, likewise.
    """

    task = "arrays"
    dtype = "float32"

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, given: Shaped[Array, "b ..."]) -> Float[Array, "b ..."]:
        """Returns float32[b, ..., features]."""
        mean, std = (np.array(value, np.float32) for value in (self.mean, self.std))
        return (given.astype(jnp.float32) - mean) / std

    def check(self, given: Shaped[np.ndarray, "n ..."], shape: Sequence[int]) -> None:
        """See `Input.check`."""
        if given.dtype.kind not in "fiub" or given.shape[1:] != tuple(shape):
            raise UserError(
                f"arrays: {given.dtype} of shape {given.shape[1:]}, expected numbers of shape {tuple(shape)}. Give "
                "arrays like those that the network was trained on."
            )
        if given.dtype.kind == "f" and not np.isfinite(given).all():
            place = tuple(np.argwhere(~np.isfinite(given))[0])
            raise UserError(
                f"arrays: example {place[0]}, feature {self.names[place[-1]]!r}: {given[place]} is no number. Fill it "
                "in, or leave the example out."
            )

    def traced(self, shape: Sequence[int]) -> jax.ShapeDtypeStruct:
        """See `Input.traced`."""
        (batch,) = jax.export.symbolic_shape("b")
        return jax.ShapeDtypeStruct((batch, *shape), jnp.float32)

    def as_dict(self) -> JsonObject:
        """See `Input.as_dict`."""
        return asdict(self)


@TASKS.register("arrays")
class Arrays(Task):
    """Float arrays of any one shape, each of a class, or with one number or several to predict."""

    unit = "arrays"

    @classmethod
    def example(cls, space: Any, architecture: Architecture) -> jax.ShapeDtypeStruct:
        """See `Task.example`: `input_shape`, or a row of `features`."""
        shape = getattr(space, "input_shape", None) or (space.features,)
        return jax.ShapeDtypeStruct(tuple(shape), np.float32)

    @classmethod
    def read_input(cls, config: Mapping[str, Any]) -> Standardised:
        """See `Task.read_input`."""
        given = config["preprocessing"]
        return Standardised(tuple(given["names"]), tuple(given["mean"]), tuple(given["std"]))

    @classmethod
    def read_outputs(cls, config: Mapping[str, Any]) -> Outputs:
        """See `Task.read_outputs`."""
        given = config["outputs"]
        if given["type"] == "classes":
            return CLASSES
        return Numbers(tuple(given["names"]), tuple(given["mean"]), tuple(given["std"]))
