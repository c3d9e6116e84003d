"""The command `profile`: measures standalone networks of a space on this device, and fits tables for all of them.

Random networks are extracted, compiled and measured; what each piece costs (`search_spaces.pieces`) is fitted to the
training ones. The held-out ones, which no fit has seen, say how well any network of the space is predicted.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.devices.device_file import FORMAT, VERSION, device_name, read_device
from experiments.devices.measure import Program, build, median_seconds, this_device, this_software
from experiments.devices.measurements import Measurement, Measurements
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from search_spaces import Genes, UserError
from search_spaces.piece_costs import fit_peak, fit_sum, left_out_error
from search_spaces.pieces import Pieces
from search_spaces.randomness import Purpose, stream
from search_spaces.sealed_json import sealed
from supernet.engine.supernet import Supernet
from supernet.storage.manifest import write_text_atomically

_GROUP, _GROUP_BYTES = 24, 10**9  # networks, and bytes of weights, that are compiled and measured together at most
_DRAWS = 100
_MOST, _LARGEST_BATCH = 10**6, 2**20

Wanted = tuple[tuple[int, ...], int]
"""Genes and a batch size."""


class Group(NamedTuple):
    """Networks that are measured together, in turn; the number is the seed of the turns."""

    number: int
    wanted: list[Wanted]


@dataclass(frozen=True)
class Protocol:
    """How a device is measured.

    Attributes:
        batch_sizes: Examples a call; the first is what `latency_ms` means unless an experiment says otherwise.
        networks: Networks that the tables are fitted to; the smallest and the largest are among them.
        held_out: Networks that the predictions are compared with.
        warmup: Calls before measuring.
        repeats: Samples of each network, of which the median counts.
        seed: Of the draws.

    Raises:
        UserError: A number that is too small.
    """

    batch_sizes: tuple[int, ...] = (1, 64)
    networks: int = 100
    held_out: int = 50
    warmup: int = 3
    repeats: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("networks", 10), ("held_out", 3), ("warmup", 1), ("repeats", 1), ("seed", 0)):
            value = getattr(self, name)
            if value > _MOST:
                raise UserError(f"--{name.replace('_', '-')}: {value} is out of range. Give at most {_MOST:,}.")
            if value < least:
                option = name.replace("_", "-")
                raise UserError(f"--{option}: {value} is less than {least}. Give {least} or more.")
        if not self.batch_sizes or min(self.batch_sizes) < 1 or len(set(self.batch_sizes)) < len(self.batch_sizes):
            sizes = ",".join(str(size) for size in self.batch_sizes)
            raise UserError(f"--batch-sizes: {sizes!r} are not different positive numbers. Give such as 1,64.")
        if max(self.batch_sizes) > _LARGEST_BATCH:
            raise UserError(f"--batch-sizes: {max(self.batch_sizes)} is out of range. Give at most {_LARGEST_BATCH:,}.")


class Meter:
    """Measures groups of networks in this process.

    Args:
        net: The supernet whose subnets they are.
    """

    def __init__(self, net: Supernet) -> None:
        self._net = net
        self._references: dict[int, Program] = {}

    @property
    def identity(self) -> dict[str, Any]:
        """What is measured on, and with what."""
        return {"device": this_device(), "software": this_software()}

    def measure(self, groups: Sequence[Group], protocol: Protocol) -> Iterator[list[Measurement]]:
        """Measures one group after the other."""
        for group in groups:
            yield self.measure_one(group, protocol)

    def measure_one(self, group: Group, protocol: Protocol) -> list[Measurement]:
        """Measures the networks of a group in turn, and the largest network of the space among them."""
        space, used = self._net.space, sorted({size for _, size in group.wanted})
        if new := [size for size in used if size not in self._references]:
            references = build(self._net, [(space.largest, size) for size in new])
            self._references.update(zip(new, references, strict=True))
        programs = build(self._net, [(space.architecture(genes), size) for genes, size in group.wanted])
        # The references twice, as all others are compared with them.
        twice = [self._references[size] for size in used for _ in range(2)]
        seconds = median_seconds([*programs, *twice], protocol.warmup, protocol.repeats, group.number)
        reference = dict(zip(used, np.reshape(seconds[len(programs) :], (-1, 2)).mean(axis=1).tolist(), strict=True))
        return [
            Measurement(genes, size, taken, reference[size], program.memory.fixed, program.memory.temporary)
            for (genes, size), program, taken in zip(group.wanted, programs, seconds, strict=False)
        ]


def profile(
    net: Supernet, out: Path, protocol: Protocol, stop: StopRequest, quiet: bool, meter: Meter | None = None
) -> dict[str, Any]:
    """Measures what is not measured yet, fits the tables, and writes the device file.

    Args:
        net: The supernet whose subnets are measured; its weights are not needed.
        out: The device file; measurements are kept beside it, so that a later call goes on.
        protocol: How to measure.
        stop: Read between groups of networks.
        quiet: No progress bar.
        meter: Measures; in this process when None.

    Returns:
        The content of the device file.

    Raises:
        UserError: The files are of another space or device, or the space has too few networks.
        Interrupted: `stop` was requested; what was measured is kept.
    """
    space, meter = net.space, meter or Meter(net)
    training, held_out = draw(net, protocol)
    identity = {
        "space": space.fingerprint,
        **meter.identity,
        "protocol": {"warmup": protocol.warmup, "repeats": protocol.repeats},
    }
    _refuse_other(out, identity)
    with Measurements(measurements_path(out), identity) as measurements:
        rows = [tuple(row) for row in np.concatenate([training, held_out]).tolist()]
        wanted = [(row, size) for row in rows for size in protocol.batch_sizes]
        _measure(net, wanted, measurements, protocol, meter, stop, quiet)
        found = measurements.found
    pieces = Pieces(space)
    tables = []
    for size in protocol.batch_sizes:
        fit_to, compare = ([found[tuple(row), size] for row in of.tolist()] for of in (training, held_out))
        tables.append({"batch_size": size, **_fitted(pieces, training, fit_to, held_out, compare)})
    content = {
        "format": FORMAT,
        "version": VERSION,
        "family": space.family,
        **identity,
        "protocol": dataclasses.asdict(protocol),
        "pieces": pieces.costs.tolist(),
        "tables": tables,
    }
    content = sealed(json.loads(json.dumps(content)))
    write_text_atomically(out, json.dumps(content, allow_nan=False) + "\n")
    return content


def batch_sizes(text: str) -> tuple[int, ...]:
    """Reads numbers between commas.

    Raises:
        UserError: Something else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--batch-sizes: {text!r} are no numbers. Give such as 1,64.") from None


