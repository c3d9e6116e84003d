"""Memory allocation of the C library: whether freed memory is kept for the next step or returned to the system."""

import ctypes
import mmap
import os
import re
import sys
import threading
from collections.abc import Mapping

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8
# Arenas but the first consist of heaps of 64 MiB; one that is empty stays where that much is to be left at the top.
_KEEP_FREED = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20}
_IN_ONE_ARENA = {**_KEEP_FREED, _ARENA_MAX: 1}
_GIVE_BACK = {_TRIM_THRESHOLD: 1 << 20, _TOP_PAD: 1 << 17, _MMAP_THRESHOLD: 1 << 20, _MMAP_MAX: 1 << 16}
_NAMES = {
    _MMAP_MAX: "MALLOC_MMAP_MAX_", _TRIM_THRESHOLD: "MALLOC_TRIM_THRESHOLD_", _TOP_PAD: "MALLOC_TOP_PAD_",
    _ARENA_MAX: "MALLOC_ARENA_MAX",
}  # fmt: skip

_HOLES = 1 << 10, 1 << 19  # bytes; what is larger serves the buffers of steps
_PASSES = 3

_was_set: Mapping[int, int] = {}
_filling = threading.Lock()


def keep_freed_memory(family: str | None = None) -> bool:
    """Has glibc keep what is freed; call it before JAX computes anything, as its threads start then and choose arenas.

    XLA's CPU back-end allocates a program's buffers anew at each call. By default glibc maps large ones and unmaps them
    afterwards, so the kernel zeroes every page of every step again (`python -m experiments.benchmarks.profile` counts
    the page faults, with and without). The price is that the process does not shrink.

    Blocks above 64 MiB are kept in the first arena alone, so that all threads have to share it. A family of smaller
    buffers and long compilation, such as a MobileNet's, is faster with an arena for each thread
    (`SearchSpace.several_arenas`).

    Args:
        family: Family of the networks; None leaves the arenas to a later call.

    Returns:
        Whether it was done: on Linux with glibc.
    """
    return _set(_KEEP_FREED if family is None else _settings(family))


def choose_arenas(family: str) -> None:
    """Completes `keep_freed_memory`, where it was called, once the family is known."""
    if _was_set == _KEEP_FREED:
        _set(_settings(family))


def variables(family: str) -> dict[str, str]:
    """Returns the environment of a process that keeps freed memory from its start."""
    return {_NAMES[name]: str(value) for name, value in _settings(family).items()}


def give_back_freed_memory() -> bool:
    """Has glibc return what is freed, for work on large arrays in turn, of which none fits where another was.

    Returns:
        Whether it was done: on Linux with glibc.
    """
    return _set(_GIVE_BACK)


def fill_holes() -> int:
    """Takes out of use what lies free in small pieces between blocks in use, for good, and gives its pages back.

    Compilation leaves many thousands of such pieces, and where freed memory is kept, glibc passes hundreds of them when
    a step asks for a buffer (`python -m experiments.benchmarks.profile --family language`, with and without `--holes`).
    Where it is not kept in one arena, nothing is done.

    Returns:
        Bytes given back.
    """
    if not (_has_glibc() and _kept_in_one_arena()):
        return 0
    libc = ctypes.PyDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page, given_back = mmap.PAGESIZE, 0
    with _filling:
        for _ in range(_PASSES):  # a piece may be longer than what is taken of it; the rest of it is the next one's
            for smallest, count in reversed(_free_pieces(libc)):
                if not _HOLES[0] <= smallest <= _HOLES[1]:
                    continue
                size = smallest // 16 * 16 - 16  # without the header
                for start in filter(None, (libc.malloc(size) for _ in range(count))):
                    first, last = -(-start // page) * page, (start + size) // page * page
                    if last > first and not libc.madvise(first, last - first, mmap.MADV_DONTNEED):
                        given_back += last - first
    return given_back


def _free_pieces(libc: ctypes.CDLL) -> list[tuple[int, int]]:
    """For each class of sizes, the smallest (with its header) and how many free pieces there are; smallest first."""
    libc.open_memstream.restype = ctypes.c_void_p
    libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
    text, length = ctypes.c_void_p(), ctypes.c_size_t()
    stream = libc.open_memstream(ctypes.byref(text), ctypes.byref(length))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    found = ctypes.string_at(text.value or 0, length.value).decode().partition("</heap>")[0]  # the first arena's
    libc.free(text)
    return [(int(size), int(count)) for size, count in re.findall(r'<size from="(\d+)".* count="(\d+)"/>', found)]


def _kept_in_one_arena() -> bool:
    return _was_set == _IN_ONE_ARENA or all(
        os.environ.get(_NAMES[name]) == str(value) for name, value in _IN_ONE_ARENA.items()
    )


def _settings(family: str) -> Mapping[int, int]:
    from search_spaces import FAMILIES  # not where the family is not known yet: the command line starts faster

    return _KEEP_FREED if FAMILIES[family].several_arenas else _IN_ONE_ARENA


def _has_glibc() -> bool:
    return sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def _set(settings: Mapping[int, int]) -> bool:
    if not _has_glibc() or not all(ctypes.CDLL(None).mallopt(name, value) for name, value in settings.items()):
        return False
    global _was_set
    _was_set = settings
    return True
