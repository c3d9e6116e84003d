"""Tables that measure only a sample of a space: additive surrogates of their figures, with how well these rank.

A sample is no space that a searcher can walk through, since the neighbours of a network are not in it. So what is
searched is the whole space, with figures that ridge regression has learned from the sample. Both benchmarks were made
for this: HW-GPT-Bench publishes surrogates, and OFA's file holds the histories of searches.

    hw_gpt_bench    perplexity and a hardware figure (latency by default) of 10,000 decoders of scale `s`, both learned,
                    each width on its own;
    ofa             ImageNet top-1 of some 2,000 subnets of OFA's MobileNetV3 at 224 pixels, learned; MACs or parameters
                    are exact. The sample comes from searches, so good networks are over-represented; latency is not in
                    it.

References:
    Sukthanker et al. HW-GPT-Bench: Hardware-Aware Architecture Benchmark for Language Models. NeurIPS 2024,
    arXiv:2405.10299.
    Cummings et al. A Hardware-Aware Framework for Accelerating Neural Architecture Search Across Modalities. AutoML
    2022, arXiv:2205.10358 (histories on OFA).
    Zela et al. Surrogate NAS Benchmarks: Going Beyond the Limited Search Spaces of Tabular NAS Benchmarks. ICLR 2022,
    arXiv:2008.09777 (surrogates as benchmarks).
"""

import ast
import csv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from search import Additive, CostFunction, Costs
from search_spaces import Choice, Genes, SearchSpace, UserError, build_space, did_you_mean
from search_spaces.cost import CostTables, Factor
from search_spaces.predictor import cross_validated_tau

_PENALTY = 1.0
Values = Float[np.ndarray, " a"]


@dataclass(frozen=True)
class Learned:
    """A figure that is a sum over genes, with sums of its own for each value of one gene.

    Attributes:
        space: The space.
        column: That gene, which no other gates; None for the same sums everywhere.
        parts: A sum for each of its values.
    """

    space: SearchSpace
    column: int | None
    parts: tuple[Additive, ...]

    @classmethod
    def fit(cls, space: SearchSpace, genes: Genes, values: Values, column: int | None) -> "Learned":
        """Ridge regression on measured networks.

        Raises:
            UserError: A value of the gene was not measured.
        """
        if column is None:
            return cls(space, None, (Additive.fit(space, genes, values, _PENALTY),))
        rows = [genes[:, column] == value for value in range(int(space.cardinalities[column]))]
        if not all(of.any() for of in rows):
            raise UserError("the table has no network for a value of a choice. Restore its file.")
        return cls(space, column, tuple(Additive.fit(space, genes[of], values[of], _PENALTY) for of in rows))

    def __call__(self, genes: Genes) -> Values:
        """The figure of networks."""
        if self.column is None:
            return self.parts[0](genes)
        found = np.stack([part(genes) for part in self.parts])
        return found[genes[:, self.column], np.arange(len(genes))]

    @cached_property
    def tables(self) -> CostTables:
        """The same as tables over genes."""
        if self.column is None:
            return self.parts[0].tables
        column, factors = self.column, list[Factor]()
        constants = np.array([part.tables.constant for part in self.parts], float)
        for same in zip(*(part.tables.sums for part in self.parts), strict=True):
            columns = same[0][0]
            stacked = np.stack([np.asarray(table, float) for _, table in same])
            if columns == (column,):
                constants = constants + np.diagonal(stacked)
            else:
                factors.append(((column, *columns), stacked))
        return CostTables((((column,), constants), *factors))


@dataclass(frozen=True)
class LearnedCost:
    """A learned figure as the only cost of networks.

    Attributes:
        metric: What it is called.
        figure: The figure.
    """

    metric: str
    figure: Learned

    def __call__(self, genes: Genes) -> Costs:
        """Costs of networks."""
        return {self.metric: self.figure(genes)}

    def tables(self, metric: str) -> CostTables:
        """See `search_spaces.cost.Tabulated`."""
        return self.figure.tables


@dataclass(frozen=True)
class SurrogateTable:
    """A space with figures that were learned from a sample.

    Attributes:
        name: Of the table.
        space: The space.
        error: What is minimised.
        error_name: What that is.
        cost: What it is traded against.
        metric: Name of that cost.
        measured: Number of networks that were measured.
        taus: Cross-validated tau-b of each learned figure.
    """

    name: str
    space: SearchSpace
    error: Learned
    error_name: str
    cost: CostFunction
    metric: str
    measured: int
    taus: dict[str, float]


@dataclass(frozen=True)
class GPTSpace(SearchSpace):
    """The decoders of HW-GPT-Bench, scale `s`."""

    family = "hw_gpt_bench"

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return (
            Choice("embed_dim", (192, 384, 768)),
            Choice("bias", (0, 1)),
            Choice("n_layer", (10, 11, 12)),
            Choice("n_head", (4, 8, 12), gate="n_layer"),
            Choice("mlp_ratio", (2, 3, 4), gate="n_layer"),
        )


