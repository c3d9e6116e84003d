"""A disk that fills while checkpoints and exports are written: one line, nothing else printed, nothing lost."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from experiments.storage.checkpoints import Checkpoints
from search_spaces import UserError
from supernet.storage.manifest import atomic_directory, disk_errors_for
from supernet.storage.told_once import told_once


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB; skips the test where nothing may be mounted."""
    path = tmp_path / "disk"
    path.mkdir()
    if not sys.platform.startswith("linux"):
        pytest.skip("no tmpfs here")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"nothing may be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@contextmanager
def printed() -> Iterator[list[str]]:
    """Collects what reaches the process's standard error, from libraries in C++ too."""
    lines: list[str] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
            gc.collect()  # what failed and is collected later may tell of it then
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        lines += file.read().decode(errors="replace").splitlines()


def tree(kib: int) -> dict[str, np.ndarray]:
    """A tree of sixteen leaves that do not compress."""
    rng = np.random.default_rng(kib)
    return {f"w{i}": rng.integers(0, 256, kib * 64, dtype=np.uint8) for i in range(16)}


def save(checkpoints: Checkpoints, step: int, content: dict[str, np.ndarray]) -> None:
    """Saves, and waits until that is done."""
    checkpoints.save(step, content)
    checkpoints.wait()


@pytest.mark.parametrize("free_kib", [8, 60, 200, 400])
def test_a_checkpoint_that_finds_no_room_is_one_line(
    small_disk: Path, free_kib: int, capfd: pytest.CaptureFixture[str]
) -> None:
    fill = small_disk / "fill"
    with Checkpoints(small_disk / "checkpoints", keep_best=0) as checkpoints:
        save(checkpoints, 1, tree(1))
        room = os.statvfs(small_disk)
        fill.write_bytes(b"\0" * max(room.f_bavail * room.f_frsize - free_kib * 1024, 0))
        with printed() as lines, pytest.raises(UserError, match=r"step_00000002: no space left on the disk"):
            save(checkpoints, 2, tree(480))
        assert lines == []
        assert checkpoints.steps() == [1]
        fill.unlink()
        save(checkpoints, 2, tree(100))
        np.testing.assert_equal(checkpoints.restore(tree(100))[1], tree(100))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ValueError("RESOURCE_EXHAUSTED: Failed writing: No space left on device"),
            "no space left",
        ),
        (RuntimeError("INTERNAL: File too large"), "larger than the system lets a file grow"),
        (FileNotFoundError(2, "No such file or directory"), "Was a directory removed"),
        (OSError(5, "Input/output error"), "the disk reports an input/output error"),
    ],
)
def test_every_library_s_error_of_the_disk_is_a_user_s(error: Exception, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said), disk_errors_for(tmp_path):
        raise error
    with pytest.raises(UserError, match=said), atomic_directory(tmp_path / "export"), told_once():
        raise error
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), disk_errors_for(tmp_path), told_once():
        _ = 1 / 0


def test_a_directory_that_is_removed_meanwhile_is_one_line(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def write() -> None:
        with atomic_directory(run / "subnets" / "half") as made:
            shutil.rmtree(run)
            (made / "weights").write_bytes(b"1")

    with pytest.raises(UserError, match="Was a directory removed"):
        write()
