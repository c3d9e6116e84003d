"""Device files: what was measured of a device's latency and memory, read on any machine. NumPy only, no JAX."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from experiments.records import Hardware, HeldOut, RuntimeFacts
from experiments.records.plain import JsonObject
from search_spaces import CostModel, Genes, SearchSpace, UserError
from search_spaces.cost import CostTables
from search_spaces.pieces import Pieces
from search_spaces.sealed_json import SEAL, is_intact, parse_json
from supernet.storage.manifest import disk_errors_for

DEVICE_METRICS = ("latency_ms", "memory_bytes")
"""What a device file adds to the costs of a space."""

LEAST_TAU = 0.7
"""Least Kendall's tau that predictions need for budgets, unless an experiment accepts less."""

FORMAT, VERSION = "supernest device", 1
TABLES = ("latency_ns", "fixed_bytes", "temporary_bytes")
"""The tables of a batch size, as a device file names them."""

_FIRST_RUNTIME = RuntimeFacts("jax")
"""The runtime of files of earlier versions, which name none."""

_COMBINE: Mapping[str, np.ufunc] = {"sum": np.add, "peak": np.maximum}
_REMEDY = "Measure the space of this experiment: supernest profile CONFIG --out FILE"


@dataclass(frozen=True)
class Table:
    """A cost as look-up: a constant, and for each piece of the space a whole number.

    Attributes:
        kind: `sum`: all pieces of a network count; `peak`: the dearest one does.
        constant: Cost that is added for every network.
        pieces: In the order of the device file's pieces.
    """

    kind: str
    constant: int
    pieces: tuple[int, ...]

    @staticmethod
    def of(spec: JsonObject) -> "Table":
        """Reads a table of a device file."""
        if spec["kind"] not in _COMBINE:
            raise ValueError(spec["kind"])
        return Table(spec["kind"], int(spec["constant"]), tuple(int(value) for value in spec["pieces"]))

    def model(self, pieces: Pieces, known: Int[np.ndarray, "q 3"]) -> CostModel:
        """Returns the table over genes; `known` names the pieces of its numbers."""
        row = {tuple(piece): index for index, piece in enumerate(known.tolist())}
        values = [[self.pieces[row[tuple(piece)]]] for piece in pieces.costs.tolist()]
        return pieces.model(np.array(values, np.int64).reshape(-1, 1), ("value",), _COMBINE[self.kind])


@dataclass(frozen=True)
class Tables:
    """Tables of costs for one batch size.

    Attributes:
        latency: Nanoseconds a batch.
        fixed: Bytes of weights, input and output.
        temporary: Bytes in between.
    """

    latency: Table
    fixed: Table
    temporary: Table


@dataclass(frozen=True)
class Device:
    """A device file.

    Attributes:
        path: Path of the file.
        sha256: SHA-256 of its bytes.
        family: Family of that space.
        space: Fingerprint of the space whose networks were measured.
        device: Platform, model and cores.
        software: Versions that it was measured with.
        runtime: Runtime that ran the networks.
        protocol: Method of the measurements, as the file has it.
        pieces: Params, MACs and activation bytes of each piece.
        tables: Batch size to its tables, in the order in which they were wanted.
        accuracy: Batch size to how well held-out networks are predicted.
    """

    path: Path
    sha256: str
    family: str
    space: str
    device: Hardware
    software: Mapping[str, str]
    pieces: Int[np.ndarray, "q 3"]
    tables: Mapping[int, Tables]
    accuracy: Mapping[int, HeldOut]
    runtime: RuntimeFacts
    protocol: JsonObject

    @property
    def name(self) -> str:
        """The device in a few words, with what runs networks there where it is not JAX."""
        return self.device.text + ("" if self.runtime.name == "jax" else f", {self.runtime.text}")

    def cost(self, space: SearchSpace, batch_size: int | None = None) -> "DeviceCost":
        """Costs of a space's architectures on this device.

        Args:
            space: The space that was measured.
            batch_size: One of those measured; the first when None.

        Raises:
            UserError: The file is of another space, or has no such batch size.
        """
        if space.fingerprint != self.space:
            raise UserError(f"{self.path}: measured for another search space ({self.space[:12]}). {_REMEDY}")
        sizes = list(self.tables)
        if batch_size is not None and batch_size not in self.tables:
            nearest = min(sizes, key=lambda size: abs(size - batch_size))
            raise UserError(
                f"device.batch_size: {batch_size} was not measured in {self.path}, which has {sizes}. Set {nearest}; "
                f"for a budget of a finished run, --batch-size {nearest}."
            )
        known = set(map(tuple, self.pieces.tolist()))
        if not known.issuperset(map(tuple, Pieces(space).costs.tolist())):
            raise UserError(f"{self.path}: lacks pieces of the search space that it names. {_REMEDY}")
        return DeviceCost(space, self, sizes[0] if batch_size is None else batch_size)


