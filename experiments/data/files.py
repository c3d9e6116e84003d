"""Files of a data set: found by name, read plain, .gz or .xz, every failure one line that names the file."""

import gzip
import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from search_spaces.errors import UserError

COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}


def directory(path: str) -> Path:
    """Returns `path` as a directory that exists and can be listed.

    Raises:
        UserError: The path is missing, a file, or not readable.
    """
    found = Path(path)
    try:
        if found.is_dir():
            next(found.iterdir(), None)
            return found
        exists = found.exists()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be listed ({error.strerror or error}). Make the directory readable."
        ) from error
    what = "is a file, not a directory" if exists else "no such directory"
    raise UserError(f"{path}: {what}. Set the data path to the directory that holds the data set.")


def with_suffix(folder: Path, name: str, suffixes: Sequence[str] = ("", ".gz")) -> Path | None:
    """Returns the first of `name + suffix` that is a file of `folder`, or None."""
    return next((folder / (name + end) for end in suffixes if (folder / (name + end)).is_file()), None)


def find(folder: Path, name: str, suffixes: Sequence[str] = ("", ".gz")) -> Path:
    """Returns the first of `name + suffix` that is a file of `folder`.

    Raises:
        UserError: None of them is there.
    """
    found = with_suffix(folder, name, suffixes)
    if found is None:
        names = " or ".join(name + end for end in suffixes)
        raise UserError(f"{folder / name}: no such file; expected {names}. Put the file there or set another path.")
    return found


def read_bytes(path: Path) -> UInt8[np.ndarray, " bytes"]:
    """Returns the (decompressed) content of a file; a plain file is mapped, not read.

    Raises:
        UserError: The file cannot be read, is empty, or its compressed stream is truncated or corrupt.
    """
    opener = COMPRESSED.get(path.suffix)
    with _explained(path):
        if opener is None:
            if path.stat().st_size == 0:
                raise UserError(f"{path}: the file is empty. Fetch it again.")
            return np.memmap(path, np.uint8, mode="r")
        with opener(path, "rb") as stream:
            content = np.frombuffer(stream.read(), np.uint8)
    if content.size == 0:
        raise UserError(f"{path}: holds no data once decompressed. Fetch it again.")
    return content


def lines(path: Path) -> Iterator[bytes]:
    """Yields the lines of a (decompressed) file.

    Raises:
        UserError: The file cannot be read, or its compressed stream is truncated or corrupt.
    """
    with _explained(path), COMPRESSED.get(path.suffix, open)(path, "rb") as stream:
        yield from stream


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise UserError(
            f"{path}: truncated or corrupt ({error}); expected a whole {path.suffix} file. Fetch it again."
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Make the file readable.") from error
