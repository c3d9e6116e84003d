"""Evaluation of many candidates: one dispatch for a whole split or a part of it, batched by compiled program."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from search_spaces import Program
from search_spaces.randomness import Purpose, stream
from supernet.labels import output_losses
from supernet.supernet import Params, Statistics, Supernet

_CAPACITY = 64


class Scores(NamedTuple):
    """Per candidate, over all outputs with a label (images, or tokens): share of right ones, and mean cross-entropy.

    A candidate whose loss is not finite has failed, and so has no accuracy: its likeliest classes mean nothing.
    """

    accuracy: Float[np.ndarray, " p"]
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
        x: What the network takes: normalised images, float32[n, h, w, c], or tokens, int32[n, t].
        labels: Class of each output, int[n] or int[n, t]; those with a negative one count for nothing.
        batch_size: Examples a forward pass.
        calibration: Training inputs like `x`, in batches.
    """

    def __init__(
        self,
        net: Supernet,
        x: Shaped[np.ndarray, "n ..."],
        labels: Int[np.ndarray, "n *t"],
        batch_size: int,
        calibration: Shaped[np.ndarray, "k b ..."],
    ) -> None:
        self.net = net
        self.examples = len(x)
        batch_size = min(batch_size, len(x))
        batches = -(-len(x) // batch_size)
        rows = np.arange(batches * batch_size)
        shuffled = stream(0, Purpose.EVALUATION_ORDER).permutation(len(x))[rows % len(x)]
        self._x = jnp.asarray(x[shuffled].reshape(batches, batch_size, *x.shape[1:]))
        kept = labels[shuffled]
        kept[len(x) :] = -1
        kept = kept.reshape(batches, batch_size, *labels.shape[1:])
        self._outputs = np.cumsum((kept >= 0).reshape(batches, -1).sum(axis=1))
        self._labels = jnp.asarray(kept, jnp.int32)
        self.calibration = jnp.asarray(calibration)
        self.program = jax.jit(self._scores, static_argnames="program")

    @property
    def batches(self) -> tuple[jax.Array, jax.Array]:
        """The split as it is evaluated, in batches: inputs, and labels, -1 for what only fills a batch."""
        return self._x, self._labels

    @property
    def programs_compiled(self) -> int:
        """How many programs have been compiled."""
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
        correct, loss = np.zeros(len(genes), np.int64), np.zeros(len(genes), np.float64)
        groups: dict[Program, list[int]] = {}
        for i, row in enumerate(genes):
            groups.setdefault(self.net.space.program(row), []).append(i)
        for program, members in groups.items():
            for start in range(0, len(members), _CAPACITY):
                part = np.array(members[start : start + _CAPACITY])
                padded = np.zeros((_CAPACITY, genes.shape[1]), np.int32)
                padded[: len(part)] = genes[part]
                right, total = self.program(
                    params, padded, len(part), batches, self._x, self._labels, self.calibration, program=program
                )
                correct[part], loss[part] = np.asarray(right)[: len(part)], np.asarray(total)[: len(part)]
        outputs = max(self._outputs[batches - 1], 1)
        failed = ~np.isfinite(loss)
        return Scores(np.where(failed, np.nan, correct / outputs), np.where(failed, np.nan, loss / outputs))

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
        def candidate(i: jax.Array, totals: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            statistics = calibrate(self.net, params, genes[i], calibration, program)

            def batch(j: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
                expected = labels[j]
                logits, _ = self.net.apply(params, genes[i], x[j], program=program, statistics=statistics)
                there = expected >= 0
                right = jnp.sum((jnp.argmax(logits, -1) == expected) & there)
                return sums[0] + right, sums[1] + jnp.sum(output_losses(logits, expected) * there)

            # How many batches is data, so that a part of the split needs no program of its own.
            right, loss = jax.lax.fori_loop(0, batches, batch, (jnp.zeros((), jnp.int32), jnp.zeros(())))
            return totals[0].at[i].set(right), totals[1].at[i].set(loss)

        return jax.lax.fori_loop(0, count, candidate, (jnp.zeros(len(genes), jnp.int32), jnp.zeros(len(genes))))


def calibrate(
    net: Supernet, params: Params, genes: jax.Array, batches: jax.Array, program: Program
) -> Statistics | None:
    """Batch statistics of one subnet: the mean over `batches` of inputs; None for families without any."""

    def collect(x: jax.Array) -> Statistics:
        return net.apply(params, genes, x, program=program, collect=True)[1]

    shapes = jax.eval_shape(collect, batches[0])
    if not jax.tree.leaves(shapes):
        return None
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    totals, _ = jax.lax.scan(lambda sums, x: (jax.tree.map(jnp.add, sums, collect(x)), None), zeros, batches)
    return jax.tree.map(lambda total: total / len(batches), totals)
