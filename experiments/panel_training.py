"""Training a panel: each architecture on its own, its result kept under the hash of all that decides it.

Each is trained inside the supernet's weights (`supernet.embed`), by the programs that the supernet's training compiled,
from the plain network's own fresh weights: what is computed is that network, only without a compilation each.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Int
from tqdm import tqdm

from experiments.checkpoints import Checkpoints
from experiments.experiment import Experiment
from experiments.interrupt import Interrupted, StopRequest
from experiments.tensorboard import EventLog
from experiments.train import train, train_step, trained_params
from samplers import Paths, Sampler, SamplerState, Score
from search_spaces import UserError
from supernet.distillation import Distillation
from supernet.embed import embed
from supernet.manifest import discard_directory, disk_errors_for, write_text_atomically
from supernet.training import TrainStep

_WEIGHTS = 5
_RESULT, _FORMAT = "result.json", 1
# What decides how a training goes on or is watched, and not what comes out of it.
_INDIFFERENT = frozenset(
    {"steps", "epochs", "distillation", "checkpoint_every", "keep_last", "keep_best", "evaluate_every", "log_every",
     "diagnose_every"}
)  # fmt: skip


class Truth(NamedTuple):
    """What each architecture of the panel reaches on its own, on the validation split; means over seeds."""

    accuracy: Float[np.ndarray, " p"]
    loss: Float[np.ndarray, " p"]


@dataclass(frozen=True)
class OnePath(Sampler):
    """Trains one architecture only.

    Args:
        genes: Its canonical genes.
    """

    genes: tuple[int, ...] = ()

    @property
    def paths_per_step(self) -> int:
        return 1

    def sample(self, state: SamplerState, step: int, worker: int = 0, score: Score | None = None) -> Paths:
        return Paths(np.array([self.genes], np.int32), ("random",), np.ones(1, np.float32))


def alone(experiment: Experiment) -> Experiment:
    """The experiment as the panel is trained: plain weights, labels only, the panel's number of steps."""
    config = experiment.config
    config = config.model_copy(
        update={
            "supernet": config.supernet.model_copy(update={"sharing": "entangled"}),
            "train": config.train.model_copy(
                update={
                    "steps": config.rank.steps or experiment.steps,
                    "epochs": None,
                    "distillation": Distillation(),
                    "evaluate_every": config.rank.steps or experiment.steps,
                    "diagnose_every": None,
                }
            ),
        }
    )
    changed = dataclasses.replace(experiment, config=config)
    return share(experiment, changed) if experiment.config.supernet.sharing == "entangled" else changed


def share(experiment: Experiment, other: Experiment) -> Experiment:
    """Gives `other`, on the same data and network, what `experiment` has compiled and loaded."""
    for part in ("net", "evaluator", "calibration"):  # cached properties keep their values in the instance
        vars(other)[part] = getattr(experiment, part)
    return other


def train_panel(
    experiment: Experiment, genes: Int[np.ndarray, "p g"], directory: Path, stop: StopRequest, quiet: bool
) -> Truth:
    """Trains each architecture on its own, unless `directory` holds its result; continues one that was interrupted.

    Args:
        experiment: The experiment whose supernet is judged.
        genes: The panel.
        directory: Where results are kept; several runs may share it.
        stop: Read between steps.
        quiet: No progress bar.

    Raises:
        Interrupted: `stop` was requested; the network in training has a checkpoint.
        TrainingDiverged: A loss is not finite.
    """
    base = alone(experiment)
    seeds = [experiment.config.seed + i for i in range(experiment.config.rank.seeds)]
    step = train_step(base)
    results = np.zeros((len(genes), len(seeds), 2))
    bar = tqdm(total=results[..., 0].size, desc="panel", unit="network", disable=quiet or None, dynamic_ncols=True)
    with bar:
        for i, row in enumerate(genes):
            for j, seed in enumerate(seeds):
                member = _member(base, row, seed)
                key = _key(base, row, seed)
                home = directory / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
                try:
                    results[i, j] = _result(member, step, key, home, stop)
                except Interrupted as stopped:
                    text = f"{stopped} (network {i + 1} of {len(genes)} of the panel)"
                    raise Interrupted(text) from None
                bar.update()
    accuracy, loss = np.moveaxis(results.mean(axis=1), -1, 0)
    return Truth(accuracy, loss)


def panel_directory(cache: str | None, otherwise: Path) -> Path:
    """Where a panel's results are kept: the configured cache, or `panel` below another directory."""
    return otherwise / "panel" if cache is None else Path(cache)


def _member(base: Experiment, genes: Int[np.ndarray, " g"], seed: int) -> Experiment:
    config = base.config.model_copy(update={"seed": seed})
    sampler = OnePath(base.space, seed, genes=tuple(int(gene) for gene in genes))
    return share(base, dataclasses.replace(base, config=config, sampler=sampler))


def _key(base: Experiment, genes: Int[np.ndarray, " g"], seed: int) -> dict[str, Any]:
    """All that decides a result; a sampler, a search or a budget does not."""
    config = base.config.as_dict()
    return {
        "format": _FORMAT,
        "data": {**config["data"], "seed": base.config.seed},
        "space": base.space.fingerprint,
        "train": {name: value for name, value in config["train"].items() if name not in _INDIFFERENT},
        "evaluation": config["evaluation"],
        "steps": base.steps,
        "seed": seed,
        "genes": [int(gene) for gene in genes],
    }


def _result(
    member: Experiment, step: TrainStep, key: dict[str, Any], home: Path, stop: StopRequest
) -> tuple[float, float]:
    """Accuracy and loss of one network: those in its directory, or of a training there."""
    known = _read(home / _RESULT, key)
    if known is not None:
        return known
    with _only_here(home, stop):
        known = _read(home / _RESULT, key)  # another process may have been at it
        if known is not None:
            return known
        architecture = member.space.architecture(key["genes"])
        seed = jax.random.fold_in(jax.random.key(member.config.seed), _WEIGHTS)
        fresh = nnx.to_pure_dict(nnx.state(member.net.module(architecture, nnx.Rngs(seed))))
        with Checkpoints(home / "checkpoints", keep_last=1, keep_best=0) as checkpoints:
            train(
                member, checkpoints, lambda done: EventLog(home, done, main_process=False), stop, True,
                embed(member.net, fresh, architecture), step,
            )  # fmt: skip
            params = trained_params(member, checkpoints)
        scores = member.evaluator(params, np.array([key["genes"]], np.int32))
        accuracy, loss = float(scores.accuracy[0]), float(scores.loss[0])
        result = {"key": key, "architecture": architecture.description, "accuracy": accuracy, "loss": loss}
        write_text_atomically(home / _RESULT, json.dumps(result, indent=1) + "\n")
        discard_directory(home / "checkpoints")
    return accuracy, loss


def _read(path: Path, key: dict[str, Any]) -> tuple[float, float] | None:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return (float(result["accuracy"]), float(result["loss"])) if result["key"] == key else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: is damaged. Delete it; the network is then trained again.") from None


@contextmanager
def _only_here(home: Path, stop: StopRequest) -> Iterator[None]:
    """Waits until no other process trains this network."""
    with disk_errors_for(home):
        home.mkdir(parents=True, exist_ok=True)
        lock = os.open(home / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop:
                    raise Interrupted("stopped while another process trains a network of the panel") from None
                time.sleep(0.2)
        yield
    finally:
        os.close(lock)
