"""Directory of the real data sets that benchmarks read."""

import os
from pathlib import Path

import click

from experiments.truth_tables.table import PLACE


def real_data(directory: Path | None) -> Path:
    """Returns the given directory, or the one that the environment variable names.

    Raises:
        UsageError: Neither is given.
    """
    if directory is None and PLACE not in os.environ:
        raise click.UsageError(f"--directory: not given, and {PLACE} is not set. Name the directory of the data.")
    return directory or Path(os.environ[PLACE])
