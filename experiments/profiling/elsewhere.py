"""Devices without Python: networks are written as ONNX files with a list, timed there, and their times taken back."""

import csv
import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.data import Dataset
from experiments.devices.device_file import Device
from experiments.devices.measurements import Measurement
from experiments.devices.runtimes.onnxruntime import OnnxRuntime
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from experiments.profiling.fitting import write_device
from experiments.profiling.networks import untrained
from experiments.profiling.protocol import Protocol, Wanted, all_wanted, draw
from experiments.profiling.stage import larger, refuse_other, size_of
from experiments.records import DeviceIdentity, Hardware, RuntimeFacts
from experiments.records.plain import JsonObject
from search_spaces import SearchSpace, UserError
from search_spaces.randomness import Purpose, stream
from search_spaces.sealed_json import parse_json, read_sealed, sealed
from supernet.engine.supernet import Supernet
from supernet.storage.manifest import atomic_directory, discard_directory, disk_errors_for, write_text_atomically

_FORMAT, _VERSION = "supernest networks to time", 1
_SHORTEST, _LONGEST = 1e-6, 1e9  # milliseconds
_NO_DRIFT = 1.0
"""Seconds of the reference in all measurements: nobody knows how the device's speed changed while it measured."""
_TASK = (
    "Run each file {warmup} times, then {repeats} times on its inputs (any values), in the order of this list or any "
    "other, and give the median of a run in milliseconds: as CSV with the columns id and milliseconds, or as JSON, "
    '[{{"id": "n000", "milliseconds": 1.5}}, ...].'
)
_SHAPE = 'CSV with the columns id and milliseconds, or JSON, [{"id": "n000", "milliseconds": 1.5}, ...]'


def write_spec(net: Supernet, data: Dataset, path: Path, protocol: Protocol, stop: StopRequest, quiet: bool) -> int:
    """Writes the networks that a device is to time: `path`, and ONNX files in a folder of the same name beside it.

    Args:
        net: The supernet whose subnets they are; they get random weights.
        data: Data of the networks.
        path: The list; neither it nor the folder may be there.
        protocol: Choice of networks, and rules of their timing.
        stop: Read between networks.
        quiet: No progress bar.

    Returns:
        How many networks it lists.

    Raises:
        UserError: ONNX is not installed or lacks an operation, or something is there.
        Interrupted: `stop` was requested; nothing was written.
    """
    runtime, folder = OnnxRuntime(), path.with_suffix("")
    if folder == path:
        raise UserError(
            f"--spec: {path} has no ending, so that the folder of the files would have its name. Add .json."
        )
    for there in (path, folder):
        if there.exists():
            raise UserError(f"{there}: exists, and is left as it is. Choose another name with --spec.")
    wanted = all_wanted(draw(net.space, protocol), protocol)
    # In random order, so that a drift of the device does not tell training and held-out networks apart.
    order = stream(protocol.seed, Purpose.PROFILE_ORDER).permutation(len(wanted))
    digits, rows = max(3, len(str(len(wanted) - 1))), []
    with disk_errors_for(folder), atomic_directory(folder) as temporary:
        bar = progress_bar(order, desc="write", unit="network", quiet=quiet)
        with bar:
            for number, index in enumerate(bar):
                if stop:
                    raise Interrupted(f"stopped after {number} of {len(wanted)} networks; nothing was written")
                name = f"n{number:0{digits}}"
                entry = _written(net, data, runtime, wanted[index], temporary / f"{name}.onnx")
                rows.append({"id": name, "file": f"{folder.name}/{name}.onnx", **entry})
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "task": _TASK.format(warmup=protocol.warmup, repeats=protocol.repeats),
        "family": net.space.family,
        "space": net.space.fingerprint,
        "software": runtime.software,
        "protocol": dataclasses.asdict(protocol),
        "networks": rows,
    }
    content = sealed(json.loads(json.dumps(content)))
    try:
        write_text_atomically(path, json.dumps(content, indent=1) + "\n")
    except BaseException:
        discard_directory(folder)
        raise
    return len(rows)


def _written(net: Supernet, data: Dataset, runtime: OnnxRuntime, wanted: Wanted, path: Path) -> JsonObject:
    """Writes a network, and returns its entry of the list."""
    genes, size = wanted
    network = untrained(net, data, net.space.architecture(genes), size)
    (loaded,) = runtime.build([network])
    content = loaded.model.SerializeToString()
    path.write_bytes(content)
    memory = loaded.memory
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "batch_size": size,
        "inputs": {key: {"shape": list(array.shape), "dtype": str(array.dtype)} for key, array in loaded.feed.items()},
        "genes": list(genes),
        "architecture": network.subnet.architecture,
        "fixed_bytes": memory.fixed,
        "temporary_bytes": memory.temporary,
    }


