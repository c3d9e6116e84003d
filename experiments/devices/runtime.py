"""Runtimes that networks are timed in: each is registered under its name, and builds what is timed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import jax

from experiments.devices.device_file import Device
from experiments.devices.measure import Memory, cores, this_cpu, this_device, this_software
from experiments.records import Hardware, RuntimeFacts
from search_spaces import UserError
from search_spaces.randomness import Purpose, stream
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
        """Bytes that the network needs, as counted by the runtime or from the file."""
        ...

    def __call__(self) -> None:
        """Runs it, and waits for the result."""
        ...


@dataclass(frozen=True)
class Runtime(ABC):
    """A runtime on this machine.

    Args:
        threads: Number of threads; all cores of this process when None.

    Raises:
        UserError: The runtime cannot be used here.
    """

    name: ClassVar[str]

    threads: int | None = None

    @classmethod
    def device(cls) -> Hardware:
        """Returns what it computes on."""
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

    @property
    def facts(self) -> RuntimeFacts:
        """Name, version and threads of the runtime, as a device file holds them."""
        return RuntimeFacts(self.name, self.version, self.threads or cores())


class FileRuntime(Runtime):
    """A runtime on the CPU that takes files, whose preprocessing is inside."""

    @classmethod
    def device(cls) -> Hardware:
        return this_cpu()

    @abstractmethod
    def load(self, content: Any, network: Network) -> Program:
        """Loads a file, which may have any batch size.

        Args:
            content: The file.
            network: Network of the program, and the batch size of its input.
        """


def with_weights(subnet: Subnet) -> Subnet:
    """Returns a network whose weights are numbers; where they are shapes only, random ones.

    No time depends on the values as long as none becomes denormal, which positive ones don't.
    """
    rng = stream(0, Purpose.MEASURED_INPUTS)

    def filled(leaf: Any) -> Any:
        return rng.uniform(0.01, 0.1, leaf.shape).astype(leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf

    return replace(subnet, weights=jax.tree.map(filled, subnet.weights))


RUNTIMES: Registry[type[Runtime]] = Registry("--runtime", "experiments.devices.runtimes")
"""Runtimes by name."""


def open_runtime(name: str, threads: int | None = None) -> Runtime:
    """Opens a runtime on this machine.

    Args:
        name: Its name.
        threads: Number of threads; all cores of this process when None.

    Raises:
        UserError: The runtime is not known, or cannot be used here.
    """
    if name not in RUNTIMES:
        raise UserError(
            f"--runtime {name}: cannot be timed in this process; {', '.join(RUNTIMES)} can. Write the networks "
            f"with --spec FILE, time them where {name} runs, and take the times back with --measured."
        )
    return RUNTIMES[name](threads)


def runtime_here(device: Device) -> Runtime | None:
    """Returns the runtime of a device file where the device is this machine; None where it is another.

    Raises:
        UserError: The runtime is not installed.
    """
    found = RUNTIMES.get(device.runtime.name)
    return None if found is None or found.device() != device.device else found(device.runtime.threads)
