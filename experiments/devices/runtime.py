"""Runtimes that networks are timed in: each is registered under its name, and builds what is timed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import jax

from experiments.devices.device_file import Device
from experiments.devices.measure import Memory, cores, this_device, this_software
from search_spaces import UserError
from search_spaces.registry import Registry
from supernet.export.subnet import Subnet


class Network(NamedTuple):
    """A network that stands alone, to be timed.

    Attributes:
        subnet: The network; its weights may be shapes only, as no time depends on them.
        example: Shape and type of an input of its module.
        batch_size: Examples a call.
    """

    subnet: Subnet
    example: jax.ShapeDtypeStruct
    batch_size: int


class Program(Protocol):
    """A network with its input, ready to run."""

    @property
    def memory(self) -> Memory:
        """What it needs, as the runtime or its file says."""
        ...

    def __call__(self) -> None:
        """Runs it, and waits for the result."""
        ...


@dataclass(frozen=True)
class Runtime(ABC):
    """A runtime on this machine.

    Args:
        threads: How many it uses; the cores that this process may use when None.

    Raises:
        UserError: It cannot be used here.
    """

    name: ClassVar[str]

    threads: int | None = None

    @classmethod
    def device(cls) -> dict[str, Any]:
        """Returns what it computes on: platform, model and, for a CPU, its cores."""
        return this_device()

    @property
    @abstractmethod
    def version(self) -> str:
        """Its version."""

    @property
    def software(self) -> dict[str, str]:
        """Versions of all that decides the programs."""
        return this_software()

    @abstractmethod
    def build(self, networks: Sequence[Network]) -> Sequence[Program]:
        """Makes networks ready to run.

        Raises:
            UserError: A network has an operation that the runtime lacks.
        """

    def as_dict(self) -> dict[str, Any]:
        """Returns what a device file says of it."""
        return {"name": self.name, "version": self.version, "threads": self.threads or cores()}


RUNTIMES: Registry[type[Runtime]] = Registry("--runtime", "experiments.devices.runtimes")
"""Runtimes by name."""


def open_runtime(name: str, threads: int | None = None) -> Runtime:
    """Opens a runtime on this machine.

    Args:
        name: Its name.
        threads: How many it uses; the cores that this process may use when None.

    Raises:
        UserError: It is not known, or cannot be used here.
    """
    if name not in RUNTIMES:
        raise UserError(
            f"--runtime {name}: cannot be timed in this process, as {' and '.join(RUNTIMES)} can. Write the networks "
            f"with --spec FILE, time them where {name} runs, and take the times back with --measured."
        )
    return RUNTIMES[name](threads)


def runtime_here(device: Device) -> Runtime | None:
    """Returns the runtime of a device file where the device is this machine; None where it is another.

    Raises:
        UserError: The runtime is not installed.
    """
    found = RUNTIMES.get(device.runtime["name"])
    return None if found is None or found.device() != device.device else found(device.runtime.get("threads"))
