"""The training step: the gradients of k sampled paths, summed, then one Optax update."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from search_spaces import Program, UserError
from supernet.supernet import Params, Supernet


@dataclass(frozen=True)
class Distillation:
    """In-place distillation: other paths learn from a path of the same step.

    Args:
        type: `largest` takes the step's largest path as teacher; `none` uses labels only.
        weight: Share of the loss that the teacher gives; 1 leaves no label term, as in US-Nets.
        temperature: Softens both distributions; the term is scaled by its square.

    References:
        Yu, Huang. Universally Slimmable Networks and Improved Training Techniques. ICCV 2019, arXiv:1903.05134.
    """

    type: Literal["none", "largest"] = "none"
    weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise UserError(f"train.distillation.weight: {self.weight} is not in 0..1. Give a share of the loss.")
        if self.temperature <= 0:
            raise UserError(f"train.distillation.temperature: {self.temperature} is not positive. Try 1.0.")


class TrainState(NamedTuple):
    """Everything that the next step depends on, apart from data and sampler."""

    step: jax.Array
    params: Params
    optimizer: optax.OptState
    average: Params | None


class PathResult(NamedTuple):
    """What one path's forward pass gave; arrays stay on the device until they are read."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    logits: Float[Array, "b c"]


class StepResult(NamedTuple):
    """Per path, in the order of the step, and the norm of the summed gradient before clipping."""

    paths: list[PathResult]
    gradient_norm: Float[Array, ""]


class TrainStep:
    """Compiles one gradient program for each stream shape and one update, and runs steps.

    Args:
        net: The supernet.
        optimizer: Applied once a step to the weighted sum of the paths' gradients.
        distillation: Which path teaches the others.
        average_decay: Decay of the exponential moving average of the weights, or None. It starts lower:
            min(decay, (1 + step) / (10 + step)).
    """

    def __init__(
        self,
        net: Supernet,
        optimizer: optax.GradientTransformation,
        distillation: Distillation | None = None,
        average_decay: float | None = None,
    ) -> None:
        self.net = net
        self.distillation = distillation or Distillation()
        self._optimizer = optimizer
        self._decay = average_decay
        self._accumulated: Params | None = None
        self.gradient_program = jax.jit(self._gradient, static_argnames="program", donate_argnames="accumulated")
        self.update_program = jax.jit(self._update, donate_argnames=("state", "accumulated"))

    def init(self, params: Params) -> TrainState:
        """The state before the first step."""
        average = None if self._decay is None else jax.tree.map(jnp.copy, params)
        return TrainState(jnp.zeros((), jnp.int32), params, self._optimizer.init(params), average)

    def __call__(
        self,
        state: TrainState,
        genes: Int[np.ndarray, "k g"],
        roles: Sequence[str],
        weights: Float[np.ndarray, " k"],
        x: Float[Array, "b h w ch"],
        targets: Float[Array, "b c"],
    ) -> tuple[TrainState, StepResult]:
        """One step; `state` is consumed.

        Args:
            state: Before the step.
            genes: Canonical genes of the paths.
            roles: Role of each path; a teaching `largest` must come first.
            weights: Factor of each path's gradient in the sum.
            x: Normalised images, already augmented.
            targets: Distribution over classes of each example.
        """
        teaches = self.distillation.type == "largest"
        if teaches and roles[0] != "largest":
            raise UserError(
                "train.distillation: the sampler draws no largest path to learn from. Use the sampler `sandwich`, "
                "or set train.distillation.type to none."
            )
        accumulated = self._accumulated
        if accumulated is None:
            accumulated = jax.tree.map(jnp.zeros_like, state.params)
        results: list[PathResult] = []
        teacher = jnp.zeros_like(targets)
        for i in range(len(genes)):
            share = self.distillation.weight if teaches and i else 0.0
            accumulated, result = self.gradient_program(
                state.params, accumulated, genes[i], x, targets, teacher, np.float32(share), weights[i],
                program=self.net.space.program(genes[i]),
            )  # fmt: skip
            results.append(result)
            if teaches and not i:
                teacher = result.logits
        state, self._accumulated, norm = self.update_program(state, accumulated)
        return state, StepResult(results, norm)

    def _gradient(
        self,
        params: Params,
        accumulated: Params,
        genes: jax.Array,
        x: jax.Array,
        targets: jax.Array,
        teacher: jax.Array,
        share: jax.Array,
        weight: jax.Array,
        program: Program,
    ) -> tuple[Params, PathResult]:
        def loss(params: Params) -> tuple[jax.Array, jax.Array]:
            logits, _ = self.net.apply(params, genes, x, program=program)
            t = self.distillation.temperature
            taught = -jnp.sum(jax.nn.softmax(teacher / t) * jax.nn.log_softmax(logits / t), axis=-1) * t**2
            labelled = -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)
            return jnp.mean(labelled + share * (taught - labelled)), logits

        (value, logits), grads = jax.value_and_grad(loss, has_aux=True)(params)
        accumulated = jax.tree.map(lambda a, g: a + weight * g, accumulated, grads)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == jnp.argmax(targets, -1))
        return accumulated, PathResult(value, accuracy, logits)

    def _update(self, state: TrainState, accumulated: Params) -> tuple[TrainState, Params, jax.Array]:
        updates, optimizer = self._optimizer.update(accumulated, state.optimizer, state.params)
        params: Params = optax.apply_updates(state.params, updates)  # type: ignore[assignment]
        average = state.average
        if average is not None and self._decay is not None:
            decay = jnp.minimum(self._decay, (1.0 + state.step) / (10.0 + state.step))
            average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
        cleared = jax.tree.map(jnp.zeros_like, accumulated)
        return TrainState(state.step + 1, params, optimizer, average), cleared, optax.tree.norm(accumulated)

    @property
    def programs_compiled(self) -> int:
        """How many gradient programs have been compiled."""
        return self.gradient_program._cache_size()  # type: ignore[attr-defined]
