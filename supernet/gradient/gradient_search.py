"""Single-stage gradient search: steps of the architecture's logits and of the shared weights, in turn, first order.

The budget is held by the method of multipliers: each limit has a multiplier that grows while the expected cost is above
it, and the logits' loss gets the multiplier times the excess, plus a quadratic term. So no weight of a cost penalty has
to be found by trial. Shared weights of small networks learn sooner, and logits that follow the loss alone settle below
a budget that the final network would do well to use; a quadratic term of the shortfall draws them up to it.

References:
    Sukthanker, Krishnakumar, Safari, Hutter. Weight-Entanglement Meets Gradient-Based Neural Architecture Search.
    AutoML-Conf 2024, arXiv:2312.10440 (single stage, no cost term).
    Liu, Simonyan, Yang. DARTS: Differentiable Architecture Search. ICLR 2019, arXiv:1806.09055 (alternation).
    Hestenes. Multiplier and gradient methods. J. Optimization Theory and Applications 4, 1969.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, Shaped

from search_spaces import SearchSpace
from supernet.engine.supernet import Params
from supernet.engine.superposed import SuperposedSupernet, values_of
from supernet.gradient.expected_cost import ExpectedCost
from supernet.gradient.relaxation import INITIAL, Relaxation
from supernet.tasks.labels import Targets
from supernet.training.training import TrainState, TrainStep

BETAS, CLIP_NORM = (0.5, 0.999), 5.0
"""Adam's moments and the clipping of the logits' gradient, as published."""


class GradientState(NamedTuple):
    """Everything that the next step depends on, apart from the data.

    Attributes:
        train: The shared weights, as in any training of a supernet.
        logits: Logits of each gene's values.
        moments: Moments of the logits' optimizer.
        multipliers: One a limit.
    """

    train: TrainState
    logits: Float[Array, "g v"]
    moments: optax.OptState
    multipliers: Float[Array, " m"]


class ArchitectureResult(NamedTuple):
    """Results of a step of the logits: loss on its batch, and expected costs over their limits, both before it."""

    loss: Float[Array, ""]
    costs: Float[Array, " m"]


class WeightsResult(NamedTuple):
    """Results of a step of the weights: loss and figure of the drawn relaxed architecture, and the gradient's norm."""

    loss: Float[Array, ""]
    figure: Float[Array, ""]
    gradient_norm: Float[Array, ""]


