"""How the C library hands out memory: whether what is freed is kept for the next step, or given back to the system."""

import ctypes
import sys
from collections.abc import Mapping

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_KEPT = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
_GIVEN_BACK = {_TRIM_THRESHOLD: 1 << 20, _MMAP_THRESHOLD: 1 << 20, _MMAP_MAX: 1 << 16}

VARIABLES = {
    "MALLOC_ARENA_MAX": str(_KEPT[_ARENA_MAX]),
    "MALLOC_MMAP_MAX_": str(_KEPT[_MMAP_MAX]),
    "MALLOC_TRIM_THRESHOLD_": str(_KEPT[_TRIM_THRESHOLD]),
}
"""Environment of a process that is to keep freed memory from its start."""


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed; call it before JAX computes anything, as its threads start then and choose arenas.

    XLA's CPU back-end allocates a program's buffers anew at each call. By default glibc maps large ones and unmaps them
    afterwards, so the kernel zeroes every page of every step again (`python -m experiments.benchmarks.profile` counts
    the page faults, with and without). The price is that the process does not shrink.

    Returns:
        Whether it was done: on Linux with glibc.
    """
    return _set(_KEPT)


def give_back_freed_memory() -> bool:
    """Has glibc return what is freed, for work on large arrays in turn, of which none fits where another was.

    Returns:
        Whether it was done: on Linux with glibc.
    """
    return _set(_GIVEN_BACK)


def _set(settings: Mapping[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) for name, value in settings.items())
