"""Evaluation of many candidates: one dispatch for a whole split or a part of it, batched by compiled program."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from search_spaces import Program
from search_spaces.randomness import Purpose, stream
from supernet.engine.supernet import Params, Statistics, Supernet
from supernet.tasks.classes import CLASSES
from supernet.tasks.outputs import Outputs

_CAPACITY = 64


class Scores(NamedTuple):
    """Per candidate, over all outputs with a label: the figure of the outputs (accuracy of classes), and the mean loss.

    A candidate whose loss is not finite has failed, and so has no figure: its likeliest classes mean nothing.
    """

    figure: Float[np.ndarray, " p"]
    loss: Float[np.ndarray, " p"]

    @property
    def failed(self) -> Bool[np.ndarray, " p"]:
        """Candidates that have failed; wherever candidates are compared, these come last or are left out."""
        return ~np.isfinite(self.loss)

    @property
    def perplexity(self) -> Float[np.ndarray, " p"]:
        """Among how many equally likely tokens the choice would be as hard."""
        return np.exp(self.loss)


class Evaluator:
    """Scores subnets with inherited weights on one split, held on the device.

    A family with batch statistics has them recalibrated for every candidate: the cumulative average of the means and
    variances of `calibration` batches (as in Yu, Huang 2019, arXiv:1903.05134), so no subnet is ever judged by
    statistics of another.

    The examples are shuffled once, so that the first batches are a fair part of a split that is sorted by class.

    Args:
        net: The supernet.
        x: Input of the network: normalised images, float32[n, h, w, c], tokens, int32[n, t], or other arrays.
        labels: Targets (`Outputs.encode`), such as the class of each output, int[n] or int[n, t]; outputs without a
            label count for nothing.
        batch_size: Examples a forward pass.
        calibration: Training inputs like `x`, in batches.
        outputs: Meaning of the network's outputs.
    """

    def __init__(
        self,
        net: Supernet,
        x: Shaped[np.ndarray, "n ..."],
        labels: Shaped[np.ndarray, "n ..."],
        batch_size: int,
        calibration: Shaped[np.ndarray, "k b ..."],
        outputs: Outputs = CLASSES,
    ) -> None:
        self.net = net
        self.outputs = outputs
        self.examples = len(x)
        batch_size = min(batch_size, len(x))
        batches = -(-len(x) // batch_size)
        rows = np.arange(batches * batch_size)
        shuffled = stream(0, Purpose.EVALUATION_ORDER).permutation(len(x))[rows % len(x)]
        self._x = jnp.asarray(x[shuffled].reshape(batches, batch_size, *x.shape[1:]))
        kept = labels[shuffled]
        kept[len(x) :] = outputs.missing
        kept = kept.reshape(batches, batch_size, *labels.shape[1:])
        self._labels = jnp.asarray(kept)
        counted = np.stack([np.asarray(outputs.counted(part)) for part in self._labels])
        self._counts = np.cumsum(counted.reshape(batches, -1).sum(axis=1))
        self.calibration = jnp.asarray(calibration)
        self.program = jax.jit(self._scores, static_argnames="program")

    @property
    def batches(self) -> tuple[Shaped[Array, "n b ..."], Shaped[Array, "n b ..."]]:
        """The split as it is evaluated, in batches: inputs, and targets, those of none for what only fills a batch."""
        return self._x, self._labels

    @property
    def programs_compiled(self) -> int:
        """Number of programs that have been compiled."""
        return self.program._cache_size()  # type: ignore[attr-defined]

    def __call__(self, params: Params, genes: Int[np.ndarray, "p g"], fraction: float = 1.0) -> Scores:
        """Scores of `genes`, in their order; both figures are NaN for those that have failed.

        Args:
            params: The supernet's.
            genes: The subnets.
            fraction: Share of the split, above 0, rounded up to whole batches; a larger part holds the smaller ones.
        """
        # Rounding errors of a share such as 3 * 0.1 must not add a batch.
        batches = max(1, math.ceil(fraction * len(self._x) - 1e-9))
        figure, loss = np.zeros((2, len(genes)), np.float64)
        groups: dict[Program, list[int]] = {}
        for i, row in enumerate(genes):
            groups.setdefault(self.net.space.program(row), []).append(i)
        for program, members in groups.items():
            for start in range(0, len(members), _CAPACITY):
                part = np.array(members[start : start + _CAPACITY])
                padded = np.zeros((_CAPACITY, genes.shape[1]), np.int32)
                padded[: len(part)] = genes[part]
                of_figure, total = self.program(
                    params, padded, len(part), batches, self._x, self._labels, self.calibration, program=program
                )
                figure[part], loss[part] = np.asarray(of_figure)[: len(part)], np.asarray(total)[: len(part)]
        count = max(self._counts[batches - 1], 1)
        failed = ~np.isfinite(loss)
        figure = self.outputs.figure_of(np.where(failed, np.nan, figure / count))
        return Scores(figure, np.where(failed, np.nan, loss / count))

    def _scores(
        self,
        params: Params,
        genes: jax.Array,
        count: jax.Array,
        batches: jax.Array,
        x: jax.Array,
        labels: jax.Array,
        calibration: jax.Array,
        program: Program,
    ) -> tuple[jax.Array, jax.Array]:
        outputs, net = self.outputs, self.net.of_effective_weights

        def candidate(i: jax.Array, totals: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            weights = self.net.sharing.effective(params, genes[i])
            statistics = calibrate(net, weights, genes[i], calibration, program)

            def batch(j: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
                expected = labels[j]
                logits, _ = net.apply(weights, genes[i], x[j], program=program, statistics=statistics)
                there = outputs.counted(expected)
                figure = jnp.sum(jnp.where(there, outputs.figures(logits, expected), 0), dtype=outputs.figure_dtype)
                return sums[0] + figure, sums[1] + jnp.sum(jnp.where(there, outputs.losses(logits, expected), 0))

            # How many batches is data, so that a part of the split needs no program of its own.
            start = jnp.zeros((), outputs.figure_dtype), jnp.zeros(())
            figure, loss = jax.lax.fori_loop(0, batches, batch, start)
            return totals[0].at[i].set(figure), totals[1].at[i].set(loss)

        start = jnp.zeros(len(genes), outputs.figure_dtype), jnp.zeros(len(genes))
        return jax.lax.fori_loop(0, count, candidate, start)


def calibrate(
    net: Supernet, params: Params, genes: Int[Array, " g"], batches: Shaped[Array, "k b ..."], program: Program
) -> Statistics | None:
    """Computes the batch statistics of one subnet, the mean over `batches`; None for families without any."""

    # Compiled, as it is then traced once for its shapes and for the loop.
    @partial(jax.jit, inline=True)
    def collect(params: Params, genes: jax.Array, x: jax.Array) -> Statistics:
        return net.apply(params, genes, x, program=program, collect=True)[1]

    shapes = jax.eval_shape(collect, params, genes, jax.ShapeDtypeStruct(batches.shape[1:], batches.dtype))
    if not jax.tree.leaves(shapes):
        return None
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(sums: Statistics, x: jax.Array) -> tuple[Statistics, None]:
        return jax.tree.map(jnp.add, sums, collect(params, genes, x)), None

    totals, _ = jax.lax.scan(add, zeros, batches)
    return jax.tree.map(lambda total: total / len(batches), totals)
