"""Directories that are written whole or not at all, and the hashes that show later whether they still are."""

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from search_spaces.errors import UserError
from search_spaces.sealed_json import JsonObject, parse_json

MANIFEST = "manifest.json"
_FORMAT = 1
_REMEDY = "Export again, or use an earlier checkpoint."
# A temporary is `.NAME.tmp-TOKEN`; while its writer lives, the writer holds a lock on it. `.NAME.old` is the directory
# that a replacement moved aside where the file system cannot swap two names in one operation.
_TEMPORARY = ".tmp-"
_OLD = ".old"

_STORAGE_ERRORS = {
    errno.ENOSPC: "no space left on the disk. Free some, or choose another directory",
    errno.EDQUOT: "the disk quota is used up. Free some space, or choose another directory",
    errno.EFBIG: "larger than the system lets a file grow. Raise `ulimit -f`",
    errno.EACCES: "no permission. Give yourself access to it, or choose another directory",
    errno.EPERM: "no permission. Give yourself access to it, or choose another directory",
    errno.EROFS: "the file system is read-only. Choose another directory",
    errno.ENOTDIR: "a part of the path is a file. Choose another directory",
    errno.EEXIST: "a file of this name is in the way. Move it, or choose another directory",
    errno.ENOENT: "missing, though it was there or was about to be made. Was a directory removed? Start again",
    errno.EIO: "the disk reports an input/output error. Look after the disk, or choose another directory",
    errno.EISDIR: "a directory of this name is in the way. Move it, or choose another name",
}


def storage_error(error: BaseException, path: Path) -> UserError | None:
    """Returns the one-line error for a failure of the user's disk, or `None` where `error` is something else.

    Libraries that write through C++ raise their own types with the system's text inside, so the text counts too.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        text = str(error)
        number = next((known for known in _STORAGE_ERRORS if os.strerror(known) in text), None)
    if number not in _STORAGE_ERRORS:
        return None
    named = getattr(error, "filename", None)
    if isinstance(named, str | os.PathLike) and _TEMPORARY not in os.fspath(named):
        path = Path(named)
    return UserError(f"{path}: {_STORAGE_ERRORS[number]}.")


@contextmanager
def disk_errors_for(path: Path) -> Iterator[None]:
    """Turns an error that the user's disk causes into a `UserError` about `path` (or the file that it names)."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # libraries have types of their own for it
        explained = storage_error(error, path)
        if explained is None:
            raise
        raise explained from error


