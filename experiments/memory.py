"""How the C library hands out memory: what a step frees is kept for the next one, not given back to the system."""

import ctypes
import sys

_LARGEST = 2**31 - 1
# Parameters of glibc's mallopt, and the variables that set them when a process starts.
_SETTINGS = {
    "MALLOC_ARENA_MAX": (-8, 1),
    "MALLOC_MMAP_MAX_": (-4, 0),
    "MALLOC_TRIM_THRESHOLD_": (-1, _LARGEST),
}

VARIABLES = {name: str(value) for name, (_, value) in _SETTINGS.items()}
"""Environment of a process that is to keep freed memory from its start."""


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed; call it before JAX is imported, as threads choose their arenas when they start.

    XLA's CPU back-end allocates a program's buffers anew at each call. By default glibc maps large ones and unmaps them
    afterwards, so the kernel zeroes every page of every step again (`python -m experiments.benchmarks.profile` counts
    the page faults, with and without). The price is that the process does not shrink.

    Returns:
        Whether it was done: on Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) for name, value in _SETTINGS.values())
