"""Checkpoints of a training state: written by Orbax behind the training loop, whole or not at all, hashed, pruned.

One step is one directory, `step_00000120`: `state/` (the arrays, an Orbax PyTree checkpoint whose keys are the paths of
the leaves), `checkpoint.json` (the plain Python leaves, shapes and dtypes, the metric, the run) and `manifest.json`
(the SHA-256 of each file). It takes its name in one rename after all of it is on the disk, so a step that has a name is
whole.

Orbax's own `CheckpointManager` commits before anybody could add hashes (its callback after a save is not told the
directory), and the copy that it starts may outlive the buffers that the next step donates. So the arrays are copied to
the host first, and Orbax's checkpointer runs in a thread of ours.
"""

import json
import math
import re
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from experiments.records.plain import JsonObject
from experiments.storage import checkpoint_arrays as checkpoint_tree
from search_spaces.errors import UserError
from search_spaces.sealed_json import parse_json, read_json
from supernet.storage.manifest import (
    MANIFEST,
    atomic_directory,
    discard_directory,
    disk_errors_for,
    storage_error,
    sweep_temporaries,
    verify_manifest,
    write_manifest,
    write_text_atomically,
)

Tree = TypeVar("Tree")
_DESCRIPTION = "checkpoint.json"
_STATE = "state"
_STEP = re.compile(r"step_(\d{8,})")


