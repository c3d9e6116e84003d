"""Tables of what every network of a published space reaches when it is trained on its own; one reader a file."""

from experiments.truth_tables.table import TABLES, TruthTable, read_table

__all__ = ["TABLES", "TruthTable", "read_table"]
