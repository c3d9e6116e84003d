"""Profiles on Ray: groups of networks measured by the workers; it is then their device that the file describes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.devices.device_file import device_name
from experiments.devices.measurements import Measurement
from experiments.distributed.pool import Pool, Resident, pool
from experiments.experiment import Experiment
from experiments.process.interrupt import StopRequest
from experiments.profiling.stage import Group, Meter, Protocol
from search_spaces import UserError
from supernet.storage.manifest import disk_errors_for


class RayMeter(Meter):
    """Measures groups of networks on the workers of a pool, which must all be of one kind.

    Workers that measure on one machine at the same time share its memory and its caches: give each a machine of its
    own, by `ray.cpus_per_worker` or `ray.gpus_per_worker`.

    Args:
        experiment: The experiment whose subnets they are.
        workers: The pool.
        stop: Read while the workers measure.
    """

    def __init__(self, experiment: Experiment, workers: Pool, stop: StopRequest) -> None:
        super().__init__(experiment.net)
        self._workers, self._stop = workers, stop
        (self._identity,) = workers.run(_identity, [()])

    @property
    def identity(self) -> dict[str, Any]:
        return self._identity

    def measure(self, groups: Sequence[Group], protocol: Protocol) -> Iterator[list[Measurement]]:
        jobs = [(group, protocol) for group in groups]
        for identity, measured in self._workers.stream(_measure, jobs, self._stop):
            if identity != self._identity:
                kinds = " and ".join(device_name(one["device"]) for one in (self._identity, identity))
                raise UserError(
                    f"ray: workers differ, {kinds} among them; measurements of two devices are never mixed. Set "
                    "ray.accelerator_type, or profile on one kind of node."
                )
            yield measured


@contextmanager
def meter(experiment: Experiment, out: Path, stop: StopRequest) -> Iterator[Meter]:
    """What measures: this process, or the workers of the section `ray`.

    Raises:
        UserError: Ray, or its cluster, cannot do it.
    """
    if experiment.config.ray is None:
        yield Meter(experiment.net)
        return
    directory = out.absolute().parent
    with disk_errors_for(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with pool(experiment, directory, cache=False) as workers:
        yield RayMeter(experiment, workers, stop)


def _identity(resident: Resident) -> dict[str, Any]:
    return _own(resident).identity


def _measure(resident: Resident, group: Group, protocol: Protocol) -> tuple[dict[str, Any], list[Measurement]]:
    own = _own(resident)
    return own.identity, own.measure_one(group, protocol)


def _own(resident: Resident) -> Meter:
    return resident.once(_meter)


def _meter(experiment: Experiment) -> Meter:
    return Meter(experiment.net)
