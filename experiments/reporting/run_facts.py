"""Facts of a run for its report, read from its directory; whatever a stage has not written yet is empty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.configuration.device_section import DEVICE_COPY
from experiments.devices.device_file import Device, read_device
from experiments.objective import OBJECTIVES, Objective
from experiments.records import ExportedNetwork, Summary
from experiments.records.plain import JsonObject
from experiments.reporting.events import Curve, read_events
from experiments.storage.run_files import identity_of, read_summary
from experiments.storage.run_files import read_run as read_run_json
from search.archive import times_path
from search.archive_lines import chained, corrupt, follow, last_line, load
from search_spaces.errors import UserError
from search_spaces.sealed_json import read_json, read_sealed
from supernet.export.subnet import ARCHITECTURE, REPORT
from supernet.storage.manifest import verify_manifest


@dataclass(frozen=True)
class Candidate:
    """An architecture that the search evaluated.

    Attributes:
        architecture: Readable form.
        error: Objective on the whole validation split; None where the evaluation failed or stopped early.
        costs: Metric to number.
        generation: Generation of the searcher.
    """

    architecture: Mapping[str, Any]
    error: float | None
    costs: Mapping[str, float]
    generation: int


@dataclass(frozen=True)
class ExportedSubnet:
    """A network that was exported.

    Attributes:
        name: Its directory below `subnets/`.
        network: Figures of the summary: budget, limits, costs, what it reaches.
        architecture: Readable form.
        report: Content of its `report.json`.
    """

    name: str
    network: ExportedNetwork
    architecture: Mapping[str, Any]
    report: Mapping[str, Any]

    def over(self) -> list[str]:
        """Returns the limited metrics of which it has more than its budget allows."""
        costs = self.network.all_costs
        return [metric for metric, most in self.network.limits.items() if costs.get(metric, 0) > most]


@dataclass(frozen=True)
class RunFacts:
    """Everything that a report shows of one run.

    Attributes:
        path: The run directory.
        summary: Figures of the stages.
        objective: Figure that the search minimises.
        curves: Scalars of training by tag, step to value.
        texts: Texts of training by tag, warnings among them.
        candidates: Candidates that the search evaluated, in its order.
        budgets: Resolved limits by budget.
        subnets: Exported networks, in the order of the summary.
        ranking: Content of `rank/rank.json`; empty without a ranking.
        device: The device file that costs are of; None without one.
        config: The resolved configuration, as YAML.
        versions: Versions and seed when the run began, from `run.json`.
    """

    path: Path
    summary: Summary
    objective: Objective
    curves: Mapping[str, Curve]
    texts: Mapping[str, str]
    candidates: Sequence[Candidate]
    budgets: Mapping[str, Mapping[str, float]]
    subnets: Sequence[ExportedSubnet]
    ranking: Mapping[str, Any]
    device: Device | None
    config: str
    versions: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return str(self.summary.name or self.versions.get("name") or self.path.name)


def read_run(path: Path) -> RunFacts:
    """Reads a run directory.

    Raises:
        UserError: There is no run, or a file of it cannot be read.
    """
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path}: is no run directory. Give the directory that supernest run wrote.")
    identity = identity_of(path)
    summary = read_summary(path)
    budgets = _sealed(path / "search" / "pareto.json", summary.search is not None).get("budgets", {})
    curves, texts = read_events(path / "tensorboard" / "train")
    return RunFacts(
        path=path,
        summary=summary,
        objective=OBJECTIVES[summary.objective],
        curves=curves,
        texts=texts,
        candidates=_candidates(path / "search" / "archive.jsonl", identity, summary.search is not None),
        budgets={name: found["limits"] for name, found in budgets.items()},
        subnets=[_subnet(path, network) for network in summary.subnets or ()],
        ranking=_sealed(path / "rank" / "rank.json", summary.rank is not None),
        device=read_device(path / DEVICE_COPY) if (path / DEVICE_COPY).is_file() else None,
        config=(path / "config.yaml").read_text("utf-8"),
        versions=read_run_json(path),
    )  # fmt: skip


def interval(right: int, count: int) -> tuple[float, float]:
    """Returns the 95 % Wilson interval of the share of right answers among `count`."""
    from scipy.stats import binomtest

    low, high = binomtest(right, count).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def _candidates(path: Path, identity: str, expected: bool) -> list[Candidate]:
    if not path.exists():
        if expected:
            raise UserError(f"{path}: missing, though the run's summary.json has the search. Restore the file.")
        return []
    told = times_path(path).read_bytes() if times_path(path).exists() else b""  # written after the lines
    first, *lines = path.read_bytes().split(b"\n")[:-1] or [b""]  # a torn last line is left out
    header = load(path, 1, first)
    if header.get("run", {}).get("config") != identity:
        raise UserError(f"{path}:1: the archive is of another run. Restore the archive of this run.")
    digest, candidates = chained("", header), []
    for number, line in enumerate(lines, start=2):
        record = load(path, number, line)
        digest = follow(path, number, record, digest)
        try:
            error = record["objectives"]["error"]
            candidates.append(Candidate(record["architecture"], error, record["costs"], record["generation"]))
        except (KeyError, TypeError):
            raise corrupt(path, number) from None
    if last_line(times_path(path), told) > len(lines) + 1:
        raise UserError(f"{path}: holds fewer lines than {times_path(path).name} tells of. Restore the file.")
    return candidates


def _subnet(run: Path, network: ExportedNetwork) -> ExportedSubnet:
    directory = run / "subnets" / Path(network.directory).name
    if not directory.is_dir():  # it was moved away since
        return ExportedSubnet(directory.name, network, {}, {})
    remedy = f"Delete {directory} to export it again."
    verify_manifest(directory, remedy, only=(ARCHITECTURE, REPORT))
    architecture, report = (read_json(directory / name, remedy) for name in (ARCHITECTURE, REPORT))
    return ExportedSubnet(directory.name, network, architecture.get("architecture", {}), report)


def _sealed(path: Path, expected: bool) -> JsonObject:
    """The content of a file that a stage leaves; of one that has not ended, nothing is expected."""
    remedy = "Run its stage again; nothing is computed twice."
    try:
        return read_sealed(path, remedy)
    except FileNotFoundError:
        if expected:
            raise UserError(f"{path}: missing, though the run's summary.json has the stage. {remedy}") from None
        return {}
