"""Overview of an experiment of several spaces: which space each subnet came from, and how far the others are behind."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.configuration.experiment_config import SPACES
from experiments.objective import OBJECTIVES
from experiments.records import ExportedNetwork
from experiments.records.plain import JsonObject
from experiments.reporting.status import Status, shown, status_of
from experiments.storage.run_files import SUMMARY, is_run
from search_spaces.sealed_json import read_sealed, sealed
from supernet.storage.manifest import write_text_atomically

MEMBERS = "spaces.json"
"""File of a directory with the runs of several spaces: their names."""
_REMEDY = "Choose another directory."


@dataclass(frozen=True)
class ChosenSubnet:
    """The best subnet of all spaces for a budget.

    Attributes:
        space: Name of the space that it is from.
        objectives: Objective of the best subnet of each space that can meet the budget, on the validation split.
        network: The subnet, as its run exported it; `directory` is that of the copy.
    """

    space: str
    objectives: Mapping[str, float]
    network: ExportedNetwork


@dataclass(frozen=True)
class Overview:
    """Result of an experiment of several spaces.

    Attributes:
        name: Name of the experiment.
        objective: Name of the objective that chose.
        sizes: Number of subnets of each space.
        subnets: Chosen subnets, in the order of the budgets.
    """

    name: str
    objective: str
    sizes: Mapping[str, int]
    subnets: Sequence[ChosenSubnet]

    def as_json(self) -> JsonObject:
        """Returns the overview as `summary.json` has it, without its hash."""
        rows = [{"space": c.space, "objectives": dict(c.objectives), **c.network.as_json()} for c in self.subnets]
        return {"name": self.name, "objective": self.objective, "spaces": dict(self.sizes), "subnets": rows}

    def lines(self) -> list[str]:
        """Returns a line for each budget: the space of its subnet, and what the best subnet of each space reaches."""
        objective = OBJECTIVES[self.objective]
        found = []
        for chosen in self.subnets:
            each = ", ".join(f"{name} {objective.text(value)}" for name, value in chosen.objectives.items())
            found.append(
                f"{chosen.network.budget}: from space {chosen.space}; val. {objective.shown} of the best: {each}"
            )
        return found

    def write(self, directory: Path) -> None:
        """Writes `summary.json`."""
        text = json.dumps(sealed(self.as_json()), indent=1, sort_keys=True)
        write_text_atomically(directory / SUMMARY, text + "\n")


def members(directory: Path) -> dict[str, Path] | None:
    """Returns the run of each space in a directory, by name; None where it holds no runs of several spaces.

    Raises:
        UserError: The file that names them is damaged.
    """
    if not (directory / MEMBERS).is_file():
        return None
    names = read_sealed(directory / MEMBERS, _REMEDY)["spaces"]
    return {name: directory / SPACES / name for name in names}


def write_members(directory: Path, names: Sequence[str]) -> None:
    """Writes the names of the spaces whose runs a directory holds."""
    write_text_atomically(directory / MEMBERS, json.dumps(sealed({"spaces": list(names)}), indent=1) + "\n")


@dataclass(frozen=True)
class SpacesStatus:
    """Progress of an experiment of several spaces.

    Attributes:
        runs: Progress of the run of each space; None for one that has not begun.
        chosen: Space of the subnet for each budget; empty before the choice.
    """

    runs: Mapping[str, Status | None]
    chosen: Mapping[str, str]

    def as_json(self) -> JsonObject:
        """Returns the status as `supernest status --json` prints it."""
        runs = {name: None if status is None else status.as_json() for name, status in self.runs.items()}
        return {"spaces": runs, "chosen": dict(self.chosen)}

    def lines(self) -> list[str]:
        """Returns the status as lines for people."""
        found = []
        for name, status in self.runs.items():
            text = "not begun" if status is None else shown(status).replace("\n", "\n  ")
            found.append(f"space {name}\n  {text}")
        chosen = ", ".join(f"{budget} from {name}" for budget, name in self.chosen.items())
        return [*found, f"chosen   {chosen or 'not yet'}"]


def status_of_spaces(directory: Path, runs: Mapping[str, Path]) -> SpacesStatus:
    """Returns how far the runs of several spaces are.

    Raises:
        UserError: A file of a run cannot be read.
    """
    chosen: dict[str, str] = {}
    if (directory / SUMMARY).is_file():
        rows = read_sealed(directory / SUMMARY, _REMEDY)["subnets"]
        chosen = {row["budget"]: row["space"] for row in rows}
    return SpacesStatus({name: status_of(run) if is_run(run) else None for name, run in runs.items()}, chosen)
