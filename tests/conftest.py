"""What every test runs under: the CPU, checked array types, a compilation cache, and where the real data lies."""

import csv
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests import array_types

REPOSITORY = Path(__file__).resolve().parent.parent
TYPED_PACKAGES = ("search_spaces", "supernet", "samplers", "search")

_MAPPINGS = 20_000
_RESIDENT, _MOST = 2**30, 3 * 2**30

# Before JAX or any package of ours is imported; processes that tests start inherit these.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Programs are compiled in half the time, and run a few times only. `XLA_FLAGS= make test-all` compiles as users do.
_QUICKLY = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
os.environ.setdefault("XLA_FLAGS", _QUICKLY)

# No deadline, as the machine may be shared; the same examples every time, so that a failure can be repeated.
settings.register_profile("supernest", deadline=None, derandomize=True)
settings.load_profile("supernest")

array_types.install(TYPED_PACKAGES)

# JAX's traces are many objects that live long; looking through them for garbage ten times less often takes a tenth off.
gc.set_threshold(200_000, 20, 100)


@cache
def starts_ray(path: Path) -> bool:
    """Whether a file's tests start Ray."""
    return "pytest.mark.ray" in path.read_text(encoding="utf-8")


_ran: list[Path] = []
_GIVES_WAY = 3  # less time than the other processes in contention, and enough for tests that are timed


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Gives way to the process that has the tests that start Ray, whichever it is: it takes longest."""
    if "PYTEST_XDIST_WORKER" in os.environ and not _ran and not starts_ray(item.path):
        os.nice(_GIVES_WAY)
    _ran[:] = [item.path]


@cache
def listed_as_slow() -> frozenset[str]:
    """Tests that were measured to take long: `python -m experiments.benchmarks.suite --list tests/slow_tests.csv`."""
    with (REPOSITORY / "tests" / "slow_tests.csv").open(encoding="utf-8", newline="") as file:
        return frozenset(row["test"] for row in csv.DictReader(file))


@cache
def left_to_the_complete_run() -> frozenset[str]:
    """Tests, or their cases, that run for `SUPERNEST_COMPLETE=1` or by name alone; the list says why of each."""
    with (REPOSITORY / "tests" / "complete_tests.csv").open(encoding="utf-8", newline="") as file:
        return frozenset(row["test"] for row in csv.DictReader(file))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begins with the tests that start Ray: they wait more than they work. Marks those that are listed as slow."""
    by_name = any("::" in argument for argument in config.args)
    if not (by_name or "SUPERNEST_COMPLETE" in os.environ):
        left = [i for i in items if {i.nodeid, i.nodeid.partition("[")[0]} & left_to_the_complete_run()]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    items.sort(key=lambda item: not starts_ray(item.path))
    for item in items:
        if item.nodeid in listed_as_slow():
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Refuses files of tests that import Ray: it would keep the environment of that moment, without a test's token."""
    if "ray" in sys.modules:
        raise pytest.UsageError("a file of tests, or what it imports, imports ray: import it within the test")


class FilesTogether(LoadFileScheduling):
    """A file's tests in one process, so that what they share is made once; all of Ray's in one, as two disturb each
    other."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "ray" if starts_ray(REPOSITORY / file) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesTogether | None:
    """`--dist loadfile` means `FilesTogether`."""
    return FilesTogether(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Directory of the real data sets; skips the test where there is none."""
    path = Path(os.environ.get("SUPERNEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"{path} is no directory: set SUPERNEST_DATA to where fashion_mnist, cifar10, … lie")
    return path


@pytest.fixture(autouse=True, scope="module")
def plugins_forgotten() -> Iterator[None]:
    """Takes out of the registries what plug-ins of a file's tests have registered: the next file is of one process."""
    yield
    from search_spaces.registry import Registry  # not before the import hook

    ours = (*TYPED_PACKAGES, "experiments", "tests")
    loaded = [module for name, module in sys.modules.items() if name.partition(".")[0] in ours]
    for registry in [found for module in loaded for found in vars(module).values() if type(found) is Registry]:
        for name, entry in list(registry._entries.items()):
            if entry.__module__.partition(".")[0] not in ours:
                del registry._entries[name]
                sys.modules.pop(entry.__module__, None)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _give_back() -> None:
    """Gives the memory back that the compiler has freed and glibc's heap keeps: a gigabyte in half a minute of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Keeps what a process of tests holds below what three of them may on a small machine.

    Compiled programs are let go of before they take all memory mappings that Linux gives a process (65,530), and after
    a file that left much memory taken; those that stay serve the next file.
    """
    process = Path("/proc/self")
    if not process.exists():
        return
    another = nextitem is None or nextitem.path != item.path
    if another and _resident() > _RESIDENT:
        _give_back()
    if (process / "maps").read_bytes().count(b"\n") > _MAPPINGS or (another and _resident() > _MOST):
        import jax  # not before the settings above

        jax.clear_caches()
        gc.collect()
        _give_back()
