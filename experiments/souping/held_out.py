"""Held-out error: networks in the supernet's coordinates on the validation split, with given batch statistics."""

from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.experiment import Experiment
from experiments.objective import Objective, objective_of
from search_spaces import Architecture, Program
from supernet.engine.supernet import Params, Statistics
from supernet.training.evaluation import Scores, calibrate


class HeldOut:
    """Measures networks on the validation split; a program for each shape of the residual stream.

    Args:
        experiment: Its data, supernet and calibration batches. The test split is not read.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._net, self._outputs = experiment.net, experiment.data.outputs
        self._x, self._targets = experiment.evaluator.batches
        self._calibration = experiment.evaluator.calibration
        self.objective: Objective = objective_of(experiment.data)
        self._program = jax.jit(self._sums, static_argnames="program")
        self._calibrated = jax.jit(partial(calibrate, self._net), static_argnames="program")

    @cached_property
    def _count(self) -> int:
        return sum(int(np.asarray(self._outputs.counted(part)).sum()) for part in self._targets)

    def statistics(self, params: Params, architecture: Architecture) -> Statistics | None:
        """Returns batch statistics of a network, calibrated anew on training examples; None for families without."""
        genes = np.array(architecture.genes, np.int32)
        return self._calibrated(params, jnp.asarray(genes), self._calibration, program=self._net.space.program(genes))

    def error(self, params: Params, architecture: Architecture, statistics: Statistics | None) -> float:
        """Returns the objective of a network, which is better the lower it is; NaN where it has failed.

        Args:
            params: Weights in the supernet's coordinates.
            architecture: Architecture of the network.
            statistics: Batch statistics; None for families without any.
        """
        genes = np.array(architecture.genes, np.int32)
        sums = self._program(
            params, jnp.asarray(genes), statistics, self._x, self._targets, program=self._net.space.program(genes)
        )
        figure, loss = (np.array([float(total) / max(self._count, 1)]) for total in sums)
        return float(self.objective.of(Scores(np.asarray(self._outputs.figure_of(figure)), loss))[0])

    def _sums(
        self,
        params: Params,
        genes: jax.Array,
        statistics: Statistics | None,
        x: jax.Array,
        targets: jax.Array,
        program: Program,
    ) -> tuple[jax.Array, jax.Array]:
        """Sums of figure and loss over all outputs with a label."""
        outputs = self._outputs

        def add(sums: tuple[jax.Array, jax.Array], batch: tuple[jax.Array, jax.Array]):
            inputs, expected = batch
            logits, _ = self._net.apply(params, genes, inputs, program=program, statistics=statistics)
            there = outputs.counted(expected)
            figure = jnp.sum(jnp.where(there, outputs.figures(logits, expected), 0), dtype=outputs.figure_dtype)
            return (sums[0] + figure, sums[1] + jnp.sum(jnp.where(there, outputs.losses(logits, expected), 0))), None

        start = jnp.zeros((), outputs.figure_dtype), jnp.zeros(())
        return jax.lax.scan(add, start, (x, targets))[0]