class Checkpoints:
    """The checkpoints below one directory. Use it in a `with`, or call `close`.

    A tree is nested dicts, tuples and NamedTuples (Optax states too) of JAX and NumPy arrays, PRNG keys, and Python
    bools, ints of any size, floats and strings. All come back bit for bit; only a weakly typed array comes back with
    its type made strong. One process may save; the others may read.

    Args:
      directory: holds the steps; made by the first `save`.
      keep_last: how many of the newest steps survive, at least 1.
      keep_best: how many of the steps with the lowest metric survive besides.
      run: identity of the run that they belong to; others are not restored. Any are when `None`, for who only looks.
    """

    def __init__(self, directory: Path | str, keep_last: int = 2, keep_best: int = 1, run: str | None = None) -> None:
        if keep_last < 1:
            raise UserError(f"checkpoints.keep_last: {keep_last} is less than 1. Keep at least the newest checkpoint.")
        if keep_best < 0:
            raise UserError(f"checkpoints.keep_best: {keep_best} is less than 0. Set how many of the best to keep.")
        self._directory = Path(directory).absolute()
        self._keep_last = keep_last
        self._keep_best = keep_best
        self._run = run
        self._swept = False
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if error is None:
            self.close()
            return
        self._join()
        if self._failure is not None:
            error.add_note(f"While this happened: {self._failure}")

    def save(self, step: int, tree: Any, metric: float | None = None, figures: Mapping[str, Any] | None = None) -> None:
        """Copies `tree` to the host and writes it in the background; first waits for the save before this one.

        Args:
          step: how many steps `tree` has been trained; an existing checkpoint of this step is replaced.
          tree: what `restore` gives back; its arrays may be donated or overwritten as soon as this returns.
          metric: lower is better; decides what `keep_best` keeps. `None` and NaN are never best.
          figures: plain values about the training so far, which `figures` gives back.

        Raises:
          UserError: where the disk refuses, now or during the save before this one.
          TypeError: for a leaf that cannot be stored, named by its path.
        """
        self.wait()
        if not self._swept:
            self._sweep()
        arrays, description = checkpoint_tree.to_host(tree)
        description |= {"step": int(step), "metric": None if metric is None else float(metric), "run": self._run}
        description |= {"figures": dict(figures or {})}
        # Entered here, so that a directory that cannot be written is reported by the call that asked for it.
        whole_or_nothing = ExitStack()
        stage = whole_or_nothing.enter_context(atomic_directory(self._path(step)))
        self._writer = threading.Thread(
            target=self._write, args=(whole_or_nothing, stage, step, arrays, description), name=f"checkpoint-{step}"
        )
        self._writer.start()

    def latest(self) -> int | None:
        """Returns the newest completely written step, or `None`."""
        self._raise_failure()
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """Returns the step with the lowest metric (the newest on ties), or `None` if no step has one."""
        self.wait()
        metrics = {step: metric for step in self.steps() if (metric := self._metric(step)) is not None}
        return min(metrics, key=lambda step: (metrics[step], -step), default=None)

    def last_good(self) -> str:
        """Returns a part of a message that names the last whole checkpoint; waits for a save in the background."""
        self.wait()
        step = self.latest()
        return "no checkpoint was saved yet" if step is None else f"the last good checkpoint is of step {step}"

    def steps(self) -> list[int]:
        """Returns all completely written steps, oldest first. `restore` checks their hashes."""
        with disk_errors_for(self._directory):
            return sorted(step for step, path in self._step_directories() if (path / MANIFEST).is_file())

    def restore(self, like: Tree, step: int | None = None) -> tuple[int, Tree]:
        """Reads a checkpoint after checking the hash of each of its files.

        Args:
          like: a tree of the same structure. Where it holds JAX arrays or `jax.ShapeDtypeStruct`, JAX arrays come back
            (on the sharding that the leaf names); where NumPy arrays, NumPy arrays; where Python values, those.
          step: which one; the newest where it is `None`.

        Returns:
          The step and the tree.

        Raises:
          UserError: where there is no such checkpoint, a file of it is missing, truncated, altered or unlisted, it is
            of another run, or its tree differs from `like`; the first difference is named.
        """
        self.wait()
        steps = self.steps()
        if not steps:
            raise UserError(f"{self._directory}: no checkpoint here. Expected one of an earlier training; train first.")
        step = steps[-1] if step is None else step
        path = self._path(step)
        if step not in steps:
            raise UserError(f"{path}: no checkpoint of step {step}. Choose one of {', '.join(map(str, steps))}.")
        self._verify(step, steps)
        description = _description(path)
        try:
            return step, checkpoint_tree.read(path / _STATE, description, like)
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            # Its manifest fits, and yet it is not what was written here.
            raise UserError(
                f"{path}: is damaged: cannot be read ({type(error).__name__}). {_way_back(path)}"
            ) from error

    def figures(self, step: int) -> JsonObject:
        """Returns the figures that were saved with a checkpoint.

        Raises:
          UserError: where the checkpoint is missing or was altered.
        """
        path = self._path(step)
        verify_manifest(path, _way_back(path), only=(_DESCRIPTION,))
        return dict(_description(path)["figures"])

    def wait(self) -> None:
        """Blocks until the save in the background is on the disk.

        Raises:
          UserError: where the disk refused it.
        """
        self._join()
        self._raise_failure()

    def close(self) -> None:
        """Waits for the save in the background, and raises its error if it had one."""
        self.wait()

    def _path(self, step: int) -> Path:
        return self._directory / f"step_{step:08d}"

    def _step_directories(self) -> list[tuple[int, Path]]:
        if not self._directory.is_dir():
            return []
        matches = ((_STEP.fullmatch(path.name), path) for path in self._directory.iterdir())
        return [(int(match[1]), path) for match, path in matches if match and path.is_dir()]

    def _sweep(self) -> None:
        """Removes what a crashed run left. Only a writer does: a reader must not touch a run that is training."""
        with disk_errors_for(self._directory):
            if self._directory.is_dir():
                sweep_temporaries(self._directory)
            for _, path in self._step_directories():
                if not (path / MANIFEST).exists():
                    discard_directory(path)
        self._swept = True

    def _write(
        self,
        whole_or_nothing: ExitStack,
        stage: Path,
        step: int,
        arrays: dict[str, np.ndarray],
        description: JsonObject,
    ) -> None:
        try:
            with whole_or_nothing:
                checkpoint_tree.write_arrays(stage / _STATE, arrays)
                write_text_atomically(stage / _DESCRIPTION, json.dumps(description, indent=1) + "\n")
                write_manifest(stage)
            self._prune(step)
        except BaseException as error:
            explained = storage_error(error, self._path(step))
            if explained is not None:
                explained.__cause__ = error
            self._failure = explained or error

    def _prune(self, saved: int) -> None:
        steps = self.steps()
        metrics = {step: metric for step in steps if (metric := self._metric(step)) is not None}
        best = sorted(metrics, key=lambda step: (metrics[step], -step))[: self._keep_best]
        for step in set(steps) - {saved, *best, *steps[-self._keep_last :]}:
            discard_directory(self._path(step))

    def _metric(self, step: int) -> float | None:
        # A damaged older checkpoint must not stop training; `restore` is where it is reported.
        found = self._description(step)
        metric = found.get("metric")
        own = self._run is None or found.get("run") == self._run
        return metric if own and isinstance(metric, float) and not math.isnan(metric) else None

    def _description(self, step: int) -> JsonObject:
        """Returns the content of `checkpoint.json`; nothing where it is missing or damaged."""
        try:
            found = parse_json((self._path(step) / _DESCRIPTION).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _verify(self, step: int, steps: list[int]) -> None:
        path, fault = self._path(step), self._fault(step)
        if fault is not None:
            good = next((s for s in reversed(steps) if s < step and self._fault(s) is None), None)
            way_on = "start again (no earlier checkpoint is whole)" if good is None else f"resume from step {good}"
            raise UserError(f"{fault} Delete the directory {path} to {way_on}.")

    def _fault(self, step: int) -> str | None:
        """Returns what is wrong with the files or the owner of a checkpoint; None where nothing is."""
        path = self._path(step)
        try:
            verify_manifest(path, remedy="")
        except UserError as error:
            return str(error).rstrip()
        if self._run is not None and self._description(step).get("run") != self._run:
            return f"{path / _DESCRIPTION}: a checkpoint of another run, with other settings or of an older version."
        return None

    def _join(self) -> None:
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def _description(path: Path) -> JsonObject:
    """Reads what a checkpoint says of itself: the figures, and what `checkpoint_tree` needs."""
    found = {"figures": {}, **read_json(path / _DESCRIPTION, _way_back(path))}
    if isinstance(found["figures"], dict):
        return found
    raise UserError(f"{path / _DESCRIPTION}: is damaged. {_way_back(path)}")


def _way_back(path: Path) -> str:
    return f"Delete the directory {path} to go back to an earlier checkpoint."
