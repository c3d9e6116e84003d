"""Nested exports: one directory of weights of which any share can be read, the most important blocks first.

`weights.safetensors` holds tensors that are read always, and then one tensor of bytes for each residual block, in the
order of importance. `nested.json` lists the blocks with their hashes, so that what is not read need not be verified.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from search_spaces import UserError
from search_spaces.sealed_json import read_json
from supernet.export.subnet import WEIGHTS
from supernet.storage.manifest import verify_manifest
from supernet.weights.residual_blocks import Block, packed_bytes

NESTED = "nested.json"
_REMEDY = "Export it again from its run."
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|kB|MB|GB)?")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_LARGEST = Decimal(10**18)  # more than any file has
_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
    "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of a number, by safetensors' name of its type."""
_DIMENSIONS = 32  # of a tensor, at most; NumPy has a limit itself
_SMALLEST = 256  # weights; smaller tensors stay as they are


@dataclass(frozen=True)
class Entry:
    """A block in the file.

    Attributes:
        weight: Dotted name of the weight that it is a part of.
        level: Number of blocks of the weight that come before.
        sha256: Hash of its bytes.
    """

    weight: str
    level: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """Content of `nested.json`.

    Attributes:
        shapes: Shape of each weight that is in blocks, by dotted name.
        plain: Hash of each tensor that is read always, by dotted name.
        plain_bytes: Size of all of these.
        blocks: In the order in which they are read.
    """

    shapes: Mapping[str, tuple[int, ...]]
    plain: Mapping[str, str]
    plain_bytes: int
    blocks: Sequence[Entry]

    @property
    def sizes(self) -> list[int]:
        """Bytes that are read with the first n blocks, for each n that is a network: each weight has one at least."""
        sizes = np.cumsum([self.plain_bytes, *(self.bytes_of(entry) for entry in self.blocks)])
        return [int(size) for size in sizes[len(self.shapes) :]]

    def bytes_of(self, entry: Entry) -> int:
        """Returns the size of a block in bytes."""
        return packed_bytes(*matrix_shape(self.shapes[entry.weight]))

    def count(self, size: int | None, where: Path) -> int:
        """Returns the number of blocks that fit into a size.

        Args:
            size: Bytes; all blocks when None.
            where: The directory, for messages.

        Raises:
            UserError: The smallest network does not fit.
        """
        if size is None:
            return len(self.blocks)
        fitting = sum(1 for one in self.sizes if one <= size)
        if not fitting:
            raise UserError(
                f"size: {size:,} bytes are less than the smallest network of {where} has, {self.sizes[0]:,}. Give more."
            )
        return len(self.shapes) + fitting - 1

    @classmethod
    def read(cls, directory: Path) -> "Index":
        """Reads the index of a directory; it is compared with the names, types and sizes of the tensors beside it.

        So no more memory is needed for its weights than 32 times the size of the file: a block has a bit a weight.

        Raises:
            UserError: The index is damaged, or belongs to other tensors than those beside it.
        """
        found = read_json(directory / NESTED, _REMEDY)
        try:
            index = _parsed(found)
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{directory / NESTED}: is damaged. {_REMEDY}") from None
        fault = next(_faults(index), None) or next(_differences(index, _tensors(directory)), None)
        if fault is not None:
            raise UserError(f"{directory / NESTED}: {fault}. {_REMEDY}")
        return index


def _parsed(found: Mapping[str, Any]) -> Index:
    """Returns what JSON holds; raises KeyError, TypeError or AttributeError where values are of other types."""
    shapes = {name: tuple(_of(int, size) for size in shape) for name, shape in found["shapes"].items()}
    plain = {name: _of(str, digest) for name, digest in found["plain"].items()}
    kinds = {"weight": str, "level": int, "sha256": str}
    blocks = [Entry(**{key: _of(kinds[key], value) for key, value in entry.items()}) for entry in found["blocks"]]
    return Index(shapes, plain, _of(int, found["plain_bytes"]), blocks)


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:  # a bool is no number here
        raise TypeError
    return value


