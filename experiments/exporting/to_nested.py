"""Exported subnets of a run as residual blocks, `RUN/nested/NAME`: one directory that is read up to any size.

Blocks are sorted as in BitStack: those of a level come before those of the next, and within a level by what they are
worth, measured on training examples with all blocks of the levels before.

References:
    Wang et al., "BitStack: Any-Size Compression of Large Language Models in Variable Memory Environments", 2024,
    arXiv:2410.23918.
Differs: worth is the fall of the loss a byte, as the weights of our networks differ in size.
"""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.data import Dataset
from experiments.exporting.conversion import Source, convert_exports
from experiments.objective import objective_of
from experiments.records import ConvertedNetwork
from search_spaces import UserError
from supernet.export.nested import in_blocks, matrix_shape, write_nested
from supernet.export.subnet import ARCHITECTURE, CONFIG, TOKENIZER, Subnet, flatten, unflatten
from supernet.weights.residual_blocks import Block, decomposed, packed_bytes

_CALIBRATION, _BATCH = 256, 256  # training examples that blocks are sorted by; validation examples at a time
BITS = 8
"""Default number of blocks of a weight."""


def export_nested(run: Path, names: Sequence[str] = (), bits: int = BITS) -> list[ConvertedNetwork]:
    """Writes subnets of a run as residual blocks.

    Args:
        run: The run directory, with exported subnets.
        names: Names of the subnets; all of them when empty.
        bits: Blocks of each weight, of a bit a weight and some more.

    Returns:
        The networks in blocks; `sizes` of a report has bytes and validation figure of each number of whole levels, and
        `float32_parity_error` is of the network before it is cut into blocks.

    Raises:
        UserError: There is no such subnet, the code of its family is not here, its outputs are not the supernet's, it
            would be larger than in float32, or it was written before. Those before it are there.
    """
    return convert_exports(run, names, lambda name: run / "nested" / name, partial(_converted, bits=bits))


class Judge:
    """Losses and figures of a network with other weights; compiled once.

    Args:
        subnet: The network.
        data: Its data.
        where: Its directory, for messages.

    Raises:
        UserError: The code of its family is not here.
    """

    def __init__(self, subnet: Subnet, data: Dataset, where: Path) -> None:
        module, outputs = subnet.module, data.outputs
        if module is None:
            raise UserError(f"{where}: the code of its family is not here. Give --plugin.")
        graph, state = nnx.split(module)

        @jax.jit
        def logits(weights: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
            filled = jax.tree.map(lambda leaf: leaf, state)
            nnx.replace_by_pure_dict(filled, unflatten(weights))
            return nnx.merge(graph, filled)(subnet.preprocessing(x))

        @jax.jit
        def loss(weights: Mapping[str, jax.Array], x: jax.Array, targets: jax.Array) -> jax.Array:
            there = outputs.counted(targets)
            losses = jnp.where(there, outputs.losses(logits(weights, x), targets), 0)
            return jnp.sum(losses) / jnp.maximum(jnp.sum(there), 1)

        rows = np.arange(min(_CALIBRATION, len(data.train)))
        x, labels = data.train.read(rows)
        self._x, self._targets = jnp.asarray(x), jnp.asarray(outputs.encode(labels))
        self._loss, self._logits, self._subnet, self._data = loss, logits, subnet, data

    def loss(self, weights: Mapping[str, np.ndarray]) -> float:
        """Returns the mean loss on the training examples that blocks are sorted by."""
        return float(self._loss(weights, self._x, self._targets))

    def figure(self, weights: Mapping[str, np.ndarray]) -> float | None:
        """Returns the figure that people read on the validation split, None where outputs are not finite."""
        subnet, split = self._subnet, self._data.validation
        measures = subnet.outputs.measures(tuple(subnet.config["labels"]))
        for start in range(0, len(split), _BATCH):
            x, labels = split.read(np.arange(start, min(start + _BATCH, len(split))))
            served = subnet.outputs.serve(np.asarray(self._logits(weights, jnp.asarray(x))))
            if not np.isfinite(served).all():
                return None
            measures.add(served, labels)
        return float(measures.figures()[objective_of(self._data).shown])


def nested_blocks(
    arrays: Mapping[str, np.ndarray], bits: int, judge: Judge
) -> tuple[list[tuple[str, int, Block]], list[float | None]]:
    """Decomposes weights into blocks and sorts them.

    Args:
        arrays: Weights of a network by dotted name.
        bits: Blocks of each weight.
        judge: Measures the network with other weights.

    Returns:
        Name of the weight, level and block, in order; and the validation figure with each number of whole levels.
    """
    shapes = {name: matrix_shape(leaf.shape) for name, leaf in sorted(arrays.items()) if in_blocks(leaf)}
    parts = {name: list(decomposed(arrays[name].reshape(shape), bits)) for name, shape in shapes.items()}
    order: list[tuple[str, int, Block]] = []
    figures: list[float | None] = []
    known = {name: np.zeros_like(leaf) if name in parts else leaf for name, leaf in arrays.items()}
    for level in range(bits):
        more = {name: known[name] + parts[name][level].values.reshape(arrays[name].shape) for name in parts}
        # Without the first blocks there is no network, so that they are worth alike.
        names = _by_worth(known, more, shapes, judge) if level else list(parts)
        order += [(name, level, parts[name][level]) for name in names]
        known = {**known, **more}
        figures.append(judge.figure(known))
    return order, figures


def _by_worth(
    known: Mapping[str, np.ndarray], more: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, int]], judge: Judge
) -> list[str]:
    """Names of weights, the one first whose next block lowers the loss most for its bytes."""
    before = judge.loss(known)
    worth = {
        name: (before - judge.loss({**known, name: leaf})) / packed_bytes(*shapes[name]) for name, leaf in more.items()
    }
    return sorted(worth, key=lambda name: -worth[name])