@dataclass(frozen=True)
class DeviceCost:
    """Costs of architectures: those of the space, `latency_ms` of a batch, and `memory_bytes`.

    Args:
        space: The space.
        device: A device file of this space.
        batch_size: One of its batch sizes.
    """

    space: SearchSpace
    device: Device
    batch_size: int

    def __call__(self, genes: Genes) -> dict[str, np.ndarray]:
        """Metric name to one number an architecture."""
        tables = self.device.tables[self.batch_size]
        found = [
            table.constant + model(genes)["value"]
            for table, model in zip((tables.latency, tables.fixed, tables.temporary), self._models, strict=True)
        ]
        return {**self.space.cost(genes), "latency_ms": found[0] / 1e6, "memory_bytes": found[1] + found[2]}

    def tables(self, metric: str) -> CostTables:
        """See `search_spaces.cost.Tabulated`."""
        tables, (latency, fixed, temporary) = self.device.tables[self.batch_size], self._models
        if metric == "latency_ms":
            return replace(latency.tables("value"), constant=tables.latency.constant, per=1e6)
        if metric == "memory_bytes":
            both = [model.tables("value") for model in (fixed, temporary)]
            sums, peaks = (both[0].sums + both[1].sums), (both[0].peaks + both[1].peaks)
            return CostTables(sums, peaks, tables.fixed.constant + tables.temporary.constant)
        return self.space.cost.tables(metric)

    def check_order(self, metrics: Iterable[str], least: float) -> None:
        """Refuses predictions that order networks too badly for budgets on them.

        Args:
            metrics: Metrics of the budgets; those that are not of the device are skipped.
            least: Least Kendall's tau of the predictions, over networks that the file was not fitted to; -1 for any.

        Raises:
            UserError: One of them has less, or the file does not say.
        """
        held_out = self.device.accuracy[self.batch_size]
        measured = {"latency_ms": held_out.latency, "memory_bytes": held_out.memory}
        for metric in sorted(measured.keys() & set(metrics)):
            tau = measured[metric].kendall_tau
            if (-1 if tau is None else tau) < least:
                said = "is not known" if tau is None else f"is {tau:.2f}, less than {least:g}"
                raise UserError(
                    f"{self.device.path}: Kendall's tau of its {metric} (batches of {self.batch_size}) over held-out "
                    f"networks {said}: a budget on it may pick the wrong networks. Measure more on a quiet machine: "
                    "supernest profile CONFIG --out FILE --networks 200 --repeats 50; or accept it: device.min_tau in "
                    "the experiment, --min-tau of supernest export."
                )

    @cached_property
    def _models(self) -> list[CostModel]:
        pieces, tables = Pieces(self.space), self.device.tables[self.batch_size]
        return [table.model(pieces, self.device.pieces) for table in (tables.latency, tables.fixed, tables.temporary)]


def read_device(path: Path | str) -> Device:
    """Reads a device file.

    Raises:
        UserError: The file is missing, or is not a complete device file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such device file. Measure one: supernest profile CONFIG --out {path}")
    with disk_errors_for(path):
        content = path.read_bytes()
    try:
        found = parse_json(content)
        if (found["format"], found["version"]) != (FORMAT, VERSION) or (SEAL in found and not is_intact(found)):
            raise ValueError
        pieces = np.array(found["pieces"], np.int64).reshape(-1, 3)
        tables = {
            int(entry["batch_size"]): Tables(*(Table.of(entry[name]) for name in TABLES)) for entry in found["tables"]
        }
        sizes = {len(table.pieces) for of in tables.values() for table in (of.latency, of.fixed, of.temporary)}
        if sizes != {len(pieces)}:
            raise ValueError
        if min(tables) < 1 or not isinstance(found["software"], dict):
            raise ValueError
        return Device(
            path=path,
            sha256=hashlib.sha256(content).hexdigest(),
            family=str(found.get("family", "")),
            space=str(found["space"]),
            device=Hardware.from_json(found["device"]),
            software=found["software"],
            pieces=pieces,
            tables=tables,
            accuracy={int(entry["batch_size"]): HeldOut.from_json(entry["held_out"]) for entry in found["tables"]},
            runtime=RuntimeFacts.from_json(found["runtime"]) if "runtime" in found else _FIRST_RUNTIME,
            protocol=found.get("protocol", {}),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise UserError(
            f"{path}: no device file of version {VERSION}, or damaged. Measure it again: supernest profile CONFIG "
            f"--out {path}"
        ) from None
