"""Population: fitness of perturbed members, many in one program, and the update from their fitness alone.

References:
    Sarkar et al. Evolution Strategies at the Hyperscale. 2025, arXiv:2511.16652.
    Salimans, Ho, Chen, Sidor, Sutskever. Evolution Strategies as a Scalable Alternative to Reinforcement Learning.
    2017, arXiv:1703.03864 (ranks, seeds in place of noise).
    Differs: the update is divided by sigma and the population, as in the textbook, where the published code multiplies
    by sigma over its root; a textbook's learning rate is the code's times sigma^2 and the root of the population.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from search_spaces import Program
from supernet.engine.supernet import Params, Supernet
from supernet.evolution_strategy.fitness import FITNESS, CompiledFitness
from supernet.evolution_strategy.perturbed import PerturbedPass
from supernet.evolution_strategy.settings import EvolutionStrategySettings
from supernet.tasks.labels import Targets
from supernet.tasks.outputs import Outputs


class Population:
    """Evaluates members in chunks of one size, whoever does so; a member follows from integers and the weights alone.

    Args:
        net: The supernet.
        settings: Settings of the strategy.
        outputs: Meaning of the network's outputs.
        key: Key of all noise of a training.
    """

    def __init__(
        self, net: Supernet, settings: EvolutionStrategySettings, outputs: Outputs, key: Key[Array, ""]
    ) -> None:
        self.net, self.settings, self.outputs, self._key = net, settings, outputs, key
        self._fitness = FITNESS[settings.fitness]
        self._signs = net.has_integer_weights
        self._passes: dict[tuple[Program, tuple[int, ...]], PerturbedPass] = {}
        self.chunk_program = jax.jit(self._chunk, static_argnames="program")
        self.direction_program = jax.jit(self._direction, static_argnames=("program", "shape"))

    def perturbed(self, program: Program, x: Any) -> PerturbedPass:
        """Returns the perturbed pass of a program."""
        kind = program, x.shape
        if kind not in self._passes:
            genes = jax.ShapeDtypeStruct((self.net.space.num_genes,), jnp.int32)
            inputs = genes, jax.ShapeDtypeStruct(x.shape, x.dtype)

            def forward(params: Params, genes: jax.Array, x: jax.Array) -> jax.Array:
                return self.net.apply(params, genes, x, program=program)[0]

            shapes = jax.eval_shape(carried, self.net.shapes)
            self._passes[kind] = PerturbedPass(forward, shapes, inputs, self.settings.rank, self._signs)
        return self._passes[kind]

    def fitness(
        self,
        params: Params,
        genes: Int[np.ndarray, " g"],
        step: int,
        chunk: int,
        x: Shaped[Array, "b ..."],
        targets: Targets,
        example_weights: Float[np.ndarray, " b"],
    ) -> Float[np.ndarray, " n"]:
        """Fitness of the members of one chunk, those of a pair after each other.

        Args:
            params: The weights, without perturbation.
            genes: Path that all of them take.
            step: Number of the training step.
            chunk: Index of the chunk in `settings.chunks`.
            x: The whole batch; a group sees its part.
            targets: Targets of the batch.
            example_weights: Factor of each example.
        """
        settings, genes = self.settings, np.asarray(genes, np.int32)
        count, group = settings.groups_of_chunk, chunk * settings.groups // settings.chunks
        size = len(x) // settings.groups

        def part(values: Any) -> Any:
            """Returns the rows of the groups of the chunk, with the groups as the first axis."""
            return values[group * size : (group + count) * size].reshape(count, size, *values.shape[1:])

        first = np.int32(chunk * settings.pairs_of_chunk)
        weights = np.asarray(example_weights, np.float32)
        found = self.chunk_program(
            params, genes, self.epoch(step), first, part(x), part(targets), part(weights),
            program=self.net.space.program(genes),
        )  # fmt: skip
        if isinstance(self._fitness, CompiledFitness):
            return np.asarray(found, np.float64)
        function, given = self._fitness, np.repeat(np.asarray(part(targets)), len(found) // count, axis=0)
        return np.array([float(function(*one)) for one in zip(np.asarray(found), given, strict=True)], np.float64)

    def epoch(self, step: int) -> np.uint32:
        """Returns the number of the noise of a step."""
        return np.uint32(step // self.settings.noise_reuse)

    def direction(
        self,
        coefficients: Float[np.ndarray, "k n"],
        genes: Int[np.ndarray, "k g"],
        step: int,
        shape: tuple[int, ...],
        masks: Sequence[Params],
    ) -> Params:
        """Returns the negative estimated gradient of fitness, summed over the paths, for an optimiser that descends.

        Of integer weights, it is the negative of the votes of all pairs instead, whole numbers.

        Args:
            coefficients: Coefficients of each path's members: shaped fitness times the path's weight.
            genes: Genes of the paths.
            step: Number of the training step.
            shape: Shape of the inputs of a group.
            masks: For each path, 1 where it uses a weight, in arrays that broadcast.
        """
        total = None
        for row, path, mask in zip(coefficients, genes, masks, strict=True):
            pairs = row.reshape(-1, 2)
            own = self.direction_program(
                np.asarray(pairs[:, 0] - pairs[:, 1], np.float32), self.epoch(step), mask,
                program=self.net.space.program(path), shape=shape,
            )  # fmt: skip
            total = own if total is None else jax.tree.map(jnp.add, total, own)
        assert total is not None
        return total

    def _noise_key(self, epoch: jax.Array, pair: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(self._key, epoch), pair)

    def _chunk(
        self,
        params: Params,
        genes: jax.Array,
        epoch: jax.Array,
        first: jax.Array,
        x: jax.Array,
        targets: Any,
        weights: jax.Array,
        program: Program,
    ) -> jax.Array:
        """Fitness of each member, or its outputs where the fitness is a user's function; groups on a leading axis."""
        passes, sigma = self.perturbed(program, x[0]), self.settings.sigma
        fitness = self._fitness if isinstance(self._fitness, CompiledFitness) else None
        params = carried(params)

        def group(numbers: jax.Array, x: jax.Array, targets: Any, weights: jax.Array) -> jax.Array:
            def pair(number: jax.Array) -> jax.Array:
                noise = passes.draw(self._noise_key(epoch, number))

                def member(sign: jax.Array) -> jax.Array:
                    logits = passes(params, noise, sign * sigma, genes, x)
                    return logits if fitness is None else fitness.function(self.outputs, logits, targets, weights)

                return jax.vmap(member)(jnp.array([1.0, -1.0]))

            return jax.vmap(pair)(numbers)

        numbers = first + jnp.arange(self.settings.pairs_of_chunk).reshape(len(x), -1)
        found = jax.vmap(group)(numbers, x, targets, weights)
        return found.reshape(-1, *found.shape[3:])

    def _direction(
        self, coefficients: jax.Array, epoch: jax.Array, mask: Params, program: Program, shape: tuple[int, ...]
    ) -> Params:
        settings = self.settings
        example = self.net.example(self.net.space.largest)
        passes = self.perturbed(program, jax.ShapeDtypeStruct(shape, example.dtype))

        def add(total: list[jax.Array], chunk: tuple[jax.Array, jax.Array]) -> tuple[list[jax.Array], None]:
            numbers, own = chunk
            noise = jax.vmap(lambda pair: passes.draw(self._noise_key(epoch, pair)))(numbers)
            return [t + s for t, s in zip(total, passes.weighted_sum(own, noise), strict=True)], None

        pairs = settings.population // 2
        numbers = jnp.arange(pairs).reshape(settings.chunks, -1)
        start = [jnp.zeros(leaf.shape) for leaf in passes.leaves]
        total, _ = jax.lax.scan(add, start, (numbers, coefficients.reshape(settings.chunks, -1)))
        # The coefficient of a pair is the difference of two signs, so that half of it is a vote.
        scale = -0.5 if self._signs else -1.0 / (settings.population * settings.sigma)
        return jax.tree.map(lambda leaf, own: leaf * scale * own, passes.tree(total), mask)


def carried(params: Params) -> Params:
    """Weights as passes of a population compute with them: whole numbers in float32, as which products are quicker."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
