"""Freed memory stays with the process: what is written again costs no new pages."""

import subprocess
import sys

import jax
import pytest

from experiments.process import compilation
from experiments.process import freed_memory as memory
from experiments.process.freed_memory import fill_holes, keep_freed_memory, variables

_TOUCH = """
import ctypes, os, resource, sys, threading
if sys.argv[1] == "call":
    from experiments.process.freed_memory import keep_freed_memory
    assert keep_freed_memory("vit")
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def touch():
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)

def threads():
    for _ in range(3):
        thread = threading.Thread(target=touch)
        thread.start()
        thread.join()

threads()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
threads()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str, **environment: str) -> int:
    run = subprocess.run([sys.executable, "-c", _TOUCH, how], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_pages_are_kept_by_the_call_and_by_the_environment():
    given_back = _faults("not")  # one for each page, or for each huge one
    assert given_back >= 3 * 32
    assert _faults("call") < given_back / 5
    assert _faults("not", **variables("vit")) < given_back / 5


_HEAPS = """
import ctypes, resource, threading
from experiments.process.freed_memory import keep_freed_memory
assert keep_freed_memory("mobilenet")
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def touch():
    blocks = [libc.malloc(30 << 20) for _ in range(6)]
    for block in blocks:
        ctypes.memset(block, 1, 30 << 20)
    for block in blocks:
        libc.free(block)

def thread():
    touch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    touch()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

own = threading.Thread(target=thread)  # in an arena of its own, which needs several heaps
own.start()
own.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_pages_of_other_arenas_are_kept():
    run = subprocess.run([sys.executable, "-c", _HEAPS], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 20  # of 90 huge ones, or 46,080


_HOLES = """
import ctypes, random, sys
from experiments.process.freed_memory import choose_arenas, fill_holes, keep_freed_memory
if sys.argv[1] != "not":
    keep_freed_memory()
    choose_arenas(sys.argv[1])
libc = ctypes.PyDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
draw = random.Random(0)

def resident():
    status = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
    return int(status["VmRSS"].split()[0]) << 10

sizes = [draw.randrange(1 << 11, 1 << 17) for _ in range(2000)]
blocks = []
for size in sizes:  # one that goes, one that stays, in turn
    goes, stays = libc.malloc(size), libc.malloc(2000)
    ctypes.memset(goes, 1, size)
    ctypes.memset(stays, 7, 2000)
    blocks.append((goes, stays))
for goes, _ in blocks:
    libc.free(goes)
before = resident()
given_back = fill_holes()
print(given_back, before - resident(), fill_holes(), sum(sizes))
assert all(ctypes.string_at(stays, 2000) == bytes([7]) * 2000 for _, stays in blocks)
"""


def _holes(how: str) -> tuple[int, ...]:
    run = subprocess.run([sys.executable, "-c", _HOLES, how], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return tuple(map(int, run.stdout.split()))


def test_another_c_library_is_left_alone(monkeypatch):
    for name, value in variables("vit").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(memory, "_has_glibc", lambda: False)
    monkeypatch.setattr(memory.ctypes, "PyDLL", None)
    assert not keep_freed_memory("vit")
    assert fill_holes() == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_holes_are_filled_once_and_their_pages_given_back():
    given_back, fell, again, free = _holes("vit")
    assert 0.8 * free < given_back <= free
    assert fell > 0.7 * free
    assert again < 0.05 * free


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
@pytest.mark.parametrize("how", ["not", "mobilenet"])
def test_holes_are_left_where_memory_is_not_kept_in_one_arena(how):
    given_back, _, again, _ = _holes(how)
    assert given_back == again == 0


def test_a_compilation_fills_holes(monkeypatch):
    filled = []
    monkeypatch.setattr(compilation, "_OFTEN", 0.0)
    monkeypatch.setattr(compilation, "fill_holes", lambda: filled.append(True))
    compilation.tidy_after_compilation()
    compilation.tidy_after_compilation()
    jax.jit(lambda x: x * 3 + 1.25)(1.0)
    assert len(filled) == 1


_ELSEWHERE = """
import ctypes, threading
from experiments.process.freed_memory import choose_arenas, fill_holes, keep_freed_memory
keep_freed_memory()
libc = ctypes.PyDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def scatter():
    blocks = [libc.malloc(50_000) for _ in range(600)]
    for block in blocks[::2]:
        libc.free(block)
    libc.malloc(100_000)  # glibc sorts what was freed when it looks for room

thread = threading.Thread(target=scatter)  # in an arena of its own, as there is no limit yet
thread.start()
thread.join()
choose_arenas("vit")
print(fill_holes())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_holes_of_other_arenas_are_not_counted():
    run = subprocess.run([sys.executable, "-c", _ELSEWHERE], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 2_000_000  # of 15 million