def _faults(index: Index) -> Iterator[str]:
    """Says what is wrong in an index by itself; each is only looked for where those before are not there."""
    for name, shape in index.shapes.items():
        if not 2 <= len(shape) <= _DIMENSIONS or min(shape) < 1 or math.prod(shape) >= _LARGEST:
            yield f"shapes: {name!r}: {list(shape)}, expected 2 to {_DIMENSIONS} numbers above 0, of a file's size"
    for name in sorted(index.shapes.keys() & index.plain.keys()):
        yield f"{name!r} is in shapes and in plain, expected in one of them"
    seen: Counter[str] = Counter()
    for number, entry in enumerate(index.blocks):
        if entry.weight not in index.shapes:
            yield f"blocks: number {number} is of {entry.weight!r}, which shapes does not have"
        if entry.level != seen[entry.weight]:
            yield f"blocks: number {number} is level {entry.level} of {entry.weight!r}, expected {seen[entry.weight]}"
        if entry.level and number < len(index.shapes):
            yield f"blocks: number {number} is a second one of {entry.weight!r}, expected one of every weight before"
        seen[entry.weight] += 1
    for name in sorted(index.shapes.keys() - seen.keys()):
        yield f"blocks: none is of {name!r}, expected one or more of each weight"


def _differences(index: Index, tensors: Mapping[str, tuple[str, Sequence[int]]]) -> Iterator[str]:
    """Says where an index is not of the tensors of a file, type and shape by name."""
    blocks = {_block_name(number): entry for number, entry in enumerate(index.blocks)}
    plain = [_plain_name(name) for name in index.plain]
    for name in sorted(tensors.keys() ^ {*plain, *blocks}):
        yield f"{name!r} is {f'not in {WEIGHTS}' if name in blocks or name in plain else f'in {WEIGHTS} only'}"
    for name, entry in blocks.items():
        kind, shape = tensors[name]
        if kind != "U8" or list(shape) != [index.bytes_of(entry)]:
            yield f"{name!r} of {WEIGHTS} is {kind} {list(shape)}, expected U8 [{index.bytes_of(entry)}]"
    for name in plain:
        kind, shape = tensors[name]
        if kind not in _BYTES or len(shape) > _DIMENSIONS:
            known = ", ".join(_BYTES)
            yield f"{name!r} of {WEIGHTS} is {kind} {list(shape)}, expected {known} and at most {_DIMENSIONS} numbers"
    size = sum(_BYTES[kind] * math.prod(shape) for kind, shape in map(tensors.__getitem__, plain))
    if index.plain_bytes != size:
        yield f"plain_bytes: {index.plain_bytes}, expected {size}, which {WEIGHTS} has"


def _tensors(directory: Path) -> dict[str, tuple[str, Sequence[int]]]:
    """Returns type and shape of each tensor of the weights' file; reads its header only."""
    path = directory / WEIGHTS
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path}: missing, or not a regular file. {_REMEDY}")
    try:
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (one.get_dtype(), one.get_shape()) for name, one in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}). {_REMEDY}") from None


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Returns rows and columns of a weight as a matrix: its last axis are the columns."""
    return math.prod(shape[:-1]), int(shape[-1])


def in_blocks(leaf: Shaped[np.ndarray, "..."]) -> bool:
    """Returns whether a weight is worth being decomposed; others are read always."""
    return leaf.ndim >= 2 and leaf.dtype == np.float32 and leaf.size >= _SMALLEST and min(matrix_shape(leaf.shape)) > 1


def parse_size(given: int | str) -> int:
    """Returns a size in bytes.

    Args:
        given: Bytes, as a number or as text, or with a unit: `250000`, `250kB`, `1.5MB`. A kB has 1,000 bytes.

    Raises:
        UserError: The text is not a size.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    match = _SIZE.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        raise UserError(f"size: {given!r} is no size. Give bytes, or a number with kB, MB or GB, such as 1.5MB.")
    return int(min(Decimal(match[1]), _LARGEST) * _UNITS[match[2] or "B"])


