"""Columns of CSV and Parquet files: numbers or texts by name, and where each value stands."""

import csv
import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.files import COMPRESSED, read_bytes
from search_spaces.errors import UserError, did_you_mean

CSV, PARQUET = (".csv", ".tsv"), (".parquet",)
_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a file.

    Args:
        path: The file.
        values: Column to texts (as in a CSV), float64[n], or whole numbers; None stands for a missing text.
        lines: Name of each row in messages: the line of a file, or `row 0`, counted from 0.
    """

    path: Path
    values: Mapping[str, Any]
    lines: Sequence[str]

    def raw(self, name: str) -> Any:
        """Returns a column as it is stored.

        Raises:
            UserError: There is no such column, or a value is missing.
        """
        if name not in self.values:
            raise UserError(f"{self.path}: no column {name!r}.{did_you_mean(name, self.values)}")
        values = self.values[name]
        if isinstance(values, np.ndarray):
            missing = np.flatnonzero(~np.isfinite(values.astype(np.float64)))
            row = int(missing[0]) if len(missing) else None
        else:
            row = next((i for i, one in enumerate(values) if one is None or one.strip().lower() in _MISSING), None)
        if row is not None:
            raise UserError(
                f"{self.path}: {self.lines[row]}: column {name!r} is missing. Fill it in, or leave the row out."
            )
        return values

    def numbers(self, name: str) -> np.ndarray:
        """Returns a column as float64[n].

        Raises:
            UserError: `raw` raises it, or a value is not a number.
        """
        values = self.raw(name)
        if isinstance(values, np.ndarray):
            return values.astype(np.float64)
        try:
            return np.array([float(one) for one in values], np.float64)
        except ValueError:
            row = next(i for i, one in enumerate(values) if not _is_number(one))
            raise UserError(
                f"{self.path}: {self.lines[row]}: column {name!r} holds {values[row]!r}, no number. Write it as "
                f"numbers, such as a column of 0 and 1 for each value, or leave it out: data.drop: [{name}]"
            ) from None

    def labels(self, name: str) -> np.ndarray:
        """Returns a column as whole numbers, float64, or texts, whichever its values are."""
        values = self.raw(name)
        if not isinstance(values, np.ndarray):
            if not all(map(_is_number, values)):
                return np.array([one.strip() for one in values])
            values = self.numbers(name)
        whole = values.dtype.kind == "f" and np.all(values == np.rint(values)) and np.abs(values).max() < 2**53
        return values.astype(np.int64) if whole or values.dtype.kind == "b" else values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def ending(path: Path) -> str:
    """Returns the suffix of a file name in lower case, without that of its compression."""
    return (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix.lower()


def read_columns(path: Path) -> Columns:
    """Returns the columns of a file, by its ending.

    Raises:
        UserError: The file cannot be read, has no rows or names, or a library is missing.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. Set data.path to a table: {', '.join((*CSV, *PARQUET))}.")
    return _parquet(path) if ending(path) in PARQUET else read_csv(path)


def read_csv(path: Path, names: Sequence[str] = (), quoted: bool = True) -> Columns:
    """Returns the columns of a CSV file, which tabs separate where it ends in .tsv.

    Args:
        path: The file.
        names: Names of the columns, where its first line does not give them.
        quoted: Whether quotes enclose values; otherwise they are characters like others.

    Raises:
        UserError: The file cannot be read, has no rows or names, or a row of another length.
    """
    try:
        text = read_bytes(path).tobytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no UTF-8 at byte {error.start}. Convert the file to UTF-8.") from None
    rows, lines = [], []
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if ending(path) == ".tsv" else ",", strict=True,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )  # fmt: skip
    try:
        names = list(names) or [name.strip() for name in next(reader, [])]
        for row in reader:
            if not row:
                continue  # an empty line
            if len(row) != len(names):
                raise UserError(
                    f"{path}: line {reader.line_num}: {len(row)} values for {len(names)} named columns. Correct the "
                    "line."
                )
            rows.append(row)
            lines.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}. Correct the line.") from None
    _check_names(path, names)
    if not rows:
        raise UserError(f"{path}: holds no rows below its first line, which names the columns. Give some.")
    return Columns(path, dict(zip(names, zip(*rows, strict=True), strict=True)), lines)


def _check_names(path: Path, names: Sequence[str]) -> None:
    if not names:
        raise UserError(f"{path}: is empty. Give a table whose first line names its columns.")
    double = next((name for name in names if not name or names.count(name) > 1), None)
    if double is not None:
        what = f"names column {double!r} twice" if double else "has a column without a name"
        raise UserError(f"{path}: the first line {what}. Give each column a name of its own.")


def _parquet(path: Path) -> Columns:
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UserError(
            f"{path}: the library `pyarrow`, which reads Parquet, is not installed. Run: pip install "
            "'supernest[tables]', or give a .csv."
        ) from None
    try:
        table = parquet.read_table(str(path))
    except (arrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as Parquet ({reason}). Write it again.") from None
    _check_names(path, table.column_names)
    if not table.num_rows:
        raise UserError(f"{path}: holds no rows. Give some.")
    values = {name: _arrow_column(arrow, table.column(name)) for name in table.column_names}
    return Columns(path, values, [f"row {number}" for number in range(table.num_rows)])


def _arrow_column(arrow: Any, column: Any) -> Any:
    """Numbers as an array, NaN where they are missing; anything else as texts, None where they are."""
    kind = column.type
    numeric = arrow.types.is_floating(kind) or arrow.types.is_integer(kind) or arrow.types.is_decimal(kind)
    if column.null_count and (numeric or arrow.types.is_boolean(kind)):
        return np.array([np.nan if one is None else float(one) for one in column.to_pylist()], np.float64)
    if arrow.types.is_decimal(kind):
        return np.array([float(one) for one in column.to_pylist()], np.float64)
    if numeric or arrow.types.is_boolean(kind):
        return column.to_numpy()
    return [None if one is None else str(one) for one in column.to_pylist()]
