"""Reader of task `arrays`: rows of CSV and Parquet files, matched by column, and arrays of .npy and .npz files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.columns import CSV, PARQUET, ending, read_columns
from experiments.data.npy import read_npy
from experiments.data.npz import read_arrays
from experiments.prediction.reader import READERS, Part, Reader, UnreadableRequest, as_array
from search_spaces import UserError, did_you_mean
from supernet.tasks.arrays import Standardised

_ARRAY = "x"


@READERS.register("arrays")
@dataclass(frozen=True)
class Arrays(Reader):
    """Rows of tables whose columns have the names of the features, in any order, and arrays [n, ...]."""

    suffixes = (*CSV, *PARQUET, ".npy", ".npz")

    def read(self, files: Sequence[Path], batch_size: int) -> Iterator[Part]:
        """See `Reader.read`: a part a file."""
        for file in files:
            rows, x = self._table(file) if ending(file) in (*CSV, *PARQUET) else self._array(file)
            try:
                self.subnet.preprocessing.check(x, self.shape)
            except UserError as error:
                raise UserError(f"{file}: {error}") from None
            yield Part([{"file": str(file), "row": row} for row in rows], x)

    def from_json(self, given: list[Any]) -> np.ndarray:
        """See `Reader.from_json`: arrays, or objects that give each feature by its name."""
        if given and all(isinstance(row, Mapping) for row in given):
            given = [self._row(row) for row in given]
        x = as_array(given, np.float32, self.shape)
        if not np.isfinite(x).all():
            raise UnreadableRequest("examples: a number is not finite, or no float32. Give another.")
        return x

    @property
    def _features(self) -> tuple[str, ...]:
        assert isinstance(self.subnet.preprocessing, Standardised)
        return self.subnet.preprocessing.names

    def _row(self, row: Mapping[str, Any]) -> list[Any]:
        for name in self._features:
            if name not in row:
                raise UnreadableRequest(f"examples: no feature {name!r}.{did_you_mean(name, row)}")
        return [row[name] for name in self._features]

    def _table(self, file: Path) -> tuple[Sequence[str], np.ndarray]:
        if len(self.shape) > 1:
            shape = "x".join(map(str, self.shape))
            raise UserError(f"{file}: is a table, and the network takes arrays of {shape}. Give a .npy or .npz file.")
        table = read_columns(file)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused then
            return table.lines, np.stack([table.numbers(name) for name in self._features], axis=1).astype(np.float32)

    def _array(self, file: Path) -> tuple[Sequence[str], np.ndarray]:
        if file.suffix.lower() == ".npz":
            arrays = read_arrays(file)
            if _ARRAY not in arrays and len(arrays) != 1:
                raise UserError(
                    f"{file}: holds {', '.join(arrays) or 'no array'}. Name the array of examples {_ARRAY}."
                )
            x = arrays.get(_ARRAY, next(iter(arrays.values())))
        else:
            x = read_npy(file)
        if self.shape == (1,) and x.ndim == 1:
            x = x[:, None]
        if not x.ndim:
            raise UserError(f"{file}: holds a single number. Give an array of examples.")
        return [f"row {number}" for number in range(len(x))], x
