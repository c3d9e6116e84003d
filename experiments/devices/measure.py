"""Measuring programs: run in turn, their time; and what they run on."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import jax
import numpy as np

from experiments.records import Hardware
from search_spaces.randomness import Purpose, stream

_SAMPLE_SECONDS, _MOST_CALLS = 0.002, 20


@dataclass(frozen=True)
class Memory:
    """Memory that a program needs, in bytes.

    Attributes:
        fixed: Arguments (weights and input) and results.
        temporary: Intermediate values.
    """

    fixed: int
    temporary: int

    @property
    def total(self) -> int:
        """Total bytes that the program needs."""
        return self.fixed + self.temporary


def median_seconds(programs: Sequence[Callable[[], None]], warmup: int, repeats: int, seed: int) -> list[float]:
    """Measures the median time of a call of each program.

    Each round runs all programs, in another order, so that what else happens on the machine does not hit one program
    alone. A sample is the mean over as many calls as take two milliseconds.

    Args:
        programs: Programs to measure.
        warmup: Calls of each before.
        repeats: Rounds.
        seed: Seed of the orders.
    """
    calls = []
    for program in programs:
        taken = 0.0
        for _ in range(max(warmup, 1)):
            start = time.perf_counter()
            program()
            taken = time.perf_counter() - start
        calls.append(int(np.clip(_SAMPLE_SECONDS / taken, 1, _MOST_CALLS)))
    samples: list[list[float]] = [[] for _ in programs]
    rng = stream(seed, Purpose.MEASURED_TURNS)
    for _ in range(repeats):
        for index in rng.permutation(len(programs)):
            start = time.perf_counter()
            for _ in range(calls[index]):
                programs[index]()
            samples[index].append((time.perf_counter() - start) / calls[index])
    return [median(taken) for taken in samples]


def cores() -> int:
    """Returns the number of processor cores that this process may use; XLA uses at most NPROC if set."""
    there = allowed_cores()
    return min(there, int(os.environ.get("NPROC", there)))


def allowed_cores() -> int:
    """Returns the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_device() -> Hardware:
    """Returns what is measured on."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return Hardware(device.platform, device.device_kind)
    return this_cpu()


def this_cpu() -> Hardware:
    """Returns the processor and its cores, whatever JAX computes on."""
    return Hardware("cpu", _cpu_model(), cores())


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def this_software() -> dict[str, str]:
    """Returns what decides the compiled programs: versions of the libraries, and flags of the compiler."""
    found = {name: version(name) for name in ("supernest", "jax", "jaxlib")}
    return {**found, "xla_flags": os.environ.get("XLA_FLAGS", "")}
