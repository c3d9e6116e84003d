"""Manifests name the damaged file; directories and texts are replaced whole or not at all, also under SIGKILL."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search_spaces.errors import UserError
from supernet.storage import manifest as module
from supernet.storage.manifest import (
    atomic_directory,
    discard_directory,
    storage_error,
    sweep_temporaries,
    verify_manifest,
    write_manifest,
    write_text_atomically,
)


@pytest.fixture
def export(tmp_path):
    directory = tmp_path / "subnet"
    (directory / "weights").mkdir(parents=True)
    (directory / "weights" / "a.bin").write_bytes(bytes(range(256)) * 8)
    (directory / "config.json").write_text("{}")
    write_manifest(directory)
    return directory


def test_manifest_lists_sizes_and_sha256_sorted_and_the_same_each_time(export):
    first = (export / "manifest.json").read_bytes()
    files = json.loads(first)["files"]
    assert list(files) == ["config.json", "weights/a.bin"]
    assert files["weights/a.bin"]["bytes"] == 2048
    # SHA-256 of the two characters {}: a published value, not one from this code.
    assert files["config.json"]["sha256"] == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    write_manifest(export)
    assert (export / "manifest.json").read_bytes() == first
    verify_manifest(export)


def _flip_a_bit(export):
    path = export / "weights" / "a.bin"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "altered": (_flip_a_bit, "weights/a.bin"),
    "truncated": (lambda e: os.truncate(e / "weights" / "a.bin", 2047), "weights/a.bin"),
    "longer": (lambda e: os.truncate(e / "weights" / "a.bin", 2049), "weights/a.bin"),
    "missing": (lambda e: (e / "config.json").unlink(), "config.json"),
    "does not list": (lambda e: (e / "extra.txt").write_text("x"), "extra.txt"),
    "not a regular file": (
        lambda e: ((e / "config.json").rename(e.parent / "moved"), (e / "config.json").symlink_to(e.parent / "moved")),
        "config.json",
    ),
    "missing. Expected the list": (lambda e: (e / "manifest.json").unlink(), "manifest.json"),
    "damaged": (lambda e: (e / "manifest.json").write_text('{"files": {"a": 3}}'), "manifest.json"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_named_in_one_line(export, what):
    damage, name = DAMAGES[what]
    damage(export)
    with pytest.raises(UserError) as error:
        verify_manifest(export)
    text = str(error.value)
    assert text.startswith(f"{export / name}: ")
    assert what in text
    assert "\n" not in text
    assert text.endswith("Export again, or use an earlier checkpoint.")


def test_a_linked_file_has_no_place_in_a_manifest(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="link: neither a file"):
        write_manifest(tmp_path / "d")


@pytest.mark.parametrize("can_swap", [True, False])
def test_atomic_directory_replaces_and_leaves_nothing_else(tmp_path, monkeypatch, can_swap):
    if not can_swap:
        monkeypatch.setattr(module, "_swap", lambda a, b: False)
    final = tmp_path / "subnets" / "small"
    for text in ("old", "new"):
        with atomic_directory(final) as stage:
            assert stage.parent == final.parent
            assert stage.name.startswith(".")
            (stage / "weights").write_text(text)
            if text == "new":
                assert (final / "weights").read_text() == "old"
        assert (final / "weights").read_text() == text
        assert os.listdir(final.parent) == ["small"]


def test_atomic_directory_keeps_the_older_one_on_an_error(tmp_path):
    with atomic_directory(tmp_path / "x") as stage:
        (stage / "a").write_text("old")
    with pytest.raises(UserError, match="missing"), atomic_directory(tmp_path / "x") as stage:
        (stage / "a").rename(stage / "b")
    assert (tmp_path / "x" / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_crash_between_the_renames_of_a_file_system_that_cannot_swap_is_undone(tmp_path):
    with atomic_directory(tmp_path / "x") as stage:
        (stage / "a").write_text("old")
    (tmp_path / "x").rename(tmp_path / ".x.old")
    sweep_temporaries(tmp_path)
    assert (tmp_path / "x" / "a").read_text() == "old"


def test_sweeping_spares_a_writer_at_work(tmp_path):
    with atomic_directory(tmp_path / "x") as stage:
        (stage / "a").write_text("1")
        sweep_temporaries(tmp_path)
        assert (stage / "a").exists()
    assert (tmp_path / "x" / "a").exists()


def test_discarded_directory_is_gone(tmp_path):
    with atomic_directory(tmp_path / "x") as stage:
        (stage / "a").write_text("1")
    discard_directory(tmp_path / "x")
    assert os.listdir(tmp_path) == []


_WRITER = """
import sys
from itertools import count
from pathlib import Path
from supernet.storage.manifest import atomic_directory, write_manifest, write_text_atomically
final = Path(sys.argv[1])
for n in count(int(sys.argv[2])):
    with atomic_directory(final) as stage:
        for part in range(4):
            (stage / f"{part}").write_text(str(n) * 50_000)
        write_manifest(stage)
    write_text_atomically(final.with_suffix(".txt"), str(n) * 50_000)
"""


def test_sigkill_leaves_a_whole_directory_and_a_whole_text(tmp_path):
    final, text = tmp_path / "export", tmp_path / "export.txt"
    rng = random.Random(0)
    for start in range(100_000, 200_000, 10_000):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(final), str(start)])
        deadline = time.monotonic() + 60
        while not text.exists() or int(text.read_text()[:6]) < start:
            assert time.monotonic() < deadline, "the writer never wrote"
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        verify_manifest(final)
        assert len({(final / f"{part}").read_text() for part in range(4)}) == 1
        assert len(text.read_text()) == 300_000
    with atomic_directory(final) as stage:
        (stage / "a").write_text("1")
    write_text_atomically(text, "1")
    assert sorted(os.listdir(tmp_path)) == ["export", "export.txt"]


@pytest.mark.parametrize("write", [lambda p: write_text_atomically(p, "x"), lambda p: atomic_directory(p).__enter__()])
def test_a_file_in_the_way_is_one_line(tmp_path, write):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: .*[Cc]hoose another directory\.$"):
        write(tmp_path / "file" / "x")


def test_no_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(UserError, match=r"no permission\. .*choose another directory\.$"):
            write_text_atomically(tmp_path / "x", "x")
        with pytest.raises(UserError, match="no permission"), atomic_directory(tmp_path / "y"):
            pass
    finally:
        os.seteuid(me)
        tmp_path.chmod(0o700)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc, a directory that takes no files")
@pytest.mark.timeout(60)
def test_a_directory_that_takes_no_files_is_one_line_and_not_tried_for_ever():
    with pytest.raises(UserError, match=r"^/proc/\d+/x: "):
        write_text_atomically(Path("/proc/self/x"), "x")


def test_a_full_disk_is_recognised_also_inside_the_text_of_another_library():
    for error in (OSError(errno.ENOSPC, "x"), RuntimeError(f"RESOURCE_EXHAUSTED: [{os.strerror(errno.ENOSPC)}]")):
        assert "no space left" in str(storage_error(error, Path("runs/a")))
    assert storage_error(RuntimeError("a bug"), Path("runs/a")) is None


def test_the_manifest_needs_no_jax():
    code = (
        "import sys, importlib.util as u; s = u.spec_from_file_location('m', sys.argv[1]); m = u.module_from_spec(s);"
    )
    code += "s.loader.exec_module(m); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(module.__file__)], check=False).returncode == 0
