"""Lines of an archive: JSON with a digest that covers all lines before it, written to the disk, and read strictly."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from search_spaces import UserError
from search_spaces.sealed_json import JsonObject, parse_json

DIGEST = "digest"
"""Key of the digest with which a line ends."""


def chained(previous: str, record: JsonObject) -> str:
    """Returns the digest of a record that follows the lines of another digest."""
    return hashlib.sha256(previous.encode() + line_of(record)).hexdigest()[:32]


def follow(path: Path, number: int, record: dict[str, Any], previous: str) -> str:
    """Takes the digest out of a record that was read, and returns it if it covers the record and all lines before it.

    Args:
        path: The archive.
        number: Line of the record.
        record: The record; its digest is removed.
        previous: Digest of the lines before it.

    Raises:
        UserError: The record, or a line before it, was changed.
    """
    given, digest = record.pop(DIGEST, None), chained(previous, record)
    if given != digest:
        raise UserError(
            f"{path}:{number}: was changed after it was written, or a line before it was (its digest is of other "
            "lines). Restore the file, or delete it and search again."
        )
    return digest


def short(value: Any) -> str:
    """Returns the beginning of a hash, for a message."""
    return value[:12] if isinstance(value, str) else "none"


def last_line(path: Path, content: bytes) -> int:
    """Returns the number of the last line an archive's times tell of; a torn last line of theirs is left out."""
    whole = content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]
    last = load(path, len(whole), whole[-1]).get("last") if whole else 1
    if not isinstance(last, int):
        raise corrupt(path, len(whole))
    return last


def line_of(record: JsonObject) -> bytes:
    """Returns a record as a line of JSON, keys sorted, so that equal records have equal bytes."""
    return json.dumps(record, sort_keys=True, allow_nan=False).encode() + b"\n"


def load(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Returns the record of a line.

    Raises:
        UserError: The line holds none.
    """
    try:
        record = parse_json(line)
    except ValueError as error:
        raise corrupt(path, number) from error
    if not isinstance(record, dict):
        raise corrupt(path, number)
    return record


def whole_numbers(values: list) -> tuple[int, ...]:
    """Returns a list of whole numbers as a tuple.

    Raises:
        ValueError: The value is anything else.
    """
    if not isinstance(values, list) or any(isinstance(v, bool) or not isinstance(v, int) for v in values):
        raise ValueError
    return tuple(values)


def number_of(value: float) -> float:
    """Returns a number that is finite and fits in 64 bits.

    Raises:
        ValueError: The value is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:
        raise ValueError
    return value


def stop_of(record: JsonObject) -> tuple[float, float]:
    """Returns the share of the validation split on which an evaluation stopped, and the error there; else 1 and NaN.

    Raises:
        KeyError, TypeError, ValueError: The record contradicts itself.
    """
    if "stopped" not in record:
        return 1.0, math.nan
    fraction, error = number_of(record["stopped"]["fraction"]), number_of(record["stopped"]["error"])
    if not 0 < fraction < 1 or record["objectives"]["error"] is not None:
        raise ValueError
    return fraction, error


def append(path: Path, content: bytes) -> None:
    """Adds to a file; on the disk when this returns."""
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Makes the names of new files in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def corrupt(path: Path, number: int) -> UserError:
    """Returns the error for a line that cannot be read."""
    return UserError(f"{path}:{number}: corrupt line. Restore the file, or delete it and search again.")


def cannot(path: Path, error: OSError) -> UserError:
    """Returns the error for a disk that refuses."""
    return UserError(f"{path}: {error.strerror or error}. Make it readable and writable, with space left on the disk.")
