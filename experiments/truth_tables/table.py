"""TruthTable: figures of trained networks by architecture, and the registry of those that read one from its files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from search_spaces import Genes, SearchSpace, UserError, did_you_mean
from search_spaces.registry import Registry

PLACE = "SUPERNEST_DATA"
"""Environment variable: directory that holds a directory for each table, by its name."""


@dataclass(frozen=True)
class TruthTable:
    """Figures of networks that were each trained on their own.

    Attributes:
        name: Name of the table.
        space: Space whose genes the rows are; each row is another network.
        genes: Canonical genes, a row a network.
        measures: Figures by name, such as accuracies in percent; higher is better. NaN where one is missing.
        truth: Name of the measure that stands for the truth.
        cheap: Name of the cheapest training's measure, and what to call it; None where there is none.
    """

    name: str
    space: SearchSpace
    genes: Genes
    measures: Mapping[str, Float[np.ndarray, " a"]]
    truth: str
    cheap: tuple[str, str] | None = None

    def measure(self, name: str) -> Float[np.ndarray, " a"]:
        """Returns a figure of all rows.

        Raises:
            UserError: The table has none of this name.
        """
        if name not in self.measures:
            raise UserError(f"table {self.name}: {name!r} is no measure.{did_you_mean(name, self.measures)}")
        return self.measures[name]

    def rows(self, space: SearchSpace, genes: Genes) -> Int[np.ndarray, " a"]:
        """Returns the table row of each architecture of a space with the table's choices and some of their values.

        Raises:
            UserError: The space is of another family, or the table lacks an architecture.
        """
        found = self._row_of[np.ravel_multi_index(self._translated(space, genes).T, self._sides)]
        lacking = np.flatnonzero(found < 0)
        if lacking.size:
            described = space.architecture(genes[lacking[0]]).description
            raise UserError(
                f"table {self.name}: it lacks {described}, and {lacking.size - 1:,} more of {len(genes):,}. Use the "
                "whole table, or a space that it covers."
            )
        return found

    def within(self, space: SearchSpace) -> Genes:
        """Genes, as a space has them, of all rows that are networks of the space, in the order of the rows.

        Raises:
            UserError: The space is of another family.
        """
        columns, inside = [], np.ones(len(self.genes), bool)
        for i, values in enumerate(self._values(space)):
            back = np.full(self._sides[i], -1)
            back[values] = np.arange(len(values))
            columns.append(back[self.genes[:, i]])
            inside &= columns[-1] >= 0
        return np.stack(columns, axis=1)[inside].astype(np.int32)

    @cached_property
    def _sides(self) -> tuple[int, ...]:
        return tuple(self.space.cardinalities.tolist())

    @cached_property
    def _row_of(self) -> Int[np.ndarray, " n"]:
        rows = np.full(int(np.prod(self._sides)), -1)
        rows[np.ravel_multi_index(self.genes.T, self._sides)] = np.arange(len(self.genes))
        return rows

    def _translated(self, space: SearchSpace, genes: Genes) -> Genes:
        return np.stack([values[genes[:, i]] for i, values in enumerate(self._values(space))], axis=1)

    def _values(self, space: SearchSpace) -> list[Int[np.ndarray, " v"]]:
        """For each gene, the table's index of each value that the space has."""
        if space.family != self.space.family:
            raise UserError(
                f"table {self.name}: it is of family {self.space.family}, and the space is of {space.family}. Set "
                f"space.family: {self.space.family}, or leave the table out."
            )
        known = {choice.name: choice.values for choice in self.space.choices}
        return [np.array([known[choice.name].index(v) for v in choice.values]) for choice in space.choices]


class Reader(Protocol):
    """Reads a table from the directory of its files; a function with this signature."""

    def __call__(self, directory: Path) -> TruthTable:
        """See `read_table`."""
        ...


TABLES: Registry[Reader] = Registry("truth table", "experiments.truth_tables")


def read_table(name: str, directory: str | os.PathLike[str] | None = None) -> TruthTable:
    """Reads a registered table.

    Args:
        name: Name of the table.
        directory: Directory of its files; by default that of its name below `$SUPERNEST_DATA`.

    Raises:
        UserError: An unknown table, no directory, or files that are missing or damaged.
    """
    reader = TABLES[name]
    if directory is None:
        if PLACE not in os.environ:
            raise UserError(
                f"table {name}: no directory of its files is named. Name it, or set {PLACE} to the directory above it."
            )
        directory = Path(os.environ[PLACE]) / name
    path = Path(directory)
    if not path.is_dir():
        raise UserError(f"table {name}: {path} is no directory. Name the one that holds the table's files.")
    return reader(path)
