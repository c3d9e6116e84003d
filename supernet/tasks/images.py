"""Task `images`: pictures of bytes, each of one class."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from search_spaces import Architecture, UserError
from search_spaces.sealed_json import JsonObject
from supernet.layers.resolution import resize
from supernet.tasks.classes import CLASSES, Classes
from supernet.tasks.inputs import Input
from supernet.tasks.task import TASKS, Task


@dataclass(frozen=True)
class Preprocessing(Input):
    """Images of bytes: scaled to 0..1, resized, less the mean, over the deviation.

    Attributes:
        image_size: Height and width that the network takes.
        mean: Per channel, of pixels in 0..1.
        std: Per channel.
        background: Colour behind transparent pixels of a picture file; None where these are refused.
    """

    task = "images"
    dtype = "uint8"

    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: str | None = None

    def __call__(self, given: UInt8[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        """uint8[b, h, w, c] to float32[b, *image_size, c]."""
        x = (given.astype(jnp.float32) / 255 - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        return resize(x, self.image_size)

    def check(self, given: Shaped[np.ndarray, "n ..."], shape: Sequence[int]) -> None:
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

    def as_dict(self) -> JsonObject:
        """See `Input.as_dict`."""
        return {"scale": "1/255", "resize": "bilinear, antialiased", **asdict(self)}


@TASKS.register("images")
class Images(Task):
    """Pictures, each of one class."""

    unit = "images"

    @classmethod
    def example(cls, space: Any, architecture: Architecture) -> jax.ShapeDtypeStruct:
        """See `Task.example`: `input_shape`, or a square of pixels in floats.

        Its side is the architecture's resolution where that is a choice.
        """
        if shape := getattr(space, "input_shape", None):
            return jax.ShapeDtypeStruct(tuple(shape), np.float32)
        side = architecture.description.get("resolution") or space.image_size
        return jax.ShapeDtypeStruct((side, side, space.channels), np.float32)

    @classmethod
    def read_input(cls, config: Mapping[str, Any]) -> Preprocessing:
        """See `Task.read_input`."""
        given = config["preprocessing"]
        size, mean, std = (tuple(given[name]) for name in ("image_size", "mean", "std"))
        return Preprocessing(size, mean, std, given.get("background"))

    @classmethod
    def read_outputs(cls, config: Mapping[str, Any]) -> Classes:
        """See `Task.read_outputs`."""
        return CLASSES
