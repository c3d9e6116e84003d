"""Records of devices: what they are, what runs networks there, and how well their costs are predicted."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from experiments.records.plain import JsonObject, plain


@dataclass(frozen=True)
class Hardware:
    """A device.

    Attributes:
        platform: Kind of device, such as `cpu`; `remote` for one without Python.
        model: Its name.
        cores: Processor cores that may be used; None for other kinds.
    """

    platform: str
    model: str
    cores: int | None = None

    @property
    def text(self) -> str:
        """The device in a few words: `cpu Intel(R) Xeon(R), 2 cores`."""
        return f"{self.platform} {self.model}" + (f", {self.cores} cores" if self.cores else "")

    def as_json(self) -> JsonObject:
        """Returns the device as a device file has it."""
        return plain(self)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Reads what `as_json` gives.

        Raises:
            ValueError: The value is something else.
        """
        return _read(cls, content, {"platform": str, "model": str, "cores": int}, ("platform", "model"))


@dataclass(frozen=True)
class RuntimeFacts:
    """Runtime that runs networks on a device.

    Attributes:
        name: Name of the runtime.
        version: Its version; None where it is not known.
        threads: Number of threads; None where it is not known.
    """

    name: str
    version: str | None = None
    threads: int | None = None

    @property
    def text(self) -> str:
        """The runtime in a few words: `onnxruntime 1.32.0, 2 threads`."""
        said = "" if self.threads is None else f", {self.threads} thread{'s' * (self.threads != 1)}"
        return (f"{self.name} {self.version}" if self.version else self.name) + said

    def as_json(self) -> JsonObject:
        """Returns the runtime as a device file has it."""
        return plain(self)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Reads what `as_json` gives.

        Raises:
            ValueError: The value is something else.
        """
        return _read(cls, content, {"name": str, "version": str, "threads": int}, ("name",))


@dataclass(frozen=True)
class DeviceIdentity:
    """Device, runtime and software of measurements; those of two are never mixed.

    Attributes:
        device: Device that measures the networks.
        software: Name to version, of all that decides the programs.
        runtime: Runtime of the networks.
    """

    device: Hardware
    software: Mapping[str, str]
    runtime: RuntimeFacts

    def as_json(self) -> JsonObject:
        """Returns the identity as device files and measurements have it."""
        return {"device": self.device.as_json(), "software": self.software, "runtime": self.runtime.as_json()}


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a predicted cost, on networks that the tables were not fitted to.

    Attributes:
        kendall_tau: Kendall's tau of predictions and measurements; None where it is not defined.
        median_error: Median of the relative errors; None in files that do not say.
        p90_error: Relative error that nine of ten predictions do not exceed; None in files that do not say.
    """

    kendall_tau: float | None = None
    median_error: float | None = None
    p90_error: float | None = None

    def as_json(self) -> JsonObject:
        """Returns the figures as a device file has them."""
        return {"median_error": self.median_error, "p90_error": self.p90_error, "kendall_tau": self.kendall_tau}


@dataclass(frozen=True)
class HeldOut:
    """Accuracy of a device file's predictions for one batch size.

    Attributes:
        latency: Accuracy of the latency.
        memory: Accuracy of the memory.
        networks: Networks that predictions are compared with; None in files that do not say.
    """

    latency: Accuracy
    memory: Accuracy
    networks: int | None = None

    def as_json(self) -> JsonObject:
        """Returns the figures as a device file has them."""
        return {"networks": self.networks, "latency": self.latency.as_json(), "memory": self.memory.as_json()}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Reads what `as_json` gives.

        Raises:
            ValueError: The value is something else.
        """
        if not isinstance(content, dict):
            raise ValueError(content)
        names = ("kendall_tau", "median_error", "p90_error")
        latency, memory = (
            _read(Accuracy, content.get(of, {}), dict.fromkeys(names, (int, float)), ()) for of in ("latency", "memory")
        )
        return cls(latency, memory, content.get("networks"))


def _read(cls: Any, content: Any, types: Mapping[str, type | tuple[type, ...]], needed: tuple[str, ...]) -> Any:
    """Returns a record of an object's known entries; others are those of later versions."""
    if not isinstance(content, dict) or any(content.get(name) is None for name in needed):
        raise ValueError(content)
    known = {field.name: content.get(field.name) for field in dataclasses.fields(cls) if field.name in types}
    for name, value in known.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, types[name])):
            raise ValueError(content)
    return cls(**known)
