"""EvolutionStep: a training step without backpropagation, to be used as `TrainStep` is."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, Shaped

from search_spaces import Program, UserError
from supernet.engine.supernet import Params, Supernet
from supernet.evolution_strategy.fitness import finite_pairs, shaped
from supernet.evolution_strategy.population import Population
from supernet.evolution_strategy.settings import EvolutionStrategySettings
from supernet.evolution_strategy.used import used_entries
from supernet.tasks.labels import Targets
from supernet.tasks.outputs import Outputs
from supernet.training.step_results import PathResult, StepResult
from supernet.training.training import TrainState, TrainStep
from supernet.training.work import Work

_MASKS = 256
"""Paths whose used weights are remembered."""


class Examples(NamedTuple):
    """The examples of a step.

    Attributes:
        x: Input of the network.
        targets: Targets of the outputs.
        weights: Factor of each example.
    """

    x: Shaped[Array, "b ..."]
    targets: Targets
    weights: Float[np.ndarray, " b"]


class StepPaths(NamedTuple):
    """Paths of a step, on which its members are evaluated.

    Attributes:
        step: Its number.
        genes: Genes of its paths.
        weights: Factor of each path.
        shape: Shape of the inputs that a member sees.
    """

    step: int
    genes: Int[np.ndarray, "k g"]
    weights: Float[np.ndarray, " k"]
    shape: tuple[int, ...]


class Evaluated(NamedTuple):
    """All that the update of a step follows from, but for the state before it.

    Attributes:
        paths: Paths on which members were evaluated.
        fitness: Fitness of each path's members.
    """

    paths: StepPaths
    fitness: Float[np.ndarray, "k n"]


Evaluate = Callable[[TrainState, StepPaths, Examples], Float[np.ndarray, "k n"]]
"""Returns the fitness of each path's members, of the state before a step."""


