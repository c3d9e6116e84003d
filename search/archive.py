"""Archive: every evaluated architecture of a search, one JSON line each, safe against a kill at any byte."""

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from search.archive_lines import (
    DIGEST,
    append,
    cannot,
    chained,
    corrupt,
    follow,
    last_line,
    line_of,
    load,
    number_of,
    short,
    stop_of,
    sync_directory,
    whole_numbers,
)
from search.budget import CostFunction, Costs
from search.searcher import Searcher
from search_spaces import Genes, SearchSpace, UserError
from search_spaces.sealed_json import JsonObject, parse_json

_FORMAT = "supernest search archive"
_VERSION = 2


class Archive:
    """An append-only file. Its first line says which search it belongs to; each further line is one architecture.

    Each line ends with a digest of itself and of all lines before it, so a line that was changed, moved or left out is
    found when the file is read. Costs are computed again then, and must be those that were written.

    The bytes follow from the search alone, so a search that was killed and resumed leaves the same file as one that was
    not. When each line was written is therefore in a file beside it, `NAME.times`, one JSON line for each batch of
    lines. `Archive.open` is for the search that writes it, `Archive.read` for all others.

    Attributes:
        path: The file.
        space: The space of its architectures.
        run: Hashes of what was evaluated, by name.
        objective_names: Names of the objectives, "error" first.
        metrics: Names of the costs.
        genes: Canonical genes, one row an entry, in the order of evaluation.
        objectives: Objectives, minimised; the error is NaN where the evaluation failed or stopped at a rung of
            successive halving: only errors on the whole validation split count.
        costs: Metric name to one number an entry.
        generations: The searcher's generation of each entry.
        fractions: Share of the validation split on which each was evaluated; below 1 where that stopped at a rung.
        partial_errors: The error on that share where the evaluation stopped; NaN elsewhere.
    """

    genes: Genes
    objectives: Float[np.ndarray, "n m"]
    costs: dict[str, Shaped[np.ndarray, " n"]]
    generations: Int[np.ndarray, " n"]
    fractions: Float[np.ndarray, " n"]
    partial_errors: Float[np.ndarray, " n"]

    def __init__(self, path: Path, space: SearchSpace, header: JsonObject) -> None:
        self.path, self.space = path, space
        self.run: dict[str, str] = dict(header["run"])
        self._digest = chained("", header)
        self.objective_names: tuple[str, ...] = tuple(header["objectives"])
        self.metrics: tuple[str, ...] = tuple(header["metrics"])
        self._seed = header["seed"]
        self.genes = np.zeros((0, space.num_genes), np.int32)
        self.objectives = np.zeros((0, len(self.objective_names)))
        self.costs = {metric: np.zeros(0, np.int64) for metric in self.metrics}
        self.generations = np.zeros(0, np.int64)
        self.fractions, self.partial_errors = np.zeros(0), np.zeros(0)

    @classmethod
    def open(cls, path: Path | str, searcher: Searcher, run: Mapping[str, str] | None = None) -> "Archive":
        """Starts the archive of a search, or takes it up where a killed one left it (a torn last line is cut off).

        Args:
            path: The file; its directory is made where it is missing.
            searcher: The search, with its budgets and settings.
            run: Hashes of what is evaluated, by name (the supernet's weights, for example), so that errors of another
                supernet are never mixed in.

        Raises:
            UserError: The file belongs to another search, is corrupt, or cannot be written.
        """
        path, header = Path(path), _header(searcher, run or {})
        line = line_of(header)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            if b"\n" not in content and line.startswith(content):
                path.write_bytes(b"")
                times_path(path).unlink(missing_ok=True)  # of an archive that was deleted
                append(path, line)
                sync_directory(path.parent)
                return cls(path, searcher.space, header)
            whole = content.rfind(b"\n") + 1
            archive = cls._parse(path, searcher.space, content[:whole], searcher.costs)
            _refuse_other(path, parse_json(content[: content.index(b"\n")]), header)
            written = path.stat().st_mtime
            if whole < len(content):
                os.truncate(path, whole)
            archive._complete_times(written)
        except OSError as error:
            raise cannot(path, error) from error
        return archive

    @classmethod
    def read(
        cls,
        path: Path | str,
        space: SearchSpace,
        costs: CostFunction | None = None,
        run: Mapping[str, str] | None = None,
    ) -> "Archive":
        """Reads an archive without changing the file; a torn last line is left out.

        Args:
            path: The file.
            space: The space of its architectures.
            costs: Costs of architectures; those of the space when None. Metrics that only the file has are not checked.
            run: Hashes by name that must be those of the file; names that are left out may be any.

        Raises:
            UserError: The file is missing, corrupt, changed, cut short, or of another space or run.
        """
        path = Path(path)
        try:
            times = times_path(path).read_bytes() if times_path(path).exists() else b""  # written after the lines
            content = path.read_bytes()
        except OSError as error:
            raise cannot(path, error) from error
        archive = cls._parse(path, space, content[: content.rfind(b"\n") + 1], costs or space.cost)
        archive.check_run(run or {})
        if last_line(times_path(path), times) > len(archive) + 1:
            raise UserError(
                f"{path}: holds {len(archive)} architectures, fewer than {times_path(path).name} tells of. Restore the "
                "file, or delete it and search again."
            )
        return archive

    def check_run(self, run: Mapping[str, str]) -> None:
        """Checks what was evaluated.

        Args:
            run: Hashes by name; names that are left out may be any.

        Raises:
            UserError: A hash is another one in the file.
        """
        for name, expected in run.items():
            if self.run.get(name) != expected:
                raise UserError(
                    f"{self.path}:1: the archive is of another run: {name} {short(self.run.get(name))} there and "
                    f"{short(expected)} here. Restore the archive of this run, or delete it and search again."
                )

    def __len__(self) -> int:
        return len(self.genes)

    @property
    def errors(self) -> Float[np.ndarray, " n"]:
        """Errors on the whole validation split, NaN where the evaluation failed or stopped at a rung."""
        return self.objectives[:, 0]

    @property
    def failed(self) -> Bool[np.ndarray, " n"]:
        """Entries whose evaluation failed."""
        return np.isnan(self.errors) & (self.fractions == 1)

    def record(self, index: int) -> JsonObject:
        """Converts an entry to JSON types, with None for a NaN."""
        return self._record(
            self.genes[index],
            self.objectives[index],
            {metric: values[index] for metric, values in self.costs.items()},
            int(self.generations[index]),
            (self.fractions[index], self.partial_errors[index]),
        )

    def append(
        self,
        genes: Genes,
        objectives: Float[np.ndarray, "p m"],
        costs: Costs,
        generation: int,
        fractions: Float[np.ndarray, " p"] | None = None,
        partial_errors: Float[np.ndarray, " p"] | None = None,
    ) -> None:
        """Writes evaluated architectures; on disk when this returns.

        Args:
            genes: Canonical.
            objectives: The error, NaN where the evaluation failed or stopped; then the others.
            costs: Metric name to one number an architecture.
            generation: The searcher's.
            fractions: Share of the validation split that each was evaluated on; all of it when None.
            partial_errors: Errors on that share where the evaluation stopped.

        Raises:
            UserError: The file cannot be written (no space left, no permission).
        """
        fractions = np.ones(len(genes)) if fractions is None else fractions
        partial_errors = np.full(len(genes), np.nan) if partial_errors is None else partial_errors
        rows = [{metric: costs[metric][i] for metric in self.metrics} for i in range(len(genes))]
        stops = zip(fractions, partial_errors, strict=True)
        lines, digest = [], self._digest
        for row, values, cost, stop in zip(genes, objectives, rows, stops, strict=True):
            record = self._record(row, values, cost, generation, stop)
            digest = chained(digest, record)
            lines.append(line_of({**record, DIGEST: digest}))
        first = len(self) + 2  # the header is line 1
        written = {"first": first, "last": first + len(genes) - 1, "time": datetime.now(UTC).isoformat()}
        try:
            append(self.path, b"".join(lines))
            append(times_path(self.path), line_of(written))
        except OSError as error:
            raise cannot(self.path, error) from error
        self._digest = digest
        generations = np.full(len(genes), generation, np.int64)
        self._extend(genes, objectives, costs, generations, fractions, partial_errors)

    def _complete_times(self, written: float) -> None:
        """Writes down when the file was written last for entries that a kill has left without a time."""
        times, covered = times_path(self.path), 1
        if times.exists():
            whole = 0
            for number, line in enumerate(times.read_bytes().split(b"\n")[:-1], start=1):
                last = load(times, number, line).get("last")
                if not isinstance(last, int):
                    raise corrupt(times, number)
                if last <= len(self) + 1:
                    whole, covered = whole + len(line) + 1, last
            os.truncate(times, whole)
        if covered <= len(self):
            time = datetime.fromtimestamp(written, UTC).isoformat()
            append(times, line_of({"first": covered + 1, "last": len(self) + 1, "time": time}))

    # ---------------------------------------------------------------- lines

    def _extend(
        self,
        genes: np.ndarray,
        objectives: np.ndarray,
        costs: Costs,
        generations: np.ndarray,
        fractions: np.ndarray,
        partial_errors: np.ndarray,
    ) -> None:
        first = len(self) == 0
        for metric in self.metrics:
            new = np.asarray(costs[metric])
            self.costs[metric] = new if first else np.concatenate([self.costs[metric], new])
        self.genes = np.concatenate([self.genes, genes])
        self.objectives = np.concatenate([self.objectives, objectives])
        self.generations = np.concatenate([self.generations, generations])
        self.fractions = np.concatenate([self.fractions, fractions])
        self.partial_errors = np.concatenate([self.partial_errors, partial_errors])

    def _record(
        self,
        genes: np.ndarray,
        objectives: np.ndarray,
        costs: Mapping[str, np.generic],
        generation: int,
        stop: tuple[float, float],
    ) -> JsonObject:
        record = {
            "architecture": self.space.architecture(genes).description,
            "genes": genes.tolist(),
            "objectives": {
                name: None if math.isnan(value) else float(value)
                for name, value in zip(self.objective_names, objectives, strict=True)
            },
            "costs": {metric: value.item() for metric, value in costs.items()},
            "seed": self._seed,
            "generation": generation,
        }
        fraction, error = stop
        if fraction < 1:
            return record | {"stopped": {"fraction": float(fraction), "error": float(error)}}
        return record | {"failed": True} if math.isnan(objectives[0]) else record

    @classmethod
    def _parse(cls, path: Path, space: SearchSpace, content: bytes, cost: CostFunction) -> "Archive":
        lines = content.split(b"\n")[:-1]
        header = load(path, 1, lines[0] if lines else b"")
        if header.get("format") != _FORMAT or header.get("version") != _VERSION:
            raise UserError(f"{path}:1: not the header of a search archive of version {_VERSION}. Choose another file.")
        if header.get("space") != space.fingerprint:
            raise UserError(f"{path}:1: the archive is of another search space. Use it with the config of its run.")
        try:
            archive = cls(path, space, header)
        except (KeyError, TypeError, ValueError) as error:
            raise corrupt(path, 1) from error
        seen: set[tuple[int, ...]] = set()
        genes, objectives, costs, generations, stops = [], [], [], [], []
        for number, line in enumerate(lines[1:], start=2):
            record = load(path, number, line)
            try:
                genes.append(whole_numbers(record["genes"]))
                found = [record["objectives"][name] for name in archive.objective_names]
                objectives.append([math.nan if value is None else number_of(value) for value in found])
                costs.append([number_of(record["costs"][metric]) for metric in archive.metrics])
                generations.extend(whole_numbers([record["generation"]]))
                stops.append(stop_of(record))
                described = space.architecture(genes[-1])
                if described.genes != genes[-1] or described.description != record["architecture"]:
                    raise ValueError
            except (KeyError, TypeError, ValueError) as error:
                raise corrupt(path, number) from error
            if genes[-1] in seen:
                raise UserError(f"{path}:{number}: an architecture that an earlier line holds. Restore the file.")
            archive._digest = follow(path, number, record, archive._digest)
            seen.add(genes[-1])
        if genes:
            columns = {metric: np.array([row[i] for row in costs]) for i, metric in enumerate(archive.metrics)}
            fractions, partial_errors = np.array(stops, float).T
            archive._extend(
                np.array(genes, np.int32),
                np.array(objectives, float),
                columns,
                np.array(generations),
                fractions,
                partial_errors,
            )
            archive._check_costs(cost)
        return archive

    def _check_costs(self, cost: CostFunction) -> None:
        for metric, values in cost(self.genes).items():
            for index in np.flatnonzero(self.costs.get(metric, values) != values)[:1]:
                raise UserError(
                    f"{self.path}:{index + 2}: {metric} is {self.costs[metric][index]}, and the cost model says "
                    f"{values[index]}. Restore the file, or delete it and search again."
                )


