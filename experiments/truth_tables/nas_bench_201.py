"""The table of NAS-Bench-201: accuracies of all 15,625 cells after 12 and 200 epochs, on three data sets.

File `nb201_accuracy.csv.gz`: a row a cell, with its published string in `arch_str`; columns such as `c10_val_12ep` and
`c100_val_200ep` in percent.

References:
    Dong, Yang. NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search. ICLR 2020,
    arXiv:2001.00326.
"""

import csv
import gzip
import zlib
from pathlib import Path

import numpy as np

from experiments.truth_tables.table import TABLES, TruthTable
from search_spaces import Genes, UserError, build_space

FILE = "nb201_accuracy.csv.gz"
_PUBLISHED = {"none": 0, "skip_connect": 1, "nor_conv_1x1": 2, "nor_conv_3x3": 3, "avg_pool_3x3": 4}
_ACCURACIES = ("_12ep", "_200ep")


@TABLES.register("nas_bench_201")
def read(directory: Path) -> TruthTable:
    """Accuracies of NAS-Bench-201's cells after 12 and 200 epochs."""
    path = directory / FILE
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Name the directory that holds {FILE}.") from None
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}. Restore the file.") from None
    columns = [name for name in (rows[0] if rows else ()) if name and name.endswith(_ACCURACIES)]
    if "c10_val_200ep" not in columns or "arch_str" not in rows[0]:
        raise UserError(f"{path}: no column arch_str or c10_val_200ep. Restore the file.")
    genes = np.array([_genes(path, i, row["arch_str"]) for i, row in enumerate(rows)], np.int32)
    if len(np.unique(genes, axis=0)) < len(genes):
        raise UserError(f"{path}: a cell has two rows. Restore the file.")
    try:
        measures = {name: np.array([float(row[name] or "nan") for row in rows]) for name in columns}
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}. Restore the file.") from None
    space = build_space("nas_bench_201", "published")
    return TruthTable("nas_bench_201", space, genes, measures, "c10_val_200ep", ("c10_val_12ep", "12 epochs"))


def _genes(path: Path, row: int, text: str | None) -> Genes:
    """Genes of a published string, such as `|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|`."""
    edges = (text or "").strip("|").replace("|+|", "|").split("|")
    operations = [_PUBLISHED.get(edge.rpartition("~")[0]) for edge in edges]
    sources = [edge.rpartition("~")[2] for edge in edges]
    if None in operations or sources != ["0", "0", "1", "0", "1", "2"]:
        raise UserError(f"{path}: row {row + 2}: {text!r} is no cell of NAS-Bench-201. Restore the file.")
    return np.array(operations, np.int32)
