"""The command `profile`: measures standalone networks of a space on this device, and fits tables for all of them.

Random networks are extracted, compiled and measured; what each piece costs (`search_spaces.pieces`) is fitted to the
training ones. The held-out ones, which no fit has seen, say how well any network of the space is predicted.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data import Dataset
from experiments.devices.device_file import Device, read_device
from experiments.devices.measure import median_seconds
from experiments.devices.measurements import Measurement, Measurements
from experiments.devices.runtime import Program, Runtime
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from experiments.profiling.fitting import write_device
from experiments.profiling.networks import untrained
from experiments.profiling.protocol import Protocol, Wanted, all_wanted, draw
from experiments.records import DeviceIdentity
from experiments.records.plain import JsonObject
from search_spaces import SearchSpace, UserError
from search_spaces.randomness import Purpose, stream
from supernet.engine.supernet import Supernet

_GROUP, _GROUP_BYTES = 24, 10**9  # networks, and bytes of weights, that are compiled and measured together at most


class Group(NamedTuple):
    """Networks that are measured together, in turn; the number is the seed of the turns."""

    number: int
    wanted: list[Wanted]


class Meter:
    """Measures groups of networks in this process.

    Args:
        net: The supernet whose subnets they are.
        data: Data of the networks.
        runtime: Runtime of the networks.
    """

    def __init__(self, net: Supernet, data: Dataset, runtime: Runtime) -> None:
        self._net, self._data, self._runtime = net, data, runtime
        self._references: dict[int, Program] = {}

    @property
    def identity(self) -> DeviceIdentity:
        """Identity of the measurements: the device, the runtime and the space."""
        runtime = self._runtime
        return DeviceIdentity(runtime.device(), runtime.software, runtime.facts)

    def measure(self, groups: Sequence[Group], protocol: Protocol) -> Iterator[list[Measurement]]:
        """Measures one group after the other."""
        for group in groups:
            yield self.measure_one(group, protocol)

    def measure_one(self, group: Group, protocol: Protocol) -> list[Measurement]:
        """Measures the networks of a group in turn, and the largest network of the space among them."""
        space, used = self._net.space, sorted({size for _, size in group.wanted})
        if new := [size for size in used if size not in self._references]:
            references = self._build([(space.largest.genes, size) for size in new])
            self._references.update(zip(new, references, strict=True))
        programs = self._build(group.wanted)
        # The references twice, as all others are compared with them.
        twice = [self._references[size] for size in used for _ in range(2)]
        seconds = median_seconds([*programs, *twice], protocol.warmup, protocol.repeats, group.number)
        reference = dict(zip(used, np.reshape(seconds[len(programs) :], (-1, 2)).mean(axis=1).tolist(), strict=True))
        memories = [program.memory for program in programs]
        return [
            Measurement(genes, size, taken, reference[size], memory.fixed, memory.temporary)
            for (genes, size), memory, taken in zip(group.wanted, memories, seconds, strict=False)
        ]

    def _build(self, wanted: Sequence[Wanted]) -> Sequence[Program]:
        space = self._net.space
        return self._runtime.build(
            [untrained(self._net, self._data, space.architecture(genes), size) for genes, size in wanted]
        )


def profile(net: Supernet, out: Path, protocol: Protocol, stop: StopRequest, quiet: bool, meter: Meter) -> Device:
    """Measures what is not measured yet, fits the tables, and writes the device file.

    A file that is there and has all of this and more, of the same device, runtime and software, is left as it is.

    Args:
        net: The supernet whose subnets are measured; its weights are not needed.
        out: The device file; measurements are kept beside it, so that a later call goes on.
        protocol: Rules of the measurement.
        stop: Read between groups of networks.
        quiet: No progress bar.
        meter: Measures.

    Returns:
        The device file.

    Raises:
        UserError: The files are of another space or device, or the space has too few networks.
        Interrupted: `stop` was requested; what was measured is kept.
    """
    networks, identity = draw(net.space, protocol), meter.identity
    refuse_other(out, net.space, identity)
    if (there := larger(out, identity, protocol)) is not None:
        print(f"note: {out}: has all of this and more, and is left as it is: {size_of(there)}.", file=sys.stderr)
        return there
    protocol_of = {"protocol": {"warmup": protocol.warmup, "repeats": protocol.repeats}}
    header = {"space": net.space.fingerprint, **identity.as_json(), **protocol_of}
    with Measurements(measurements_path(out), header) as measurements:
        _measure(net, all_wanted(networks, protocol), measurements, protocol, meter, stop, quiet)
        found = measurements.known
    return write_device(out, net.space, identity, protocol, networks, found)


def summary(device: Device) -> JsonObject:
    """Returns what a device file says about itself, without its tables, for JSON."""
    return {
        "file": str(device.path),
        "family": device.family,
        "space": device.space,
        "device": device.device.as_json(),
        "runtime": device.runtime.as_json(),
        "software": device.software,
        "protocol": device.protocol,
        "held_out": [{"batch_size": size, **held_out.as_json()} for size, held_out in device.accuracy.items()],
    }


def table(device: Device) -> str:
    """Returns how well a device file predicts, as lines to read."""
    lines = [f"{device.device.text}; {device.runtime.text}; {device.protocol['networks']} networks measured to fit"]
    for size, held_out in device.accuracy.items():
        figures = "; ".join(
            f"{name} median error {_or_none(of.median_error, '.1%')}, tau {_or_none(of.kendall_tau, '.3f')}"
            for name, of in (("latency", held_out.latency), ("memory", held_out.memory))
        )
        lines.append(f"batches of {size}, {held_out.networks} held-out networks: {figures}")
    return "\n".join([*lines, str(device.path)])


def _or_none(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)


def _measure(
    net: Supernet,
    wanted: Sequence[Wanted],
    measurements: Measurements,
    protocol: Protocol,
    meter: Meter,
    stop: StopRequest,
    quiet: bool,
) -> None:
    missing = [key for key in wanted if key not in measurements.known]
    # In random order, so that a drift of the machine does not tell training and held-out networks apart.
    order = stream(protocol.seed, Purpose.PROFILE_ORDER).permutation(len(missing))
    bar = progress_bar(
        total=len(wanted),
        initial=len(wanted) - len(missing),
        desc=f"profile (up to {_GROUP} at a time)",
        unit="network",
        quiet=quiet,
    )
    groups = [Group(number, one) for number, one in enumerate(_groups(net, [missing[index] for index in order]))]
    with bar, contextlib.suppress(Interrupted):
        for measured in meter.measure(groups, protocol):
            measurements.append(measured)
            bar.update(len(measured))
            if stop:
                break
    done = sum(key in measurements.known for key in wanted)
    if done < len(wanted):
        raise Interrupted(f"stopped after measuring {done} of {len(wanted)} networks. The same command resumes it.")


def _groups(net: Supernet, missing: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Cuts what is to be measured into groups that fit into memory."""
    group, held = [], 0
    for genes, size in missing:
        needed = 4 * int(net.space.cost(np.array([genes], np.int32))["params"][0])
        if group and (len(group) == _GROUP or held + needed > _GROUP_BYTES):
            yield group
            group, held = [], 0
        group.append((genes, size))
        held += needed
    if group:
        yield group


