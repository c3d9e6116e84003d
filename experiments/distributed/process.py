"""Environment and start of Supernest's processes on a Ray cluster."""

import math
import os
import sys
from collections.abc import Sequence

from experiments.configuration.ray_section import RaySection
from experiments.process.freed_memory import variables
from experiments.process.garbage import collect_rarely


def environment(section: RaySection, family: str) -> dict[str, str]:
    """Variables that must be set before JAX is imported; XLA sizes its thread pool by NPROC.

    Args:
        section: Settings of the cluster and of each worker's share.
        family: Family of the networks.
    """
    platform = "cuda" if section.gpus_per_worker else "cpu"
    return {"JAX_PLATFORMS": platform, "NPROC": str(math.ceil(section.cpus_per_worker)), **variables(family)}


def begin(path: Sequence[str]) -> None:
    """Shows JAX, which is not imported yet, the accelerators that are this process's; finds the driver's modules.

    Args:
        path: The driver's `module_path()`.
    """
    import ray

    accelerators = ray.get_runtime_context().get_accelerator_ids().get("GPU")
    if accelerators:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(accelerators)
    collect_rarely()
    sys.path += [entry for entry in path if entry not in sys.path]


def module_path() -> list[str]:
    """Returns the directories in which this process finds modules, as absolute paths."""
    return [os.path.abspath(entry) for entry in sys.path]