def write_nested(
    directory: Path, arrays: Mapping[str, Shaped[np.ndarray, "..."]], blocks: Sequence[tuple[str, int, Block]]
) -> Index:
    """Writes weights as residual blocks.

    Args:
        directory: Directory to which `weights.safetensors` and `nested.json` are written.
        arrays: All weights by dotted name; those without blocks are written as they are.
        blocks: Name of the weight, level and block, in the order in which they are to be read.
    """
    names = {name for name, _, _ in blocks}
    plain = {name: np.ascontiguousarray(leaf) for name, leaf in arrays.items() if name not in names}
    packed = [block.packed() for _, _, block in blocks]
    stored = {_plain_name(name): leaf for name, leaf in plain.items()}
    stored |= {_block_name(number): content for number, content in enumerate(packed)}
    (directory / WEIGHTS).write_bytes(save(stored))
    index = Index(
        {name: arrays[name].shape for name in sorted(names)},
        {name: _sha256(leaf) for name, leaf in plain.items()},
        sum(leaf.nbytes for leaf in plain.values()),
        [Entry(name, level, _sha256(c)) for (name, level, _), c in zip(blocks, packed, strict=True)],
    )
    (directory / NESTED).write_text(json.dumps(asdict(index), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return index


def read_nested(directory: Path, size: int | None) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads weights up to a size, and adds their blocks up; only what is read is verified, and all of that.

    Args:
        directory: An export with `nested.json`.
        size: Bytes of tensors that may be read; all when None.

    Returns:
        The weights by dotted name.

    Raises:
        UserError: The size is too small, or something that is read is missing or damaged.
    """
    small = [path.name for path in directory.iterdir() if path.is_file() and path.name != WEIGHTS]
    verify_manifest(directory, _REMEDY, None if size is None else [*small, *_folders(directory)])
    index = Index.read(directory)
    return read_blocks(directory, index, index.count(size, directory))


def read_blocks(directory: Path, index: Index, count: int) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads the tensors that are read always, and the first blocks, which it adds up.

    Args:
        directory: Directory of `weights.safetensors`.
        index: Its index, as `Index.read` gives it.
        count: Number of blocks.

    Returns:
        The weights by dotted name.

    Raises:
        UserError: Something that is read is missing or damaged.
    """
    found = {name: np.zeros(matrix_shape(shape), np.float32) for name, shape in index.shapes.items()}
    plain: dict[str, np.ndarray] = {}
    try:
        with safe_open(directory / WEIGHTS, "numpy") as file:
            for name, digest in index.plain.items():
                plain[name] = _checked(directory, file.get_tensor(_plain_name(name)), digest)
            for number, entry in enumerate(index.blocks[:count]):
                content = _checked(directory, file.get_tensor(_block_name(number)), entry.sha256)
                found[entry.weight] += Block.unpacked(content, *matrix_shape(index.shapes[entry.weight])).values
    except (SafetensorError, OSError, KeyError) as error:
        raise UserError(f"{directory / WEIGHTS}: cannot be read ({error}). {_REMEDY}") from None
    return plain | {name: matrix.reshape(index.shapes[name]) for name, matrix in found.items()}


def _folders(directory: Path) -> Iterator[str]:
    return (f"{path.name}/" for path in directory.iterdir() if path.is_dir())


def _plain_name(name: str) -> str:
    return f"plain.{name}"


def _block_name(number: int) -> str:
    return f"block.{number:06d}"


def _sha256(leaf: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()


def _checked(directory: Path, leaf: np.ndarray, digest: str) -> np.ndarray:
    if _sha256(leaf) != digest:
        raise UserError(f"{directory / WEIGHTS}: altered: a tensor's SHA-256 is not the one in {NESTED}. {_REMEDY}")
    return leaf