def refuse_other(out: Path, space: SearchSpace, identity: DeviceIdentity) -> None:
    """Refuses to write over a device file of another space, device or runtime.

    Raises:
        UserError: There is one.
    """
    if not out.exists():
        return
    there = read_device(out)
    if there.space != space.fingerprint:
        raise UserError(
            f"{out}: measured for another search space ({there.space[:12]}). Choose another file with --out."
        )
    if there.device != identity.device:
        raise UserError(
            f"{out}: measured on {there.name}, and this is {identity.device.text}; measurements of two "
            "devices are never mixed. Choose another file with --out."
        )
    known, now = there.runtime, identity.runtime
    if known.name != now.name or (None not in (known.threads, now.threads) and known.threads != now.threads):
        raise UserError(
            f"{out}: measured with {known.text}, and this is {now.text}; "
            "measurements of two runtimes are never mixed. Choose another file with --out."
        )


def larger(out: Path, identity: DeviceIdentity, protocol: Protocol) -> Device | None:
    """Returns the device file that is there, where it has all that a protocol measures and more."""
    if not out.exists():
        return None
    there = read_device(out)
    if DeviceIdentity(there.device, dict(there.software), there.runtime) != identity:
        return None
    try:
        known = Protocol(**{**there.protocol, "batch_sizes": tuple(there.protocol["batch_sizes"])})
    except (KeyError, TypeError, UserError):  # of another version, which measured in another way
        return None
    return there if known.has_more_than(protocol) else None


def size_of(device: Device) -> str:
    """Returns how much a device file was measured with, as text."""
    known, batches = device.protocol, ", ".join(map(str, device.tables))
    return f"{known['networks']} networks and {known['held_out']} held-out ones, in batches of {batches}"


def measurements_path(out: Path) -> Path:
    """Returns the file of the measurements behind a device file."""
    return out.with_name(f"{out.stem}.measurements.jsonl")
