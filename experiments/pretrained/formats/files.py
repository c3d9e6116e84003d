"""The safetensors files of a checkpoint: which tensor lies in which, known from their headers alone."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from experiments.pretrained.formats.tensors import Shape
from search_spaces import UserError
from search_spaces.sealed_json import parse_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.dtype(jnp.bfloat16)}
_AGAIN = "Copy or download it again."


def common_type(types: Iterable[Any]) -> np.dtype:
    """Returns the smallest type that represents the numbers of all these types (at least one)."""
    return np.dtype(reduce(jnp.promote_types, types))


@dataclass(frozen=True)
class Tensor:
    """Tensor of a checkpoint's file, which is read when it is used.

    Attributes:
        name: In its file.
        file: The file.
        shape: Shape of the tensor.
        dtype: Type, as safetensors names it.
    """

    name: str
    file: Path
    shape: Shape
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size of the tensor in bytes."""
        return math.prod(self.shape) * np.dtype(TYPES[self.dtype]).itemsize

    def read(self) -> np.ndarray:
        """Reads the tensor; its type must be one of `TYPES`. A copy, so that memory holds no more than is in use."""
        return self[:]

    def part(self, index: int) -> np.ndarray:
        """Reads one place of the first axis; otherwise as `read`."""
        return self[index : index + 1][0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # it is one
        return np.asarray(self.read(), dtype)

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        """Rows of the first axis, a slice without a step or the places in an array; otherwise as `read`."""
        with safe_open(self.file, framework="numpy") as file:
            rows = file.get_slice(self.name)
            if isinstance(places, slice):
                return rows[slice(*places.indices(self.shape[0]))]
            return np.concatenate([rows[place : place + 1] for place in places.tolist()])


def tensors_of(directory: Path) -> dict[str, Tensor]:
    """Returns all tensors of a checkpoint by name.

    One file counts before an index. Of an index only the names of its files count, not where it says that tensors are:
    all tensors of those files are the checkpoint's.

    Raises:
        UserError: No safetensors, or a shard that is missing or cannot be read.
    """
    if (directory / SINGLE).is_file():  # first, as transformers: it may have been saved over shards
        return tensors_in(directory / SINGLE)
    if (directory / INDEX).is_file():
        return _indexed(directory)
    pickles = sorted(path.name for path in directory.glob("pytorch_model*.bin"))
    if pickles:
        raise pickled(str(directory / pickles[0]))
    raise UserError(f"{directory}: has no {SINGLE} and no {INDEX}. Give a directory with safetensors.")


def pickled(where: str) -> UserError:
    """Returns the message for a checkpoint that is a pickle."""
    return UserError(
        f"{where}: a pickle, which may run code when it is opened, so it is not. Where you trust it, load it with "
        "transformers and call `save_pretrained(DIR)`, which writes safetensors; then import DIR."
    )


def _indexed(directory: Path) -> dict[str, Tensor]:
    path = directory / INDEX
    try:
        places: Mapping[str, Any] = parse_json(path.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({str(file) for file in places.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({error!r}). {_AGAIN}") from None
    for file in files:
        if not re.fullmatch(r"[\w.-]+\.safetensors", file):
            raise UserError(f"{path}: {file!r} is not the name of a safetensors file beside it. {_AGAIN}")
    missing = [file for file in files if not (directory / file).is_file()]
    if missing:
        raise UserError(
            f"{directory / missing[0]}: missing, though {INDEX} names it ({len(missing)} of {len(files)} shards "
            f"are). {_AGAIN}"
        )
    return {name: tensor for file in files for name, tensor in tensors_in(directory / file).items()}


def tensors_in(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of one file by name.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). {_AGAIN}") from None
    return {name: Tensor(name, path, tuple(of.get_shape()), of.get_dtype()) for name, of in slices.items()}