def summary(content: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """What a device file says about itself, without its tables."""
    held_out = [{"batch_size": of["batch_size"], **of["held_out"]} for of in content["tables"]]
    names = ("family", "space", "device", "software", "protocol")
    return {"file": str(out), **{name: content[name] for name in names}, "held_out": held_out}


def table(content: Mapping[str, Any], out: Path) -> str:
    """How well the device file predicts, as lines to read."""
    lines = [f"{device_name(content['device'])}; {content['protocol']['networks']} networks measured to fit"]
    for of in content["tables"]:
        held_out = of["held_out"]
        figures = "; ".join(
            f"{name} median error {held_out[name]['median_error']:.1%}, tau {_or_none(held_out[name]['kendall_tau'])}"
            for name in ("latency", "memory")
        )
        lines.append(f"batches of {of['batch_size']}, {held_out['networks']} held-out networks: {figures}")
    return "\n".join([*lines, str(out)])


def _or_none(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def draw(net: Supernet, protocol: Protocol) -> tuple[Genes, Genes]:
    """Networks to fit to (the smallest and the largest first) and held-out ones, all different.

    More of one kind extend the fewer of another call, so that their measurements still count.

    Raises:
        UserError: The space has not enough of them.
    """
    space = net.space
    wanted = protocol.networks + protocol.held_out
    if space.size < wanted:
        raise UserError(
            f"--networks: {protocol.networks} and {protocol.held_out} held out are more than the {space.size} networks "
            f"of the space. Give {max(space.size - protocol.held_out, 0)} or fewer networks, or hold out fewer."
        )
    ends = space.ends
    taken = {row.tobytes() for row in ends}
    held_out = _distinct(net, stream(protocol.seed, Purpose.HELD_OUT_NETWORKS), protocol.held_out, taken)
    more = _distinct(net, stream(protocol.seed, Purpose.PROFILED_NETWORKS), protocol.networks - len(ends), taken)
    return np.concatenate([ends, more]), held_out


def _distinct(net: Supernet, rng: np.random.Generator, count: int, taken: set[bytes]) -> Genes:
    rows = []
    for _ in range(_DRAWS * count):
        row = net.space.sample(rng, 1)[0]
        if row.tobytes() not in taken:
            taken.add(row.tobytes())
            rows.append(row)
        if len(rows) == count:
            break
    else:
        raise UserError(f"--networks: only {len(rows)} of {count} different networks were found. Give fewer.")
    return np.stack(rows)


def _measure(
    net: Supernet,
    wanted: Sequence[Wanted],
    measurements: Measurements,
    protocol: Protocol,
    meter: Meter,
    stop: StopRequest,
    quiet: bool,
) -> None:
    missing = [key for key in wanted if key not in measurements.found]
    # In random order, so that a drift of the machine does not tell training and held-out networks apart.
    order = stream(protocol.seed, Purpose.PROFILE_ORDER).permutation(len(missing))
    bar = progress_bar(
        total=len(wanted), initial=len(wanted) - len(missing), desc="profile", unit="network", quiet=quiet
    )
    groups = [Group(number, one) for number, one in enumerate(_groups(net, [missing[index] for index in order]))]
    with bar, contextlib.suppress(Interrupted):
        for measured in meter.measure(groups, protocol):
            measurements.append(measured)
            bar.update(len(measured))
            if stop:
                break
    done = sum(key in measurements.found for key in wanted)
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


def _fitted(
    pieces: Pieces, training: Genes, fit_to: Sequence[Measurement], held_out: Genes, compare: Sequence[Measurement]
) -> dict[str, Any]:
    """The tables of one batch size, and how well they predict the held-out networks."""
    counts, held_counts = pieces.counts(training), pieces.counts(held_out)
    typical = float(np.median([one.reference_seconds for one in [*fit_to, *compare]]))

    def nanoseconds(measured: Sequence[Measurement]) -> np.ndarray:
        # A machine that was slower during one group was slower for the reference, too.
        return np.array([1e9 * one.seconds / one.reference_seconds * typical for one in measured])

    found: dict[str, Any] = {}
    latency = fit_sum(counts, pieces.costs, nanoseconds(fit_to))
    found["latency_ns"] = latency.as_dict()
    fixed = fit_sum(counts, pieces.costs, np.array([float(one.fixed_bytes) for one in fit_to]))
    found["fixed_bytes"] = fixed.as_dict()
    lying_between = np.array([float(max(one.temporary_bytes, 1)) for one in fit_to])
    fit = min(
        (lambda c, m, of=of: of(c, pieces.costs, m) for of in (fit_peak, fit_sum)),
        key=lambda fit: left_out_error(fit, counts, lying_between),
    )
    temporary = fit(counts, lying_between)
    found["temporary_bytes"] = temporary.as_dict()
    truth = nanoseconds(compare)
    memory = np.array([float(one.fixed_bytes + one.temporary_bytes) for one in compare])
    found["held_out"] = {
        "networks": len(compare),
        "latency": _accuracy(latency(held_counts), truth),
        "memory": _accuracy(fixed(held_counts) + temporary(held_counts), memory),
    }
    return found


def _accuracy(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float | None]:
    from scipy.stats import kendalltau

    errors = np.abs(predicted / measured - 1)
    tau = float(kendalltau(predicted, measured)[0])  # type: ignore[arg-type]
    return {
        "median_error": float(np.median(errors)),
        "p90_error": float(np.quantile(errors, 0.9)),
        "kendall_tau": tau if np.isfinite(tau) else None,
    }


def _refuse_other(out: Path, identity: Mapping[str, Any]) -> None:
    if not out.exists():
        return
    there = read_device(out)
    if there.space != identity["space"]:
        raise UserError(
            f"{out}: measured for another search space ({there.space[:12]}). Choose another file with --out."
        )
    if there.device != identity["device"]:
        raise UserError(
            f"{out}: measured on {there.name}, and this is {device_name(identity['device'])}; measurements of two "
            "devices are never mixed. Choose another file with --out."
        )


def measurements_path(out: Path) -> Path:
    """Where the measurements behind a device file are."""
    return out.with_name(f"{out.stem}.measurements.jsonl")