def hw_gpt_bench(directory: Path, measure: str | None) -> SurrogateTable:
    """Reads HW-GPT-Bench.

    Args:
        directory: Holds `hwgpt_s.npz`.
        measure: Hardware figure, a column of the file; the latency of an A100 when None.

    Raises:
        UserError: The file is missing or damaged, or has no such column.
    """
    path, space, measure = directory / "hwgpt_s.npz", GPTSpace(), measure or "lat_ms__a100"
    try:
        with np.load(path, allow_pickle=False) as file:
            known = [name for name in file.files if name.startswith(("lat_ms__", "energy__", "mem_mb__"))]
            if measure not in known:
                raise UserError(f"--measure: {measure!r} is no figure of {path}.{did_you_mean(measure, known)}")
            columns = [_numbers(path, choice, file[choice.name]) for choice in space.choices]
            perplexity, cost = (np.asarray(file[name], np.float64) for name in ("perplexity", measure))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Name the directory that holds it: --table-path") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}: {error}). Restore the file.") from None
    genes = space.canonical(np.concatenate(columns, axis=1))
    usable = np.isfinite(perplexity) & np.isfinite(cost)
    genes, perplexity, cost = genes[usable], perplexity[usable], cost[usable]
    error, hardware = (Learned.fit(space, genes, values, 0) for values in (perplexity, cost))
    taus = {"perplexity": _tau(space, genes, perplexity, 0), measure: _tau(space, genes, cost, 0)}
    priced = LearnedCost(measure, hardware)
    return SurrogateTable("hw_gpt_bench", space, error, "perplexity", priced, measure, len(genes), taus)


def _numbers(path: Path, choice: Choice, values: np.ndarray) -> Int[np.ndarray, "a n"]:
    """Gene of each value; 0 beyond the depth."""
    values = values.reshape(len(values), -1)
    found = np.zeros(values.shape, np.int32)
    for number, value in enumerate(choice.values):
        found[values == value] = number
    known = np.isin(values, [*choice.values, *((0,) if choice.gate else ())])
    if not known.all():
        raise UserError(
            f"{path}: {choice.name} has a value that is not one of {list(choice.values)}. Restore the file."
        )
    return found


def ofa(directory: Path, measure: str | None) -> SurrogateTable:
    """Reads the histories of searches on OFA's MobileNetV3.

    Args:
        directory: Holds `mbnv3w10_*.csv`.
        measure: `macs` or `params`; MACs when None.

    Raises:
        UserError: A file is missing or damaged, its costs are not those of the space, or the measure is another one.
    """
    space, measure = build_space("mobilenet", "ofa_mbv3", {"resolution": (224,)}), measure or "macs"
    if measure not in ("macs", "params"):
        raise UserError(f"--measure: {measure!r} is no cost of this table. Give macs or params.")
    files = sorted(directory.glob("mbnv3w10_*.csv"))
    if not files:
        raise UserError(f"{directory}: no file mbnv3w10_*.csv. Name the directory that holds them: --table-path")
    rows, accuracies, costs = list[np.ndarray](), list[float](), list[tuple[int, int]]()
    for path in files:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    rows.append(_genes(space, ast.literal_eval(row["Sub-network"])))
                    accuracies.append(float(row["Top-1 Acc (%)"]))
                    costs.append((int(row["MACs"]), int(row["Model Parameters"])))
        except (OSError, ValueError, KeyError, TypeError, SyntaxError, IndexError, csv.Error) as error:
            raise UserError(f"{path}: cannot be read ({type(error).__name__}: {error}). Restore the file.") from None
    genes, first, group = np.unique(space.canonical(np.array(rows)), axis=0, return_index=True, return_inverse=True)
    counted = space.cost(genes)
    if not (np.stack([counted["macs"], counted["params"]], axis=1) == np.array(costs)[first]).all():
        raise UserError(f"{directory}: MACs or parameters are not those of OFA's MobileNetV3. Restore the files.")
    error = 100 - np.bincount(group.reshape(-1), accuracies) / np.bincount(group.reshape(-1))
    learned, taus = Learned.fit(space, genes, error, None), {"top-1 error": _tau(space, genes, error, None)}
    return SurrogateTable("ofa", space, learned, "top-1 error", space.cost, measure, len(genes), taus)


def _genes(space: SearchSpace, network: dict[str, Any]) -> Int[np.ndarray, " g"]:
    """Genes of a subnet as the files write it."""
    given = {"resolution": network["r"], "depth": network["d"], "kernel": network["ks"], "expand": network["e"]}
    found = np.zeros(space.num_genes, np.int32)
    for choice in space.choices:
        columns = space.columns[choice.name].reshape(-1)
        values = given[choice.name]
        if len(values) != len(columns):
            raise ValueError(f"{choice.name} has {len(values)} values, not {len(columns)}")
        found[columns] = [choice.values.index(value) for value in values]
    return found


def _tau(space: SearchSpace, genes: Genes, values: Values, column: int | None) -> float:
    def fit(some: Genes, targets: Values, seed: int) -> Learned:
        return Learned.fit(space, some, targets, column)

    return round(cross_validated_tau(space, genes, values, fit=fit), 3)


SURROGATES: dict[str, Callable[[Path, str | None], SurrogateTable]] = {"hw_gpt_bench": hw_gpt_bench, "ofa": ofa}
"""Readers by name; the directory is that of the table's files, the measure what is traded against the error."""
PLACES = {"hw_gpt_bench": Path("hw_gpt_bench"), "ofa": Path("hw_latency", "ofa_dynast")}
"""Their directories below `$SUPERNEST_DATA`."""