def write_manifest(directory: Path) -> Path:
    """Writes `manifest.json`: SHA-256 and size in bytes of every file below `directory`, sorted by name.

    Returns:
      The path of the manifest.

    Raises:
      UserError: where the disk refuses, or something below is neither a file nor a directory.
    """
    files = {}
    with disk_errors_for(directory):
        for name, path in _files_below(directory).items():
            if not path.is_file() or path.is_symlink():
                raise UserError(f"{path}: neither a file nor a directory, so it has no hash. Remove it.")
            files[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    manifest = directory / MANIFEST
    write_text_atomically(manifest, json.dumps({"format": _FORMAT, "files": files}, indent=1, sort_keys=True) + "\n")
    return manifest


def verify_manifest(directory: Path, remedy: str = _REMEDY, only: Collection[str] | None = None) -> None:
    """Checks every file below `directory` against `manifest.json`.

    Args:
      directory: what `write_manifest` was given.
      remedy: the last sentence of the error: what the user should do.
      only: names of the files to check, those below a directory by `DIRECTORY/`; all when None.

    Raises:
      UserError: names the first file that is missing, truncated, altered or not listed.
    """
    with disk_errors_for(directory):
        listed = _read_manifest(directory, remedy)
        present = _files_below(directory)
        for name in sorted(listed.keys() | present.keys()):
            if only is not None and name not in only and f"{name.split('/')[0]}/" not in only:
                continue
            _check_file(directory, name, listed.get(name), present.get(name), remedy)


def _check_file(directory: Path, name: str, entry: JsonObject | None, path: Path | None, remedy: str) -> None:
    where = directory / name
    if entry is None:
        raise UserError(f"{where}: {MANIFEST} does not list this file. {remedy}")
    if path is None:
        raise UserError(f"{where}: missing, though {MANIFEST} lists it. {remedy}")
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{where}: not a regular file, though {MANIFEST} lists one. {remedy}")
    size = path.stat().st_size
    if size != entry["bytes"]:
        what = "truncated" if size < entry["bytes"] else "longer than it was"
        raise UserError(f"{where}: {what}: {size} bytes, {MANIFEST} says {entry['bytes']}. {remedy}")
    if _sha256(path) != entry["sha256"]:
        raise UserError(f"{where}: altered: its SHA-256 is not the one in {MANIFEST}. {remedy}")


def _read_manifest(directory: Path, remedy: str) -> Mapping[str, JsonObject]:
    path = directory / MANIFEST
    try:
        files = parse_json(path.read_text(encoding="utf-8"))["files"]
        entries = {name: {"bytes": int(e["bytes"]), "sha256": str(e["sha256"])} for name, e in files.items()}
    except FileNotFoundError:
        state = "missing" if directory.is_dir() else "no such directory, so it is missing"
        raise UserError(f"{path}: {state}. Expected the list of files and hashes. {remedy}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: damaged: not a list of files with bytes and sha256. {remedy}") from None
    return entries


def _files_below(directory: Path) -> dict[str, Path]:
    """Everything below that is not a directory, by its name with forward slashes; links are not followed."""
    found = {}
    for parent, directories, files in os.walk(directory, onerror=_raise):
        links = [name for name in directories if os.path.islink(os.path.join(parent, name))]
        for name in files + links:
            path = Path(parent, name)
            found[path.relative_to(directory).as_posix()] = path
    found.pop(MANIFEST, None)
    return dict(sorted(found.items()))


def _raise(error: OSError) -> None:
    raise error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text_atomically(path: Path, text: str) -> None:
    """Writes UTF-8 `text` so that `path` holds either what it held or all of `text`, also after a power cut.

    Raises:
      UserError: where the disk refuses.
    """
    path = Path(os.path.realpath(path))
    with disk_errors_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(path.parent, path.name)
        temporary, lock = _locked_temporary(path, directory=False)
        try:
            with os.fdopen(lock, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)


@contextmanager
def atomic_directory(final: Path) -> Iterator[Path]:
    """Yields an empty hidden sibling of `final`; on success it becomes `final`, on an error it disappears.

    An older `final` stays whole until the new one takes its name, in one operation on Linux. Where the file system
    cannot swap names, a crash between two renames leaves the older one as `.NAME.old`, and the next call puts it back.
    The temporary of a killed process is removed by the next call for the same `final`.

    Raises:
      UserError: where the disk refuses.
    """
    final = Path(os.path.realpath(final))
    with disk_errors_for(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and not final.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
        sweep_temporaries(final.parent, final.name)
        temporary, lock = _locked_temporary(final, directory=True)
    try:
        with disk_errors_for(final):
            yield temporary
            _sync_below(temporary)
            _move_onto(temporary, final)
            _sync(final.parent)
    finally:
        # After a swap the temporary name holds the older directory, after an error the unfinished one.
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def discard_directory(directory: Path) -> None:
    """Removes a directory so that a crash halfway never leaves a part of it under its name."""
    aside = _temporary_name(directory)
    with disk_errors_for(directory):
        os.rename(directory, aside)
    shutil.rmtree(aside, ignore_errors=True)


def sweep_temporaries(parent: Path, name: str | None = None) -> None:
    """Removes what killed processes left in `parent` (for `name`, or for all names); puts back what they moved aside.

    Raises:
      UserError: where the disk refuses.
    """
    with disk_errors_for(parent):
        for path in sorted(parent.iterdir()):
            owner, temporary, _ = path.name[1:].rpartition(_TEMPORARY)
            if path.name.startswith(".") and temporary and name in (None, owner):
                _remove_if_abandoned(path)
            owner = path.name[1:].removesuffix(_OLD)
            if path.name == f".{owner}{_OLD}" and name in (None, owner):
                _put_back(path, parent / owner)


def _remove_if_abandoned(path: Path) -> None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(os.fstat(lock).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return
    finally:
        os.close(lock)


def _put_back(old: Path, final: Path) -> None:
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(old, final)


def _temporary_name(final: Path) -> Path:
    return final.parent / f".{final.name}{_TEMPORARY}{secrets.token_hex(4)}"


def _locked_temporary(final: Path, directory: bool) -> tuple[Path, int]:
    """Makes a temporary and locks it; another process may sweep it before the lock holds, so look again."""
    while True:
        temporary = _temporary_name(final)
        if directory:
            temporary.mkdir()
        try:
            lock = os.open(temporary, os.O_RDONLY if directory else os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileNotFoundError:
            if directory:  # swept already
                continue
            raise  # a file is made here, or nowhere
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if temporary.exists():
            return temporary, lock
        os.close(lock)


def _move_onto(temporary: Path, final: Path) -> None:
    if not final.exists():
        os.rename(temporary, final)
    elif not _swap(temporary, final):
        old = final.parent / f".{final.name}{_OLD}"
        os.rename(final, old)
        os.rename(temporary, final)
        shutil.rmtree(old)


def _swap(a: Path, b: Path) -> bool:
    """Exchanges two names in one operation (Linux `renameat2`); False where system or file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    at_cwd, exchange = -100, 2
    if call(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(b))


def _sync_below(directory: Path) -> None:
    for parent, _, files in os.walk(directory, topdown=False):
        for name in files:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