class EvolutionStep:
    """Evaluates the population on each path of a step, and updates the weights by the fitness alone.

    Args:
        net: The supernet.
        settings: Settings of the strategy.
        optimizer: Descends along the negative of the estimated gradient of fitness.
        key: Key of all noise of a training.
        average_decay: Decay rate as in `TrainStep`.
        outputs: Meaning of the network's outputs.
        path_weights: Factor of each path, from genes; 1 when None. A penalty of costs is one.

    Attributes:
        evaluate: Evaluation of members: here, or elsewhere.
        left_out: Members that the last step left out, both of each pair that has a fitness that is not finite.
    """

    def __init__(
        self,
        net: Supernet,
        settings: EvolutionStrategySettings,
        optimizer: optax.GradientTransformation,
        key: Key[Array, ""],
        average_decay: float | None,
        outputs: Outputs,
        path_weights: Callable[[Int[np.ndarray, "k g"]], Float[np.ndarray, " k"]] | None = None,
    ) -> None:
        self.net, self.settings, self.outputs = net, settings, outputs
        self.population = Population(net, settings, outputs, key)
        self.evaluate: Evaluate = self.evaluate_here
        self.left_out = 0
        self._plain = TrainStep(net, optimizer, None, average_decay, False, outputs)
        self._figures_program = jax.jit(self._figures)
        self._path_weights = path_weights
        self._used = lru_cache(_MASKS)(lambda genes: used_entries(net, net.space.architecture(np.array(genes))))

    def init(self, params: Params) -> TrainState:
        """Returns the state before the first step."""
        return self._plain.init(params)

    def __call__(
        self,
        state: TrainState,
        genes: Int[np.ndarray, "k g"],
        roles: Sequence[str],
        weights: Float[np.ndarray, " k"],
        x: Shaped[Array, "b ..."],
        targets: Targets,
        example_weights: Float[np.ndarray, " b"] | None = None,
        teacher: Any = None,
        measure: bool = False,
        work: Work | None = None,
        announce: Callable[[Program], None] | None = None,
    ) -> tuple[TrainState, StepResult]:
        """One step; `state` is consumed. Arguments as those of `TrainStep`; there is no gradient to measure or divide.

        Returns:
            The state, and what the paths give without perturbation.

        Raises:
            UserError: A path whose own loss is finite has no pair of members with two finite fitnesses.
        """
        del roles, teacher, measure, work
        factors = np.ones(len(x), np.float32) if example_weights is None else example_weights
        shape = (len(x) // self.settings.groups, *x.shape[1:])
        paths = StepPaths(int(state.step), np.asarray(genes, np.int32), np.asarray(weights, np.float64), shape)
        if announce is not None:
            for row in paths.genes:
                announce(self.net.space.program(row))
        results = [self._result(state.params, row, x, targets, factors) for row in paths.genes]
        fitness = self.evaluate(state, paths, Examples(x, targets, factors))
        finite = finite_pairs(fitness)
        for row, result, pairs in zip(paths.genes, results, finite, strict=True):
            # Where the path's own loss is not finite, the caller is told by it that training diverged.
            if not pairs.any() and np.isfinite(float(result.loss)):
                raise self._nothing_finite(row, paths.step)
        self.left_out = 2 * int(np.count_nonzero(~finite))
        state, norm = self.advance(state, Evaluated(paths, fitness))
        return state, StepResult(results, norm, None)

    def _nothing_finite(self, genes: np.ndarray, step: int) -> UserError:
        return UserError(
            f"train.evolution_strategy.fitness: {self.settings.fitness} gives each pair of members of "
            f"{self.net.space.architecture(genes).description} a value that is not finite at step {step}, so that "
            "nothing can be learned. Lower train.evolution_strategy.sigma, or correct the function if it is your own."
        )

    def evaluate_here(self, state: TrainState, paths: StepPaths, examples: Examples) -> Float[np.ndarray, "k n"]:
        """Computes the fitness of all members in this process, one chunk after the other."""
        chunks = range(self.settings.chunks)
        found = [
            self.fitness(state, paths, row, chunk, examples) for row in range(len(paths.genes)) for chunk in chunks
        ]
        return np.concatenate(found).reshape(len(paths.genes), -1)

    def fitness(
        self, state: TrainState, paths: StepPaths, row: int, chunk: int, examples: Examples
    ) -> Float[np.ndarray, " m"]:
        """Computes the fitness of one chunk of members on one path of a step."""
        return self.population.fitness(state.params, paths.genes[row], paths.step, chunk, *examples)

    def advance(self, state: TrainState, done: Evaluated) -> tuple[TrainState, Float[Array, ""]]:
        """Returns the state after a step, from fitness alone, and the norm of the direction; `state` is consumed."""
        settings, paths = self.settings, done.paths
        weights = paths.weights if self._path_weights is None else paths.weights * self._path_weights(paths.genes)
        rows = [
            w * shaped(row, settings.shaping, settings.groups) for w, row in zip(weights, done.fitness, strict=True)
        ]
        masks = [self._used(tuple(map(int, row))) for row in paths.genes]
        direction = self.population.direction(np.array(rows), paths.genes, paths.step, paths.shape, masks)
        state, _, norm = self._plain.update_program(state, direction)
        return state, norm

    def score(
        self,
        params: Params,
        genes: Int[np.ndarray, "k g"],
        x: Shaped[Array, "b ..."],
        labels: Int[np.ndarray, "b *t"],
    ) -> Float[np.ndarray, " k"]:
        """Computes the mean loss of architectures on one batch."""
        return self._plain.score(params, genes, x, labels)

    @property
    def programs_compiled(self) -> int:
        """Number of programs of members that have been compiled here."""
        return self.population.chunk_program._cache_size()  # type: ignore[attr-defined]

    def _result(
        self, params: Params, genes: np.ndarray, x: jax.Array, targets: Targets, weights: np.ndarray
    ) -> PathResult:
        logits = self._plain.forward_program(params, genes, x, program=self.net.space.program(genes))
        return self._figures_program(logits, targets, np.asarray(weights, np.float32))

    def _figures(self, logits: jax.Array, targets: Any, weights: jax.Array) -> PathResult:
        outputs = self.outputs
        losses = outputs.mean(outputs.losses(logits, targets), targets)
        figures = outputs.figures(logits, targets).astype(jnp.float32)
        norms = outputs.gradient_norms(logits, targets)
        return PathResult(
            jnp.mean(weights * losses), jnp.mean(outputs.mean(figures, targets)), losses, norms, None, None
        )