def times_path(path: Path) -> Path:
    """Returns the file of the times at which lines were written: JSON lines of first line, last line, UTC time."""
    return path.with_suffix(".times")


def _header(searcher: Searcher, run: Mapping[str, str]) -> JsonObject:
    settings = dict(searcher.settings)
    if searcher.halving:
        settings["halving"] = searcher.halving
    if searcher.in_flight > 1:
        settings["in_flight"] = searcher.in_flight
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "family": searcher.space.family,
        "space": searcher.space.fingerprint,
        "run": dict(run),
        "searcher": {"name": type(searcher).__name__, **settings},
        "seed": searcher.seed,
        "budgets": {budget.name: dict(budget.limits) for budget in searcher.budgets},
        "objectives": list(searcher.objectives),
        "metrics": sorted(searcher.costs(searcher.init().genes)),
    }


def _refuse_other(path: Path, found: JsonObject, expected: JsonObject) -> None:
    for key, value in json.loads(line_of(expected)).items():
        there = found.get(key)
        if there != value:
            if key == "run" and isinstance(there, dict):  # hashes: only what differs, in short
                name = next(name for name in sorted({*value, *there}) if value.get(name) != there.get(name))
                key, there, value = f"run.{name}", short(there.get(name)), short(value.get(name))
            raise UserError(
                f"{path}:1: the archive is of another search: {key} is {there!r} there and {value!r} here. "
                "Search with the settings of the archive, or into another file."
            )
