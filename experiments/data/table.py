"""Source `table`: the rows of a CSV or Parquet file, one or several columns of which are to be predicted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.array_source import ArraySource, Labels, Part, Parts
from experiments.data.columns import CSV, PARQUET, Columns, ending, read_columns
from experiments.data.source import SOURCES, own_validation
from search_spaces.errors import UserError, did_you_mean

_MANY = 20
"""Of more different whole numbers it is not plain whether they are classes."""

_TEMPLATE = """\
data:
  source: table
  path: table.csv          # .csv, .tsv or .parquet, the first line names the columns; or a directory with train.csv
  target: price            # the column to predict, or a list of columns of numbers
  # labels: numbers        # or classes, where a column of whole numbers could be either
  # drop: [id]             # columns that are not learned from
  validation_fraction: 0.2 # held out from training; search compares subnets on it
"""


@SOURCES.register("table")
@dataclass(frozen=True)
class Table(ArraySource):
    """Rows of a table: CSV (.csv, .tsv, also .gz or .xz; the first line names the columns), or Parquet.

    A column of texts is classes, one of fractions is numbers to predict. In a directory that holds `train.csv`, the
    files `validation.csv` (or `valid`, `val`, `dev`) and `test.csv` are the splits.

    Args:
        path: File, or directory that holds `train.csv`.
        target: Name of the column to predict, or of several columns of numbers.
        labels: Meaning of the target: `classes` or `numbers`; null infers it from the column.
        drop: Names of columns that are not inputs.
        test_fraction: Share of the rows for the test split, if there is no test file; in (0, 1).
    """

    template = _TEMPLATE

    path: str
    target: str | tuple[str, ...]
    labels: Labels | None = None
    drop: tuple[str, ...] = ()
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise UserError(f"data.target: {self.target!r} names no column, or one twice. Name a column of the table.")
        if len(self.targets) > 1 and self.labels == "classes":
            raise UserError("data.labels: classes, but data.target names several columns. Name one, or set numbers.")

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return (self.target,) if isinstance(self.target, str) else self.target

    def read(self) -> Parts:
        """See `ArraySource.read`."""
        files, notes = self._files(Path(self.path))
        tables = {split: read_columns(path) for split, path in files.items()}
        train = tables["train"]
        for name in (*self.targets, *self.drop):
            if name not in train.values:
                setting = "target" if name in self.targets else "drop"
                raise UserError(
                    f"data.{setting}: {train.path} has no column {name!r}.{did_you_mean(name, train.values)}"
                )
        features = tuple(name for name in train.values if name not in (*self.targets, *self.drop))
        if not features:
            raise UserError(f"{train.path}: no column is left to learn from. Give more columns, or drop fewer.")
        splits = {split: self._part(table, features) for split, table in tables.items()}
        return Parts(self.path, splits, features, self.targets, notes=notes)

    def _part(self, table: Columns, features: tuple[str, ...]) -> Part:
        x = np.stack([table.numbers(name) for name in features], axis=1)
        if len(self.targets) > 1 or self.labels == "numbers":
            y = np.stack([table.numbers(name) for name in self.targets], axis=1)
            return Part(str(table.path), x, y)
        name = next(iter(self.targets))
        y = table.labels(name)
        if self.labels is None and y.dtype.kind in "iu" and (count := len(np.unique(y))) > _MANY:
            raise UserError(
                f"{table.path}: column {name!r} holds {count} different whole numbers, which may be classes or numbers"
                ". Set data.labels to one of the two."
            )
        return Part(str(table.path), x, y)

    def _files(self, path: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
        """The file of each split, and what to say of others."""
        if not path.is_dir():
            return {"train": path}, ()
        found: dict[str, Path] = {}
        for file in sorted(path.iterdir()):
            if ending(file) not in (*CSV, *PARQUET) or not file.is_file():
                continue
            stem = file.name.split(".")[0].lower()
            if stem in found:
                raise UserError(f"{path}: {found[stem].name} and {file.name} both are {stem}. Keep one.")
            found[stem] = file
        if "train" not in found:
            raise UserError(f"{path}: holds no train.csv or train.parquet. Name the file, or give one of these names.")
        own = own_validation(str(path), found)
        names = {"train": "train", "test": "test", **({"validation": own} if own else {})}
        unused = [file.name for stem, file in found.items() if stem not in names.values()]
        note = f"{path}: {', '.join(map(repr, unused[:5]))} not used; train, validation and test are the splits."
        return {split: found[name] for split, name in names.items() if name in found}, (note,) if unused else ()
