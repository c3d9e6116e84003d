"""Profiles on Ray: groups of networks measured by the workers; it is then their device that the file describes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiments.devices.measurements import Measurement
from experiments.devices.runtime import open_runtime
from experiments.distributed.pool import Pool, Resident, pool
from experiments.experiment import Experiment
from experiments.process.interrupt import StopRequest
from experiments.profiling.stage import Group, Meter, Protocol
from experiments.records import DeviceIdentity
from search_spaces import UserError
from supernet.storage.manifest import disk_errors_for


class RayMeter(Meter):
    """Measures groups of networks on the workers of a pool, which must all be of one kind.

    Workers that measure on one machine at the same time share its memory and its caches: give each a machine of its
    own, by `ray.cpus_per_worker` or `ray.gpus_per_worker`.

    Args:
        make: Makes the meter of a worker.
        workers: The pool.
        stop: Read while the workers measure.
    """

    def __init__(self, make: "_MakeMeter", workers: Pool, stop: StopRequest) -> None:
        self._make, self._workers, self._stop = make, workers, stop
        (self._identity,) = workers.run(_identity, [(make,)])

    @property
    def identity(self) -> DeviceIdentity:
        return self._identity

    def measure(self, groups: Sequence[Group], protocol: Protocol) -> Iterator[list[Measurement]]:
        jobs = [(self._make, group, protocol) for group in groups]
        for identity, measured in self._workers.stream(_measure, jobs, self._stop):
            if identity != self._identity:
                kinds = " and ".join(one.device.text for one in (self._identity, identity))
                raise UserError(
                    f"ray: workers differ, {kinds} among them; measurements of two devices are never mixed. Set "
                    "ray.accelerator_type, or profile on one kind of node."
                )
            yield measured


@contextmanager
def meter(experiment: Experiment, out: Path, stop: StopRequest, runtime: str, threads: int | None) -> Iterator[Meter]:
    """Returns the function that measures: in this process, or on the workers of the section `ray`.

    Args:
        experiment: The experiment whose subnets are measured.
        out: The device file.
        stop: Read while workers measure.
        runtime: Name of what runs the networks.
        threads: Number of threads; all cores of the process when None.

    Raises:
        UserError: Ray, its cluster, or the runtime cannot do it.
    """
    make = _MakeMeter(runtime, threads)
    if experiment.config.ray is None:
        yield make(experiment)
        return
    directory = out.absolute().parent
    with disk_errors_for(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with pool(experiment, directory, cache=False) as workers:
        yield RayMeter(make, workers, stop)


@dataclass(frozen=True)
class _MakeMeter:
    """Makes a meter of an experiment, in this process or in a worker."""

    runtime: str
    threads: int | None

    def __call__(self, experiment: Experiment) -> Meter:
        return Meter(experiment.net, experiment.data, open_runtime(self.runtime, self.threads))


def _identity(resident: Resident, make: _MakeMeter) -> DeviceIdentity:
    return resident.once(make).identity


def _measure(
    resident: Resident, make: _MakeMeter, group: Group, protocol: Protocol
) -> tuple[DeviceIdentity, list[Measurement]]:
    own = resident.once(make)
    return own.identity, own.measure_one(group, protocol)
