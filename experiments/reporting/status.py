"""How far a run is, from the files that it has left so far."""

import fcntl
import os
from pathlib import Path
from typing import Any

from experiments.reporting.run_facts import RunFacts, read_run
from experiments.run_directory import LOCK
from experiments.storage.run_files import read_run_config
from supernet.storage.manifest import MANIFEST

_BY = ("validation_", "probe_")  # curves that say how good the networks are


def status_of(path: Path) -> dict[str, Any]:
    """Returns how far each stage of a run is, by the stage's name; a stage that has not begun is None.

    Raises:
        UserError: There is no run, or a file of it cannot be read.
    """
    facts, config = read_run(path), read_run_config(path)
    found = len(facts.candidates)
    return {
        "name": facts.name,
        "process": worker(path),
        "train": _training(path, facts, config),
        "search": {"evaluated": found, "evaluations": config["search"]["evaluations"]} if found else None,
        "export": [subnet.name for subnet in facts.subnets] or None,
        "rank": {"panel": facts.summary["rank"]["panel"]} if "rank" in facts.summary else None,
    }


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


def _training(path: Path, facts: RunFacts, config: dict[str, Any]) -> dict[str, Any] | None:
    saved = [int(at.parent.name.removeprefix("step_")) for at in path.glob(f"checkpoints/step_*[0-9]/{MANIFEST}")]
    logged = max((max(curve) for curve in facts.curves.values()), default=0)
    step = max(logged, *saved, 0) if saved else logged
    if not step:
        return None
    last = {tag: curve[max(curve)] for tag, curve in facts.curves.items() if tag.startswith(_BY)}
    return {
        "step": step,
        "steps": config["train"]["steps"],
        "checkpoint": max(saved, default=None),
        "ended": "train" in facts.summary,
        **dict(sorted(last.items())),
    }


def shown(status: dict[str, Any]) -> str:
    """Returns a status as lines for people."""
    process = status["process"]
    lines = [("name", status["name"]), ("process", "none is at work" if process is None else f"{process} is at work")]
    if train := status["train"]:
        of = f" of {train['steps']:,}" if train["steps"] else ""
        kept = "no checkpoint yet" if train["checkpoint"] is None else f"checkpoint of step {train['checkpoint']:,}"
        lines.append(("train", f"step {train['step']:,}{of}, {'ended' if train['ended'] else kept}"))
        lines += [("", f"{tag} {value:.4g}") for tag, value in train.items() if "/" in tag or tag.startswith(_BY)]
    else:
        lines.append(("train", "not begun"))
    search = status["search"]
    lines.append(("search", f"{search['evaluated']:,} of {search['evaluations']:,} subnets" if search else "not begun"))
    lines.append(("export", ", ".join(status["export"]) if status["export"] else "not begun"))
    if status["rank"]:
        lines.append(("rank", f"{status['rank']['panel']} networks"))
    return "\n".join(f"{name:<8} {text}" for name, text in lines)
