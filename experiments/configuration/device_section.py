"""The section `device`: the device that subnets are for, by a file that `supernest profile` wrote."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from experiments.configuration.sealed_section import SealedSection
from experiments.devices.device_file import LEAST_TAU, Device, DeviceCost, read_device
from search_spaces import SearchSpace

DEVICE_COPY = "device.json"
"""Name of the copy of the device file in a run directory."""


class DeviceSection(SealedSection):
    """A device file; with it there are the metrics `latency_ms` and `memory_bytes`.

    Attributes:
        batch_size: Number of examples per call that latency and memory refer to; null for the file's first batch size.
        min_tau: Lower bound of Kendall's tau between the file's predictions and held-out measurements; budgets on
            latency or memory are refused if the file has a lower tau. -1 accepts any.
    """

    batch_size: Annotated[int, Field(ge=1)] | None = None
    min_tau: Annotated[float, Field(ge=-1, le=1)] = LEAST_TAU

    @classmethod
    def _content(cls, path: Path, directory: Path, sealed: bool) -> tuple[Path, str]:
        kept = directory / DEVICE_COPY
        if sealed and not path.is_file() and kept.is_file():
            path = kept  # the copy that a run directory holds
        return path, read_device(path).sha256

    @property
    def device(self) -> Device:
        """The device file's content."""
        return read_device(self.path)

    def cost(self, space: SearchSpace) -> DeviceCost:
        """Costs of a space's architectures on the device.

        Raises:
            UserError: The file is of another space, or lacks the batch size.
        """
        return self.device.cost(space, self.batch_size)
