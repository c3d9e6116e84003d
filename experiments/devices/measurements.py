"""Measurements: what was measured of networks on one device, a JSON line each, safe against a kill at any byte."""

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.records import Hardware
from experiments.records.plain import JsonObject
from search_spaces import UserError
from search_spaces.sealed_json import parse_json
from supernet.storage.manifest import disk_errors_for

_FORMAT, _VERSION = "supernest measurements", 1
_OTHER = "Choose another file with --out, or delete {path} to measure anew."


@dataclass(frozen=True)
class Measurement:
    """One network at one batch size.

    Attributes:
        genes: Its genes.
        batch_size: Examples a call.
        seconds: Median of a call.
        reference_seconds: Median of a call of the largest network at this batch size, measured in the same rounds.
        fixed_bytes: The compiler's figure for weights, input and output.
        temporary_bytes: The compiler's figure for what lies between.
    """

    genes: tuple[int, ...]
    batch_size: int
    seconds: float
    reference_seconds: float
    fixed_bytes: int
    temporary_bytes: int

    @property
    def key(self) -> tuple[tuple[int, ...], int]:
        """Genes and batch size that were measured."""
        return self.genes, self.batch_size


class Measurements:
    """An append-only file, locked by this process while open; a context manager.

    Args:
        path: The file; made where it is missing, continued where it is there.
        identity: Properties that all its measurements share: space, device, software and method.

    Attributes:
        known: Measurements that the file has, by genes and batch size.

    Raises:
        UserError: The file has measurements of another identity, is in use, corrupt, or cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.known: dict[tuple[tuple[int, ...], int], Measurement] = {}
        header = {"format": _FORMAT, "version": _VERSION, **identity}
        with disk_errors_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            try:
                self._take(header)
            except BaseException:
                self._file.close()
                raise

    def _take(self, header: JsonObject) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path}: another process measures into it. Wait, or choose another --out.") from None
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if not whole:
            if content and not _line(header).startswith(content):
                raise UserError(f"{self.path}: holds no measurements. {_OTHER.format(path=self.path)}")
            self._file.truncate(0)
            self._append(_line(header))
            return
        lines = content[:whole].splitlines()
        _refuse_other(self.path, _read(self.path, 1, lines[0]), header)
        for number, line in enumerate(lines[1:], start=2):
            record = _read(self.path, number, line)
            try:
                self._keep(Measurement(**{**record, "genes": tuple(record["genes"])}))
            except (TypeError, KeyError):
                raise _corrupt(self.path, number) from None
        self._file.truncate(whole)

    def append(self, measurements: Iterable[Measurement]) -> None:
        """Writes measurements; on disk when this returns."""
        measurements = list(measurements)
        with disk_errors_for(self.path):
            self._append(b"".join(_line(asdict(one)) for one in measurements))
        for one in measurements:
            self._keep(one)

    def _keep(self, measurement: Measurement) -> None:
        self.known[measurement.key] = measurement

    def _append(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> "Measurements":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _refuse_other(path: Path, found: JsonObject, expected: Mapping[str, Any]) -> None:
    if found.get("format") != _FORMAT:
        raise UserError(f"{path}: holds no measurements. {_OTHER.format(path=path)}")
    for key, value in expected.items():
        if found.get(key) == value or (key == "runtime" and key not in found and value["name"] == "jax"):
            continue  # files of earlier versions do not name JAX
        other = _OTHER.format(path=path)
        if key == "device" and (there := _device_text(found.get(key))):
            raise UserError(
                f"{path}: measured on {there}, and this is {_device_text(value)}; measurements of two devices are "
                f"never mixed. {other}"
            )
        raise UserError(f"{path}: of another {key}: {found.get(key)!r} there, {value!r} here. {other}")


def _device_text(content: Any) -> str | None:
    """Returns a device in a few words; None where it is none."""
    try:
        return Hardware.from_json(content).text
    except ValueError:
        return None


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _read(path: Path, number: int, line: bytes) -> JsonObject:
    try:
        record = parse_json(line)
        if isinstance(record, dict):
            return record
    except ValueError:
        pass
    raise _corrupt(path, number)


def _corrupt(path: Path, number: int) -> UserError:
    return UserError(f"{path}:{number}: corrupt line. Restore the file, or delete it to measure anew.")
