"""Progress of a run, from the files that it has left so far."""

import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.configuration.federation_section import DIRECTORY
from experiments.configuration.incubation_section import PARTS, IncubationSection
from experiments.records.plain import JsonObject
from experiments.reporting.run_facts import RunFacts, read_run
from experiments.run_directory import LOCK
from experiments.storage.run_files import read_run_config
from supernet.storage.manifest import MANIFEST

_BY = ("validation_", "probe_")  # curves that say how good the networks are


@dataclass(frozen=True)
class TrainingStatus:
    """Progress of a training.

    Attributes:
        step: The last step that is known.
        steps: Steps in all; None where the experiment counts epochs.
        checkpoint: Step of the last whole checkpoint; None where there is none.
        ended: Whether training has ended.
        last: Curve to its last value, of those that say how good the networks are.
    """

    step: int
    steps: int | None
    checkpoint: int | None
    ended: bool
    last: Mapping[str, float]


@dataclass(frozen=True)
class PartStatus:
    """Progress of a part of an incubation, or of a federation, whose steps are rounds.

    Attributes:
        step: Step of its last whole checkpoint; 0 where there is none.
        steps: Steps in all.
    """

    step: int
    steps: int


@dataclass(frozen=True)
class SearchStatus:
    """Progress of a search.

    Attributes:
        evaluated: Subnets that were evaluated.
        evaluations: Subnets that are to be evaluated.
    """

    evaluated: int
    evaluations: int


@dataclass(frozen=True)
class Status:
    """Progress of a run; None for a stage that has not begun.

    Attributes:
        name: Name of the experiment.
        process: Number of the process that works on it; None where none does.
        incubation: Each part that the training starts from, by name.
        federation: The rounds of its clients.
        train: Its training.
        search: Its search.
        export: Names of exported networks.
        panel: Networks whose ranking was compared.
    """

    name: str
    process: int | None
    incubation: Mapping[str, PartStatus] | None
    federation: PartStatus | None
    train: TrainingStatus | None
    search: SearchStatus | None
    export: Sequence[str] | None
    panel: int | None

    def as_json(self) -> JsonObject:
        """Returns the status as `supernest status --json` prints it."""
        content = asdict(self)
        panel = content.pop("panel")
        if self.train is not None:
            content["train"] |= content["train"].pop("last")
        return content | {"rank": None if panel is None else {"panel": panel}}


def status_of(path: Path) -> Status:
    """Returns how far each stage of a run is.

    Raises:
        UserError: There is no run, or a file of it cannot be read.
    """
    facts, config = read_run(path), read_run_config(path)
    found = len(facts.candidates)
    return Status(
        name=facts.name,
        process=worker(path),
        incubation=_incubation(path, config["train"].get("incubation")),
        federation=_federation(path, config.get("federation")),
        train=_training(path, facts, config["train"]["steps"]),
        search=SearchStatus(found, config["search"]["evaluations"]) if found else None,
        export=[subnet.name for subnet in facts.subnets] or None,
        panel=facts.summary.rank.panel if facts.summary.rank else None,
    )


def worker(path: Path) -> int | None:
    """Returns the number of the process that works on a run; None where none does."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(descriptor, 20).strip() or 0)
    finally:
        os.close(descriptor)
    return None


def _training(path: Path, facts: RunFacts, steps: int | None) -> TrainingStatus | None:
    saved = _saved(path)
    logged = max((max(curve) for curve in facts.curves.values()), default=0)
    step = max(logged, *saved, 0) if saved else logged
    if not step:
        return None
    last = {tag: curve[max(curve)] for tag, curve in facts.curves.items() if tag.startswith(_BY)}
    ended = facts.summary.train is not None
    return TrainingStatus(step, steps, max(saved, default=None), ended, dict(sorted(last.items())))


def _incubation(path: Path, settings: Mapping[str, Any] | None) -> Mapping[str, PartStatus] | None:
    if settings is None or not (path / PARTS).is_dir():
        return None
    steps = IncubationSection.model_validate(settings).steps
    return {name: PartStatus(max(_saved(path / PARTS / name), default=0), of) for name, of in steps.items()}


def _federation(path: Path, settings: Mapping[str, Any] | None) -> PartStatus | None:
    if settings is None or not (path / DIRECTORY).is_dir():
        return None
    return PartStatus(max(_saved(path / DIRECTORY), default=0), settings["rounds"])


def _saved(path: Path) -> list[int]:
    """Returns the steps of the whole checkpoints of a training."""
    return [int(at.parent.name.removeprefix("step_")) for at in path.glob(f"checkpoints/step_*[0-9]/{MANIFEST}")]


def shown(status: Status) -> str:
    """Returns a status as lines for people."""
    process, search = status.process, status.search
    lines = [("name", status.name), ("process", "none is at work" if process is None else f"{process} is at work")]
    for name, part in (status.incubation or {}).items():
        lines.append(("incubate", f"{name.replace('_', ' ')}, step {part.step:,} of {part.steps:,}"))
    if status.federation:
        lines.append(("federate", f"round {status.federation.step:,} of {status.federation.steps:,}"))
    if train := status.train:
        of = f" of {train.steps:,}" if train.steps else ""
        kept = "no checkpoint yet" if train.checkpoint is None else f"checkpoint of step {train.checkpoint:,}"
        lines.append(("train", f"step {train.step:,}{of}, {'ended' if train.ended else kept}"))
        lines += [("", f"{tag} {value:.4g}") for tag, value in train.last.items()]
    else:
        lines.append(("train", "not begun"))
    lines.append(("search", f"{search.evaluated:,} of {search.evaluations:,} subnets" if search else "not begun"))
    lines.append(("export", ", ".join(status.export) if status.export else "not begun"))
    if status.panel:
        lines.append(("rank", f"{status.panel} networks"))
    return "\n".join(f"{name:<8} {text}" for name, text in lines)
