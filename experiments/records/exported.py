"""Records of the networks that the export stage wrote."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from experiments.records.plain import JsonObject, plain, under_prefix, with_prefix

Figures = Mapping[str, Any]
"""Figures that a task has (`Outputs.measures`): name to number, or to numbers by class or by target."""


@dataclass(frozen=True)
class CompiledMemory:
    """Memory of an exported network, as the compiler counts it, or from the graph of its ONNX file.

    Attributes:
        bytes: All that the network needs.
        batch_size: Examples at a time.
        platform: Kind of device that it was compiled for.
        runtime: Runtime that would run it.
    """

    bytes: int
    batch_size: int
    platform: str
    runtime: str = "jax"


@dataclass(frozen=True)
class Prediction:
    """Costs of a network that a device file predicts.

    Attributes:
        latency_ms: Milliseconds a batch.
        memory_bytes: All that the network needs.
        batch_size: Examples at a time.
        device: Name of the device.
    """

    latency_ms: float
    memory_bytes: float
    batch_size: int
    device: str


@dataclass(frozen=True)
class MeasuredLatency:
    """Measured latency of a network, where the device is this machine.

    Attributes:
        latency_ms: Milliseconds a batch.
        batch_size: Examples at a time.
        runtime: Runtime that ran it.
        version: Version of the runtime; None in runs of an earlier build.
        threads: Number of threads; None there, too.
    """

    latency_ms: float
    batch_size: int
    runtime: str = "jax"
    version: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class DeviceFigures:
    """Figures of an exported network on a device.

    Attributes:
        memory: Memory by the compiler's count, or by that of the device's runtime.
        predicted: Prediction of a device file; None without one.
        measured: Measurement; None where the device is another machine.
    """

    memory: CompiledMemory
    predicted: Prediction | None = None
    measured: MeasuredLatency | None = None


@dataclass(frozen=True)
class ConvertedNetwork:
    """An exported network that was written in another format.

    Attributes:
        subnet: Name of the exported network.
        directory: Directory of the other format.
        report: Content of `report.json` there.
    """

    subnet: str
    directory: str
    report: JsonObject

    @property
    def latencies(self) -> Mapping[str, float]:
        """Milliseconds a batch by how they are known, `predicted` and `measured`."""
        return {name: self.report[name]["latency_ms"] for name in ("predicted", "measured") if name in self.report}

    def as_json(self) -> JsonObject:
        """Returns the network as `supernest export --format ... --json` prints it."""
        return {"subnet": self.subnet, "directory": self.directory, **self.report}


@dataclass(frozen=True)
class ExportedNetwork:
    """An exported network.

    Attributes:
        budget: Name of its budget.
        limits: Metric to the most that the budget allows.
        costs: Metric of the space, such as `params` and `macs`, to what the network has.
        memory: Memory by the compiler's count, or by that of the device's runtime.
        validation: Figures on the validation split.
        test: Figures on the test split.
        parity_error: Largest difference of its outputs from the supernet's, over their largest magnitude.
        directory: Directory of the export.
        predicted: Prediction of a device file; None without one.
        measured: Measurement; None where the device is another machine.
        over_limit: Warning where `memory` is more than a limit allows; None elsewhere.
    """

    budget: str
    limits: Mapping[str, float]
    costs: Mapping[str, int]
    memory: CompiledMemory
    validation: Figures
    test: Figures
    parity_error: float
    directory: str
    predicted: Prediction | None = None
    measured: MeasuredLatency | None = None
    over_limit: str | None = None

    @property
    def all_costs(self) -> Mapping[str, float]:
        """Costs of every metric that a budget may limit and that is known."""
        if self.predicted is None:
            return self.costs
        return {**self.costs, "latency_ms": self.predicted.latency_ms, "memory_bytes": self.predicted.memory_bytes}

    @property
    def latencies(self) -> Mapping[str, float]:
        """Milliseconds a batch by how they are known, `predicted` and `measured`."""
        found = {"predicted": self.predicted, "measured": self.measured}
        return {name: one.latency_ms for name, one in found.items() if one is not None}

    def as_json(self) -> JsonObject:
        """Returns the network as `summary.json` has it: costs and figures stand among the fields."""
        content = plain(self, flat=("costs",))
        splits = ("validation", "test")
        return content | {k: v for split in splits for k, v in with_prefix(content.pop(split), f"{split}_").items()}

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: content[name] for name in names if name in content}
        known["memory"] = CompiledMemory(**content["memory"])
        if "predicted" in content:
            known["predicted"] = Prediction(**content["predicted"])
        if "measured" in content:
            known["measured"] = MeasuredLatency(**content["measured"])
        costs = {k: v for k, v in content.items() if k not in names and not k.startswith(("validation_", "test_"))}
        validation, test = under_prefix(content, "validation_"), under_prefix(content, "test_")
        return cls(**known, costs=costs, validation=validation, test=test)