def take_back(space: SearchSpace, spec: Path, times: Path, out: Path, device: str, runtime: RuntimeFacts) -> Device:
    """Makes the device file of a device whose times were taken elsewhere.

    Args:
        space: The space of the experiment.
        spec: The list that `write_spec` wrote.
        times: Milliseconds of all of its networks.
        out: The device file.
        device: Name of the device.
        runtime: Runtime that ran them.

    Returns:
        The device file.

    Raises:
        UserError: The list is damaged or of another space, times do not match it, or `out` is of something else or of
            more networks.
    """
    content, protocol = _read_spec(space, spec)
    rows = {row["id"]: row for row in content["networks"]}
    found = _read_times(times, spec, list(rows))
    identity = DeviceIdentity(Hardware("remote", device), content["software"], runtime)
    refuse_other(out, space, identity)
    if (there := larger(out, identity, protocol)) is not None:
        raise UserError(f"{out}: has all that {spec} lists and more: {size_of(there)}. Choose another file with --out.")
    measured = [
        Measurement(
            tuple(row["genes"]), row["batch_size"], found[name] / 1e3, _NO_DRIFT, row["fixed_bytes"],
            row["temporary_bytes"],
        )
        for name, row in rows.items()
    ]  # fmt: skip
    networks = draw(space, protocol)
    return write_device(out, space, identity, protocol, networks, {one.key: one for one in measured})


def _read_spec(space: SearchSpace, spec: Path) -> tuple[JsonObject, Protocol]:
    again = f"Write it again: supernest profile CONFIG --spec {spec}"
    try:
        content = read_sealed(spec, again)
        if (content["format"], content["version"]) != (_FORMAT, _VERSION):
            raise ValueError
        protocol = Protocol(**{**content["protocol"], "batch_sizes": tuple(content["protocol"]["batch_sizes"])})
        listed = {(tuple(row["genes"]), row["batch_size"]) for row in content["networks"]}
    except FileNotFoundError:
        raise UserError(f"{spec}: no such list of networks. {again}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{spec}: no list of networks to time of version {_VERSION}. {again}") from None
    if content["space"] != space.fingerprint:
        raise UserError(
            f"{spec}: lists networks of another search space ({content['space'][:12]}). Give the experiment that it "
            "was written for, or write another list."
        )
    if listed != set(all_wanted(draw(space, protocol), protocol)):
        raise UserError(f"{spec}: lists other networks than this version of supernest would. {again}")
    return content, protocol


def _read_times(path: Path, spec: Path, ids: Sequence[str]) -> dict[str, float]:
    """Milliseconds by id."""
    found: dict[str, float] = {}
    known = frozenset(ids)
    for name, given in _rows(path):
        if name not in known:
            raise UserError(f"{path}: {name!r} is not in {spec}. Give the ids of that list.")
        if name in found:
            raise UserError(f"{path}: {name!r} is there twice. Give each id once.")
        found[name] = _number(given)
        if not _SHORTEST <= found[name] <= _LONGEST:
            raise UserError(
                f"{path}: {name!r}: {given!r} is no time. Give milliseconds, a number above 0: {_SHORTEST:g} to "
                f"{_LONGEST:g}."
            )
    missing = [name for name in ids if name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{path}: lacks {missing[0]!r}{more} of the {len(ids)} networks in {spec}. Time them, too.")
    return found


def _number(given: Any) -> float:
    try:
        return math.nan if isinstance(given, bool) else float(given)
    except (ValueError, TypeError, OverflowError):
        return math.nan


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give the times: {_SHAPE}.")
    with disk_errors_for(path):
        content = path.read_bytes()
    refused = UserError(f"{path}: holds no times. Give {_SHAPE}.")
    try:
        text = content.decode("utf-8-sig")
        if text.lstrip().startswith(("[", "{")):
            rows: Any = parse_json(text)
        else:
            rows = list(csv.DictReader(io.StringIO(text), strict=True))
            if any(None in row for row in rows):  # more values than columns, such as 1,5 of a decimal comma
                raise ValueError
        pairs = [(row["id"], row["milliseconds"]) for row in rows]
    except (ValueError, KeyError, TypeError, csv.Error):
        raise refused from None
    if not pairs or not all(isinstance(name, str) for name, _ in pairs):
        raise refused
    yield from pairs
