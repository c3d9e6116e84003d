"""Compares residual blocks with rounding to nearest, at equal bytes, for the networks of a run.

Command: `python -m experiments.benchmarks.nested RUN --json`

Both keep the same small weights in float32. Rounding uses a float16 scale for each column of a weight: its largest
magnitude over the largest integer of the type. For each number of bits, as many blocks are read as fit into the bytes
of the rounded network. Figures are those of the validation split. One directory of blocks provides all of these sizes.
"""

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from experiments.benchmarks.output import Benchmark, show
from experiments.commands.options import json_option
from experiments.configuration.experiment_config import load_config
from experiments.exporting.names import exported_names
from experiments.exporting.to_nested import Judge, nested_blocks
from experiments.objective import objective_of
from experiments.subnets.loading import load_exported
from search_spaces.sealed_json import JsonObject
from supernet.export.nested import Index, in_blocks, matrix_shape, read_blocks, write_nested
from supernet.export.subnet import flatten

_ROUNDED = (2, 3, 4, 5, 6, 8)


@click.command(cls=Benchmark)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--bits",
    default=12,
    show_default=True,
    type=click.IntRange(1, 24),
    help="Number of residual blocks of each weight.",
)
@json_option
def main(run: Path, bits: int, as_json: bool) -> None:
    """Compares both for every exported network of RUN."""
    config = load_config(run / "config.yaml")
    data = config.data.load(config.seed)
    found = {name: compared(run / "subnets" / name, data, bits) for name in exported_names(run, ())}
    show(found, as_json)


def compared(directory: Path, data: Any, bits: int) -> JsonObject:
    """Measures one network in `float32` and, for each number of bits, the bytes of rounding and the figures of both."""
    subnet = load_exported(directory)
    judge, shown = Judge(subnet, data.for_network("data", subnet), directory), objective_of(data).shown
    arrays = {name: np.asarray(leaf) for name, leaf in flatten(subnet.weights).items()}
    whole = sum(leaf.nbytes for leaf in arrays.values())
    found: dict[str, JsonObject] = {"float32": {"bytes": whole, shown: judge.figure(arrays)}}
    with tempfile.TemporaryDirectory() as home:
        index = write_nested(Path(home), arrays, nested_blocks(arrays, bits, judge)[0])
        for number in _ROUNDED:
            size = index.plain_bytes + sum(rounded_bytes(index.shapes[name], number) for name in index.shapes)
            if size < index.sizes[0]:
                continue
            count = index.count(size, Path(home))
            nested = read_blocks(Path(home), index, count)
            rounded = {name: _rounded(leaf, number) if in_blocks(leaf) else leaf for name, leaf in arrays.items()}
            found[f"{number} bits"] = {
                "bytes": size,
                "bytes read of blocks": _read(index, count),
                f"{shown}, rounded": judge.figure(rounded),
                f"{shown}, blocks": judge.figure(nested),
                "distance, rounded": _distance(arrays, rounded),
                "distance, blocks": _distance(arrays, nested),
            }
    return found


def rounded_bytes(shape: tuple[int, ...], bits: int) -> int:
    """Returns the bytes of a rounded weight with a float16 scale for each column."""
    rows, columns = matrix_shape(shape)
    return -(-rows * columns * bits // 8) + 2 * columns


def _rounded(leaf: np.ndarray, bits: int) -> np.ndarray:
    matrix, most = leaf.reshape(matrix_shape(leaf.shape)), 2 ** (bits - 1) - 1
    scale = np.maximum(np.abs(matrix).max(axis=0) / most, 1e-7).astype(np.float16).astype(np.float32)
    return (np.clip(np.round(matrix / scale), -most - 1, most) * scale).reshape(leaf.shape).astype(np.float32)


def _read(index: Index, count: int) -> int:
    return index.plain_bytes + sum(index.bytes_of(entry) for entry in index.blocks[:count])


def _distance(arrays: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> float:
    """Returns the norm of the difference of the weights over the norm of the weights that are in blocks."""
    own = sum(float(np.sum(leaf.astype(np.float64) ** 2)) for leaf in arrays.values() if in_blocks(leaf))
    gone = sum(float(np.sum((leaf - others[name]).astype(np.float64) ** 2)) for name, leaf in arrays.items())
    return round((gone / own) ** 0.5, 4)


if __name__ == "__main__":
    main()
