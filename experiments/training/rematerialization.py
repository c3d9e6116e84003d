"""Residual policy: whether training keeps what sublayers compute for the backward pass, or computes it again."""

import os
from pathlib import Path

import jax

from experiments.devices.measure import allowed_cores
from experiments.experiment import Experiment
from experiments.training.division import schedule_of
from search_spaces import UserError
from supernet.engine.supernet import Supernet, build_supernet
from supernet.layers.passes import Passes

_SHARE = 0.5  # of the device's memory; the rest is for weights, their gradients, the optimiser's and what is temporary
_LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


def training_net(experiment: Experiment) -> Supernet:
    """Returns the supernet with the configured passes, adapted to the device of this process.

    With `train.rematerialize: auto` that follows from the experiment and the size of the device's memory, not from how
    much of it is free, so that a resumed run goes on as it began.

    Raises:
        UserError: The family has no such passes; one of a plugin, say, whose sublayers are no stages of the engine.
    """
    train = experiment.config.train
    plain = _with(experiment, Passes(train.precision))
    again = _is_too_much(experiment, plain) if train.rematerialize == "auto" else train.rematerialize
    if again and not plain.residual_bytes(1):
        raise UserError(
            f"train.rematerialize: true is not for family {experiment.space.family}, whose sublayers keep nothing. Set "
            "auto or false."
        )
    return _with(experiment, Passes(train.precision, rematerialize=True)) if again else plain


def device_bytes(workers: int = 1) -> float:
    """Returns the memory of the first device of this process in bytes.

    Args:
        workers: Processes that share the machine's memory, where that is what the device has.
    """
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return _machine_bytes() / workers if limit is None else limit


def _with(experiment: Experiment, passes: Passes) -> Supernet:
    net = experiment.net
    return net if passes == net.passes else build_supernet(net.space, net.sharing, passes)


def _is_too_much(experiment: Experiment, net: Supernet) -> bool:
    """Whether what one pass of the largest network keeps does not fit beside all else."""
    ray, paths = experiment.config.ray, experiment.sampler.paths_per_step
    shares = schedule_of(experiment, 1 if ray is None else ray.sizes[0]).shares(paths)
    pieces = {-(-(share.rows.stop - share.rows.start) // experiment.config.train.accumulate) for share in shares}
    devices = jax.local_device_count()
    # Rows that do not divide between the devices are on each of them.
    rows = max(piece if piece % devices else piece // devices for piece in pieces)
    workers = 1 if ray is None else min(ray.sizes[-1], max(1, int(allowed_cores() / ray.cpus_per_worker + 1e-9)))
    return net.residual_bytes(rows) > _SHARE * device_bytes(workers)


def _machine_bytes() -> int:
    """Memory of the machine, or what the container may have of it."""
    limits = [path.read_text().strip() for path in _LIMITS if path.is_file()]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(int(limit) for limit in limits if limit.isdigit())])
