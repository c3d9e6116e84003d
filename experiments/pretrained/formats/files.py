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
    """The smallest type that holds the numbers of all these, of which there is at least one."""
    return np.dtype(reduce(jnp.promote_types, types))


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies.

    Attributes:
        name: In its file.
        file: The file.
        shape: Of the tensor.
        dtype: As safetensors calls it.
        offset: Bytes before it in the file.
    """

    name: str
    file: Path
    shape: Shape
    dtype: str
    offset: int

    @property
    def nbytes(self) -> int:
        """Of all of it."""
        return math.prod(self.shape) * np.dtype(TYPES[self.dtype]).itemsize

    def read(self) -> np.ndarray:
        """The tensor; its type must be one of `TYPES`. Not mapped, so that memory holds no more than is in use."""
        return self[:]

    def part(self, index: int) -> np.ndarray:
        """What is at one place of the first axis; otherwise as `read`."""
        return self[index : index + 1][0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # it is one
        return np.asarray(self.read(), dtype)

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        """Rows of the first axis, a slice without a step or the places in an array; otherwise as `read`."""
        if not isinstance(places, slice):
            return np.concatenate([self[place : place + 1] for place in places.tolist()])
        start, stop, _ = places.indices(self.shape[0])
        kind, count = np.dtype(TYPES[self.dtype]), math.prod(self.shape[1:])
        offset = self.offset + start * count * kind.itemsize
        found = np.fromfile(self.file, kind, (stop - start) * count, offset=offset)
        return found.reshape(stop - start, *self.shape[1:])


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
    """What to say of a checkpoint that is a pickle."""
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
    """The tensors of one file by name.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with safe_open(path, framework="numpy"):  # checks that the header is sound and fits the file
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). {_AGAIN}") from None
    return {
        name: Tensor(name, path, tuple(entry["shape"]), entry["dtype"], 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }
