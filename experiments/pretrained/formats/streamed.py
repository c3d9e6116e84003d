"""Weights of a supernet as a safetensors file that is written and read array by array, or in smaller parts still."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.pretrained.formats.files import TYPES, Tensor, tensors_in
from experiments.pretrained.formats.tensors import Shape
from search_spaces import UserError
from supernet.engine.supernet import Params, Supernet
from supernet.export.subnet import flatten, unflatten
from supernet.ordering.reorder import Moves

_PIECE = 1 << 23  # bytes


class StreamedFile:
    """A safetensors file whose arrays come in any order and in parts; a context manager.

    Args:
        path: Path of the file; replaced.
        arrays: Shape and type of all that it is to hold; types are among those of `files.TYPES`.
    """

    def __init__(self, path: Path, arrays: Mapping[str, tuple[Shape, Any]]) -> None:
        self._dtypes = {name: np.dtype(dtype) for name, (_, dtype) in arrays.items()}
        codes = {np.dtype(known): code for code, known in TYPES.items()}
        entries, end = {}, 0
        for name in sorted(arrays, key=lambda name: -self._dtypes[name].itemsize):  # so that each is aligned
            shape, dtype = arrays[name][0], self._dtypes[name]
            start, end = end, end + math.prod(shape) * dtype.itemsize
            entries[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [start, end]}
        head = json.dumps(entries, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
        self._row_bytes = {name: math.prod(arrays[name][0][1:]) * kind.itemsize for name, kind in self._dtypes.items()}
        self._offsets = {name: 8 + len(head) + entry["data_offsets"][0] for name, entry in entries.items()}
        self._missing = end
        self._file = path.open("wb")
        self._file.write(len(head).to_bytes(8, "little") + head)

    def write(self, name: str, array: np.ndarray, index: int | None = None) -> None:
        """Writes an array, or the part of it from place `index` of its first axis on; converts some rows at a time."""
        self._file.seek(self._offsets[name] + (index or 0) * self._row_bytes[name])
        for part in _pieces(array):
            data = np.ascontiguousarray(array[part], self._dtypes[name])
            self._file.write(data.reshape(-1).view(np.uint8).data)
            self._missing -= data.nbytes

    def __enter__(self) -> "StreamedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        assert error is not None or self._missing == 0, "a part was never written"


class StoredParams:
    """The parameters of a supernet in a file that `StreamedFile` wrote, to be read in whole or in part.

    Args:
        path: The file.
        net: The supernet.

    Raises:
        UserError: The file cannot be read, or is not of this supernet.
    """

    def __init__(self, path: Path, net: Supernet) -> None:
        self._net, self._tensors = net, tensors_in(path)
        wanted = {name: leaf.shape for name, leaf in flatten(net.plain_shapes).items()}
        for name in sorted(self._tensors.keys() | wanted.keys()):
            shape = self._tensors[name].shape if name in self._tensors else None
            if shape != wanted.get(name):
                raise UserError(
                    f"{path}: {name}: shape {shape}, but the space means {wanted.get(name)}. Its largest network must "
                    "be the one that was imported."
                )

    def whole(self, dtype: Any = None) -> Params:
        """Reads all parameters; memory holds one array twice for a moment.

        Args:
            dtype: Type of the result; as stored when None.
        """
        return unflatten({name: jnp.asarray(tensor.read(), dtype) for name, tensor in self._tensors.items()})

    @property
    def embedding_and_head(self) -> Params:
        """Parameters outside the layers, each read when it is used."""
        prefix = f"{self._net.stacked}."
        return unflatten({name: tensor for name, tensor in self._tensors.items() if not name.startswith(prefix)})

    def layer(self, number: int) -> Params:
        """Returns the parameters of one layer."""
        prefix = f"{self._net.stacked}."
        found = {name: tensor.part(number) for name, tensor in self._tensors.items() if name.startswith(prefix)}
        return unflatten({name.removeprefix(prefix): array for name, array in found.items()})


def _pieces(array: np.ndarray | Tensor) -> Iterator[slice]:
    """Parts of an array's first axis, of a few MiB each."""
    step = max(1, array.shape[0] * _PIECE // max(array.nbytes, 1))
    return (slice(start, start + step) for start in range(0, array.shape[0], step))


def rewrite(path: Path, moves: Mapping[str, Moves]) -> None:
    """Moves the entries of each array of a file, a part at a time unless they move along its first axis."""
    tensors = tensors_in(path)
    changed = path.with_name(f"{path.name}.changed")
    with StreamedFile(changed, {name: (tensor.shape, TYPES[tensor.dtype]) for name, tensor in tensors.items()}) as file:
        for name, tensor in tensors.items():
            in_place = all(axis > 0 for _, axis in moves[name].orders)
            for part in _pieces(tensor) if in_place else [slice(0, tensor.shape[0])]:
                file.write(name, moves[name].of(part)(tensor[part]), part.start)
    os.replace(changed, path)
