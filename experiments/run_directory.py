"""RunDirectory: the outcome of one experiment on disk, one writer at a time; changed settings keep what they can."""

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

from experiments.configuration.changes import Change, changes
from experiments.configuration.device_section import DEVICE_COPY
from experiments.configuration.experiment_config import ExperimentConfig, config_of
from experiments.configuration.plugins import places_of
from experiments.storage.earlier import Effect, exports_of, set_aside, without_stale
from experiments.storage.run_files import (
    CONFIG,
    RUN,
    SUMMARY,
    check_config,
    identity_of,
    read_run,
    read_summary,
    write_summary,
)
from experiments.user_input.problems import flatten
from experiments.user_input.yaml_files import parse_yaml
from search_spaces.errors import UserError
from search_spaces.sealed_json import SEAL, sealed
from supernet.storage.manifest import disk_errors_for, write_text_atomically

LOCK = ".lock"
_UNFINISHED = (f".{CONFIG}.", f".{RUN}.", f".{DEVICE_COPY}.")
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
    def create_or_resume(
        cls, path: Path | str, config: ExperimentConfig, adopt: bool = False, identity: str | None = None
    ) -> "RunDirectory":
        """Makes a new run directory, or opens that of the same experiment.

        Args:
            path: A run directory, an empty directory, or a path where there is nothing yet.
            config: The experiment. It is bound to the identity of the run.
            adopt: Whether settings may differ that keep the training; the run has them from then on, and what they
                invalidate is set aside.
            identity: Identity that a new run takes over from the one whose training it uses; its own when None.

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
                    found = differences(path, config)
                    if found and not adopt:
                        raise another(path, found)
                    if found:
                        _adopt(path, config, found)
                    config.bind(identity_of(path))
                    before = read_run(path)["versions"]
                    changes = {k: (before.get(k, "none"), v) for k, v in versions.items() if before.get(k) != v}
                    return cls(path, lock, True, changes)
                config.bind(identity)
                text = config.dump()
                run = {
                    "name": config.name,
                    "seed": config.seed,
                    "versions": versions,
                    **({"plugins": plugins} if plugins else {}),
                    "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
                    **({} if identity is None else {"identity": identity}),
                }
                if config.device is not None:
                    write_text_atomically(path / DEVICE_COPY, Path(config.device.path).read_text("utf-8"))
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
        """Returns a run directory that another process has locked for this one."""
        return cls(path, None, True, {})

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG

    @property
    def device(self) -> Path:
        """The device file of an experiment that names one."""
        return self.path / DEVICE_COPY

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


def check_run_directory(path: Path | str, config: ExperimentConfig) -> list[Change] | None:
    """Looks at a run directory, and changes nothing.

    Returns:
        What differs from the run's configuration in settings that keep its training; None where there is no run.

    Raises:
        UserError: As `RunDirectory.create_or_resume`, as far as can be told without writing.
    """
    path = Path(path)
    with disk_errors_for(path):
        _refuse_strangers(path)
        return differences(path, config) if (path / CONFIG).exists() else None


def _refuse_strangers(path: Path) -> None:
    if not path.exists():
        if path.is_symlink():
            raise UserError(f"{path}: is a link to nothing. Choose another directory with --out.")
        return
    if not path.is_dir():
        raise UserError(f"{path}: is a file. Choose a directory for the run with --out.")
    # A run that was killed while it was being made has these at most.
    begun = {entry.name for entry in path.iterdir() if not entry.name.startswith(_UNFINISHED)}
    if not (path / CONFIG).exists() and begun - {LOCK, RUN, DEVICE_COPY}:
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
        for name in (RUN, DEVICE_COPY, LOCK):
            (path / name).unlink(missing_ok=True)
        for directory in made:
            directory.rmdir()


def differences(path: Path, config: ExperimentConfig) -> list[Change]:
    """Compares the configuration of a run with another one.

    Raises:
        UserError: The configurations differ in what decides the training, or the run's file was changed by hand.
    """
    check_config(path)
    before = parse_yaml((path / CONFIG).read_text("utf-8"), str(path / CONFIG))
    found = changes(_completed(before, path, config), config, gradient=(path / "gradient").is_dir())
    if any(change.effect is Effect.REFUSED for change in found):
        raise another(path, found)
    return found


def _completed(before: Mapping[str, Any], path: Path, config: ExperimentConfig) -> Mapping[str, Any]:
    """Returns a run's settings with the defaults of those that its build did not know, which are what it computed."""
    if before.get("plugins", []) != config.as_dict()["plugins"]:
        return before  # whose code is not run for a comparison
    try:
        defaults = flatten(config_of(before, path).as_dict())
    except UserError:  # settings that this build does not know any more: they are named as they are
        return before
    return {**defaults, **flatten(before)}


def another(path: Path, found: Sequence[Change]) -> UserError:
    """Returns the error that names settings by which a run differs from the experiment."""
    parts = ", ".join(map(str, found[:_SHOWN])) + (f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    keys = {change.key.partition(".")[0] for change in found}
    at_once = ""
    if keys & {"budgets", "device"}:
        at_once = (
            f", ask the run itself (supernest export {path} --budget LIMITS{' --device FILE' * ('device' in keys)})"
        )
    return UserError(
        f"{path}: holds a run of another configuration ({parts}). Restore the old "
        f"{'setting' if len(found) == 1 else 'settings'}{at_once}, or choose another directory with --out."
    )


def _adopt(path: Path, config: ExperimentConfig, found: Sequence[Change]) -> None:
    """Gives a run other settings. A kill in between leaves those before; what was set aside is done again."""
    run = {name: value for name, value in read_run(path).items() if name != SEAL}
    effects = {change.effect for change in found}
    if (path / SUMMARY).exists():
        write_summary(path, without_stale(read_summary(path), max(effects)))
    budgets = [change.key.removeprefix("budgets.") for change in found if change.key.startswith("budgets.")]
    set_aside(path, effects, [part for name in budgets for part in exports_of(name)])
    text = config.dump()
    run |= {
        "identity": identity_of(path),
        "began_as": run.get("began_as", run["config_sha256"]),
        "config_before": hashlib.sha256((path / CONFIG).read_bytes()).hexdigest(),
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    write_text_atomically(path / RUN, json.dumps(sealed(run), indent=1) + "\n")
    write_text_atomically(path / CONFIG, text)
    del run["config_before"]
    write_text_atomically(path / RUN, json.dumps(sealed(run), indent=1) + "\n")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        versions[package] = importlib.metadata.version(package)
    return versions
