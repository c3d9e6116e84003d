"""Cached results: one directory each, under the hash of all that decides it; made once, by one process."""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.process.interrupt import Interrupted, StopRequest
from experiments.records.plain import JsonObject
from search_spaces.sealed_json import read_sealed, sealed
from supernet.storage.manifest import discard_directory, disk_errors_for, write_text_atomically

_RESULT, _WORK, _LOCK = "result.json", "work", ".lock"


def digest(key: Mapping[str, Any]) -> str:
    """Returns a name for a key: 20 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]


def cached(
    home: Path, key: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]], stop: StopRequest
) -> JsonObject:
    """Returns the result of `key` in `home`; computes it if there is none.

    Args:
        home: Its directory.
        key: All that decides the result, as plain values.
        make: Makes the result, as plain values. The directory that it is given stays over kills and interruptions, so
            that it can go on, and is removed when the result is there.
        stop: Read while another process makes the same result.

    Raises:
        UserError: The result is damaged, or the disk refuses.
        Interrupted: `stop` was requested.
    """
    known = find(home, key)
    if known is not None:
        return known
    with only_here(home, stop):
        known = find(home, key)  # another process may have made it meanwhile
        if known is not None:
            return known
        result = sealed({"key": dict(key), **make(home / _WORK)})
        write_text_atomically(home / _RESULT, json.dumps(result, indent=1) + "\n")
        if (home / _WORK).exists():
            discard_directory(home / _WORK)
    return result


def find(home: Path, key: Mapping[str, Any]) -> JsonObject | None:
    """Returns the result of `key` in `home`, if any.

    Raises:
        UserError: The result is damaged.
    """
    path = home / _RESULT
    try:
        result = read_sealed(path, "Delete it; it is then made again.")
    except FileNotFoundError:
        return None
    return result if result["key"] == key else None


@contextmanager
def only_here(home: Path, stop: StopRequest) -> Iterator[None]:
    """Waits until no other process works below a directory, which is made; the block may remove it.

    Raises:
        UserError: The disk refuses.
        Interrupted: `stop` was requested.
    """
    while True:
        with disk_errors_for(home):
            home.mkdir(parents=True, exist_ok=True)
            try:
                lock = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # the process that worked here has removed the directory since
                continue
        try:
            _wait_for(lock, home, stop)
            if not _is_at(lock, home / _LOCK):
                continue
            yield
            return
        finally:
            os.close(lock)


def _wait_for(lock: int, home: Path, stop: StopRequest) -> None:
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if stop:
                raise Interrupted(f"stopped while another process works in {home}") from None
            time.sleep(0.2)


def _is_at(lock: int, path: Path) -> bool:
    """Returns whether an open file is still the one at a path; whoever held its lock may have removed it."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except FileNotFoundError:
        return False
