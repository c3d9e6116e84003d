"""RunDirectory: the outcome of one experiment on disk; only its own configuration resumes it, one writer at a time."""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from experiments.configuration.device_section import KEPT
from experiments.configuration.experiment_config import ExperimentConfig
from experiments.configuration.plugins import places_of
from experiments.storage.run_files import CONFIG, RUN, SUMMARY, check_config, read_run
from experiments.storage.run_identity import is_free
from experiments.user_input.problems import flatten, show
from experiments.user_input.yaml_files import parse_yaml
from search_spaces.errors import UserError
from search_spaces.sealed_json import sealed
from supernet.storage.manifest import disk_errors_for, write_text_atomically

LOCK = ".lock"
_UNFINISHED = (f".{CONFIG}.", f".{RUN}.", f".{KEPT}.")
_PACKAGES = ("supernest", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_SHOWN = 8


class RunDirectory:
    """A run directory, locked by this process until `close`; a context manager.

    Attributes:
        path: The directory.
        resumed: Whether the run was there before.
        changes: Package or platform to (version when the run began, version now), where they differ: such a run
            goes on, but is not bit-identical to an uninterrupted one.
    """

    def __init__(self, path: Path, lock: int | None, resumed: bool, changes: Mapping[str, tuple[str, str]]) -> None:
        self.path = path
        self.resumed = resumed
        self.changes = changes
        self._lock: int | None = lock

    @classmethod
    def create_or_resume(cls, path: Path | str, config: ExperimentConfig) -> "RunDirectory":
        """Makes a new run directory, or opens that of the same experiment.

        Args:
            path: A run directory, an empty directory, or a path where there is nothing yet.
            config: The experiment.

        Raises:
            UserError: The directory holds something else or another experiment's run, is in use by another process,
                or cannot be written. It is then as it was before.
        """
        path = Path(path)
        with disk_errors_for(path):
            _refuse_strangers(path)
            made = [parent for parent in (path, *path.parents) if not parent.exists()]
            lock = _locked(path, made)
            try:
                plugins = places_of(config.plugins)
                versions = _versions()
                if (path / CONFIG).exists():
                    _same_config(path, config)
                    before = read_run(path)["versions"]
                    changes = {k: (before.get(k, "none"), v) for k, v in versions.items() if before.get(k) != v}
                    return cls(path, lock, True, changes)
                text = config.dump()
                run = {
                    "name": config.name,
                    "seed": config.seed,
                    "versions": versions,
                    **({"plugins": plugins} if plugins else {}),
                    "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
                }
                if config.device is not None:
                    write_text_atomically(path / KEPT, Path(config.device.path).read_text("utf-8"))
                write_text_atomically(path / RUN, json.dumps(sealed(run), indent=1) + "\n")
                write_text_atomically(path / CONFIG, text)  # last: with it the directory is a run
                return cls(path, lock, False, {})
            except BaseException:
                os.close(lock)
                if not (path / CONFIG).exists():
                    _unmake(path, made)
                raise

    @classmethod
    def seen(cls, path: Path) -> "RunDirectory":
        """A directory that another process has locked for this one."""
        return cls(path, None, True, {})

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG

    @property
    def device(self) -> Path:
        """The device file of an experiment that names one."""
        return self.path / KEPT

    @property
    def checkpoints(self) -> Path:
        """Directory of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Directory of the TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def archive(self) -> Path:
        """Everything the search evaluated, a line each."""
        return self.path / "search" / "archive.jsonl"

    @property
    def pareto(self) -> Path:
        """The search's front and the best subnet for each budget."""
        return self.path / "search" / "pareto.json"

    @property
    def rank(self) -> Path:
        """Directory of the ranking's figures, its plot and its panel."""
        return self.path / "rank"

    @property
    def subnets(self) -> Path:
        """Directory of the exported subnets."""
        return self.path / "subnets"

    @property
    def summary(self) -> Path:
        """The figures of all stages that were run."""
        return self.path / SUMMARY

    def close(self) -> None:
        """Lets other processes use the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_run_directory(path: Path | str, config: ExperimentConfig) -> bool:
    """Says whether `path` holds a run of this experiment, and changes nothing.

    Raises:
        UserError: As `RunDirectory.create_or_resume`, as far as can be told without writing.
    """
    path = Path(path)
    with disk_errors_for(path):
        _refuse_strangers(path)
        if not (path / CONFIG).exists():
            return False
        _same_config(path, config)
        return True


def _refuse_strangers(path: Path) -> None:
    if not path.exists():
        if path.is_symlink():
            raise UserError(f"{path}: is a link to nothing. Choose another directory with --out.")
        return
    if not path.is_dir():
        raise UserError(f"{path}: is a file. Choose a directory for the run with --out.")
    # A run that was killed while it was being made has these at most.
    begun = {entry.name for entry in path.iterdir() if not entry.name.startswith(_UNFINISHED)}
    if not (path / CONFIG).exists() and begun - {LOCK, RUN, KEPT}:
        raise UserError(f"{path}: is not empty, and is no run. Choose a new directory with --out.")
    if (path / CONFIG).exists() and not (path / RUN).exists():
        raise UserError(f"{path}: has a {CONFIG} but no {RUN}, so it is no run. Choose a new directory with --out.")


def _locked(path: Path, made: Sequence[Path]) -> int:
    """Makes the directory and takes its lock; on an error of the disk, removes what it made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        _unmake(path, made)
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise UserError(
            f"{path}: process {holder or '(unknown)'} is writing to this run. Wait for it, or choose another --out."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _unmake(path: Path, made: Sequence[Path]) -> None:
    """Removes the files of a run that could not be begun, and the directories `made` for it, the deepest first."""
    with contextlib.suppress(OSError):
        for name in (RUN, KEPT, LOCK):
            (path / name).unlink(missing_ok=True)
        for directory in made:
            directory.rmdir()


def _same_config(path: Path, config: ExperimentConfig) -> None:
    check_config(path)
    old = flatten(parse_yaml((path / CONFIG).read_text("utf-8"), str(path / CONFIG)))
    new = flatten(config.as_dict())
    keys = [key for key in dict.fromkeys([*old, *new]) if not is_free(key)]
    changed = [key for key in keys if key not in old or key not in new or old[key] != new[key]]
    if not changed:
        return
    parts = [f"{key}: {_shown(old, key)} → {_shown(new, key)}" for key in changed[:_SHOWN]]
    more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    raise UserError(
        f"{path}: holds a run of another configuration ({', '.join(parts)}{more}). Restore the old "
        f"{'setting' if len(changed) == 1 else 'settings'}, or choose another directory with --out."
    )


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return show(flat[key]) if key in flat else "not set"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        versions[package] = importlib.metadata.version(package)
    return versions