def _converted(source: Source, directory: Path, bits: int) -> Mapping[str, Any]:
    arrays = {name: np.asarray(leaf) for name, leaf in flatten(source.subnet.weights).items()}
    if not any(map(in_blocks, arrays.values())):
        raise UserError(f"{source.directory}: has no weight that is large enough for residual blocks.")
    _check_smaller(source.directory, arrays, bits)
    judge = Judge(source.subnet, source.data, source.directory)
    difference = source.prove(source.subnet.predict(source.examples), "the exported network")
    shown = objective_of(source.data).shown
    blocks, figures = nested_blocks(arrays, bits, judge)
    index = write_nested(directory, arrays, blocks)
    for name in (CONFIG, ARCHITECTURE):
        shutil.copyfile(source.directory / name, directory / name)
    if (source.directory / TOKENIZER).is_dir():
        shutil.copytree(source.directory / TOKENIZER, directory / TOKENIZER)
    whole = index.sizes[:: len(index.shapes)]
    return {
        "float32_bytes": sum(leaf.nbytes for leaf in arrays.values()),
        "float32": {shown: judge.figure(arrays)},
        "float32_parity_error": difference,
        "sizes": [
            {"levels": levels, "bytes": size, shown: value}
            for levels, (size, value) in enumerate(zip(whole, figures, strict=True), 1)
        ],
        "blocks": len(blocks),
        "versions": {},
    }


def _check_smaller(where: Path, arrays: Mapping[str, np.ndarray], bits: int) -> None:
    """Refuses more blocks than fit into the bytes of the weights in float32."""
    cut = [leaf for leaf in arrays.values() if in_blocks(leaf)]
    level, whole = sum(packed_bytes(*matrix_shape(leaf.shape)) for leaf in cut), sum(leaf.nbytes for leaf in cut)
    if bits * level > whole:
        raise UserError(
            f"bits: {bits} blocks of each weight of {where} take {bits * level:,} bytes, more than its {whole:,} in "
            f"float32. Give at most {whole // level}."
        )