class GradientStep:
    """Compiles a step of the logits and one of the weights.

    Args:
        net: The superposed supernet.
        relaxation: Function that turns logits into a relaxed architecture.
        cost: Expected costs over the budget's limits; None searches without a budget.
        train: Updates the weights, by its optimizer and its moving average.
        rate: Learning rate of the logits, by step.
        cost_weight: Weight of the quadratic term of an excess.
        multiplier_rate: Growth of a multiplier in a step, as a multiple of the excess.
        shortfall_weight: Weight of the squared shortfall of the tightest limit.
    """

    def __init__(
        self,
        net: SuperposedSupernet,
        relaxation: Relaxation,
        cost: ExpectedCost | None,
        train: TrainStep,
        rate: float,
        cost_weight: float,
        multiplier_rate: float,
        shortfall_weight: float = 0.0,
    ) -> None:
        self._net, self._relaxation, self._cost, self._train = net, relaxation, cost, train
        self._cost_weight, self._multiplier_rate = cost_weight, multiplier_rate
        self._shortfall_weight = shortfall_weight
        self._outputs = train.outputs
        self._optimizer = optax.chain(optax.clip_by_global_norm(CLIP_NORM), optax.adam(rate, *BETAS))
        self._values = jnp.asarray(values_of(net.space))
        self.architecture_program = jax.jit(self._architecture)
        self.gradient_program = jax.jit(self._gradient)

    def init(self, params: Params, key: Key[Array, ""]) -> GradientState:
        """Returns the state before the first step."""
        logits = INITIAL * jax.random.normal(key, self._values.shape) * self._values
        limits = 0 if self._cost is None else len(self._cost.limits)
        return GradientState(self._train.init(params), logits, self._optimizer.init(logits), jnp.zeros(limits))

    def architecture(
        self,
        state: GradientState,
        key: Key[Array, ""],
        x: Shaped[Array, "b ..."],
        targets: Targets,
        temperature: float,
        entropy_weight: float,
        example_weights: Float[np.ndarray, " b"] | None = None,
    ) -> tuple[GradientState, ArchitectureResult]:
        """Runs one step of the logits and of the multipliers; the weights stay.

        `example_weights` are factors of each example's loss in the mean, 1 when None.
        """
        logits, moments, multipliers, result = self.architecture_program(
            state.train.params, state.logits, state.moments, state.multipliers, key, x, targets, temperature,
            entropy_weight, example_weights,
        )  # fmt: skip
        return state._replace(logits=logits, moments=moments, multipliers=multipliers), result

    def weights(
        self,
        state: GradientState,
        key: Key[Array, ""],
        x: Shaped[Array, "b ..."],
        targets: Targets,
        temperature: float,
        example_weights: Float[np.ndarray, " b"] | None = None,
    ) -> tuple[GradientState, WeightsResult]:
        """Runs one step of the shared weights with a relaxed architecture; `state` is consumed.

        `example_weights` are as in `architecture`.
        """
        gradient, loss, figure = self.gradient_program(
            state.train.params, state.logits, key, x, targets, temperature, example_weights
        )
        train, _, norm = self._train.update_program(state.train, gradient)
        return state._replace(train=train), WeightsResult(loss, figure, norm)

    def objective(
        self,
        logits: Float[Array, "g v"],
        params: Params,
        multipliers: Float[Array, " m"],
        key: Key[Array, ""],
        x: Shaped[Array, "b ..."],
        targets: Targets,
        temperature: Float[Array, ""],
        entropy_weight: Float[Array, ""],
        example_weights: Float[Array, " b"] | None = None,
    ) -> tuple[Float[Array, ""], ArchitectureResult]:
        """Computes what the logits minimise: loss on a batch, distance to the budget, entropy, the method's penalty."""
        relaxed = self._relaxation.draw(logits, self._values, key, temperature)
        loss = self._loss(self._net.apply_superposed(params, relaxed, x), targets, example_weights)
        probabilities = self._relaxation.probabilities(logits, self._values)
        total = loss + self._relaxation.penalty(logits, self._values)
        total = total + entropy_weight * jnp.mean(entropies(probabilities))
        costs = jnp.zeros(0)
        if self._cost is not None:
            costs = self._cost(probabilities)
            force = jnp.maximum(multipliers + self._cost_weight * (costs - 1), 0)
            total = total + jnp.sum(jnp.square(force) - jnp.square(multipliers)) / (2 * self._cost_weight)
            total = total + self._shortfall_weight / 2 * jnp.square(jnp.maximum(1 - jnp.max(costs), 0))
        return total, ArchitectureResult(loss, costs)

    def _architecture(
        self,
        params: Params,
        logits: jax.Array,
        moments: optax.OptState,
        multipliers: jax.Array,
        key: jax.Array,
        x: jax.Array,
        targets: Targets,
        temperature: jax.Array,
        entropy_weight: jax.Array,
        example_weights: jax.Array | None,
    ) -> tuple[jax.Array, optax.OptState, jax.Array, ArchitectureResult]:
        arguments = params, multipliers, key, x, targets, temperature, entropy_weight, example_weights
        gradient, result = jax.grad(self.objective, has_aux=True)(logits, *arguments)
        updates, moments = self._optimizer.update(gradient, moments)
        multipliers = jnp.maximum(multipliers + self._multiplier_rate * (result.costs - 1), 0)
        return optax.apply_updates(logits, updates), moments, multipliers, result  # type: ignore[return-value]

    def _gradient(
        self,
        params: Params,
        logits: jax.Array,
        key: jax.Array,
        x: jax.Array,
        targets: Targets,
        temperature: jax.Array,
        example_weights: jax.Array | None,
    ) -> tuple[Params, jax.Array, jax.Array]:
        relaxed = self._relaxation.draw(logits, self._values, key, temperature)

        def loss(params: Params) -> tuple[jax.Array, jax.Array]:
            outputs = self._net.apply_superposed(params, relaxed, x)
            return self._loss(outputs, targets, example_weights), outputs

        (value, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        figures = self._outputs.figures(outputs, targets).astype(jnp.float32)
        return gradient, value, jnp.mean(self._outputs.mean(figures, targets))

    def _loss(self, logits: jax.Array, targets: jax.Array, example_weights: jax.Array | None) -> jax.Array:
        losses = self._outputs.mean(self._outputs.losses(logits, targets), targets)
        return jnp.mean(losses if example_weights is None else example_weights * losses)


def entropies(probabilities: Float[Array, "g v"]) -> Float[Array, " g"]:
    """Returns the entropy of each gene's distribution, in nats."""
    # The logarithm of 0 has no finite gradient, also where it is multiplied by 0.
    safe = jnp.where(probabilities > 0, probabilities, 1.0)
    return -jnp.sum(probabilities * jnp.log(safe), axis=-1)


def entropies_by_choice(space: SearchSpace, probabilities: Float[Array, "g v"]) -> dict[str, float]:
    """Returns the mean entropy of each choice's genes, relative to equal probabilities; 0 if nothing varies."""
    of_gene = entropies(probabilities)
    return {
        choice.name: float(jnp.mean(of_gene[space.columns[choice.name].reshape(-1)]) / jnp.log(len(choice.values)))
        if len(choice.values) > 1
        else 0.0
        for choice in space.choices
    }
