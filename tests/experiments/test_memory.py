"""Freed memory stays with the process: what is written again costs no new pages."""

import subprocess
import sys

import pytest

from experiments.memory import VARIABLES

_TOUCH = """
import ctypes, os, resource, sys, threading
if sys.argv[1] == "call":
    from experiments.memory import keep_freed_memory
    assert keep_freed_memory()
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
    assert _faults("not", **VARIABLES) < given_back / 5
