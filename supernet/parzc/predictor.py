"""ParZC: learns from a few trained networks to order others by their zero-cost proxies.

A token is a proxy: its value in each layer where it is a sum over layers, its one score otherwise. The loss is
DiffKendall of a batch of networks; predictions are of many draws of the Bayesian layers.

References:
    Dong, Li, Tang, Liu, Wei, Wang, Chu. ParZC: Parametric Zero-Cost Proxies for Efficient NAS. AAAI 2025,
    arXiv:2402.02105.
    Differs: a value is replaced by its rank among those of the trained networks (there it is scaled between the least
    and the largest of its network), blocks mix tokens as well as channels, the temperature is lower, and there is no
    graph transformer beside the mixer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from search_spaces import UserError
from search_spaces.randomness import Purpose, stream
from supernet.engine.randomness import FreshWeights, key
from supernet.engine.supernet import Params
from supernet.parzc.differentiable_kendall import differentiable_kendall
from supernet.parzc.mixer import Mixer

FEWEST = 10
"""Least number of trained networks that a predictor learns from."""

_LEAST = {"weight_decay": 0, "batch": 2}

Tokens = Float[np.ndarray, "a t v"]


@dataclass(frozen=True)
class Settings:
    """Settings of a predictor.

    Attributes:
        width: Channels of a token.
        depth: Blocks of the mixer.
        expansion: Hidden units of a block for each token and for each channel.
        steps: Updates of Adam.
        batch: Networks whose pairs a step compares; all where there are fewer.
        learning_rate: First rate; it falls to 0 as a cosine.
        weight_decay: Weight decay of AdamW.
        temperature: Temperature of DiffKendall, in standard deviations of accuracies; the authors' slope of 0.5 is 4.
        draws: Passes with other weights that a prediction is the mean of.
    """

    width: int = 32
    depth: int = 2
    expansion: int = 2
    steps: int = 300
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    temperature: float = 1.0
    draws: int = 16

    def __post_init__(self) -> None:
        """Raises a `UserError` for a setting that is out of range."""
        for field in fields(self):
            value, least = getattr(self, field.name), _LEAST.get(field.name)
            if not (math.isfinite(value) and (value > 0 if least is None else value >= least)):
                wanted = "a number above 0" if least is None else f"at least {least}"
                raise UserError(f"parzc.{field.name}: {value} is out of range. Give {wanted}.")


@dataclass(frozen=True)
class Prediction:
    """Scores of networks; only their order means anything.

    Attributes:
        mean: Over the weights; larger is better.
        deviation: Standard deviation over the weights.
    """

    mean: Float[np.ndarray, " a"]
    deviation: Float[np.ndarray, " a"]


def tokens(proxies: Sequence[Sequence[Sequence[float]]]) -> Tokens:
    """Tokens of networks, filled up with zeros to the longest.

    Args:
        proxies: For each network, of each proxy its values by layer, or its one score in a list.

    Raises:
        UserError: Networks differ in their number of proxies.
    """
    counts = {len(of) for of in proxies}
    if len(counts) != 1:
        raise UserError(f"parzc: networks have {sorted(counts)} proxies. Give each network the same ones.")
    found = np.zeros((len(proxies), counts.pop(), max((len(values) for of in proxies for values in of), default=0)))
    for row, of in zip(found, proxies, strict=True):
        for token, values in zip(row, of, strict=True):
            token[: len(values)] = values
    return found


@dataclass(frozen=True)
class ParZC:
    """A trained predictor; made by `ParZC.fit`.

    Attributes:
        settings: Settings of the training.
        seed: Seed of its draws.
        known: The tokens that it was trained on, each value's column in order.
        graph: The mixer, without its weights.
        params: Its weights.
    """

    settings: Settings
    seed: int
    known: Tokens
    graph: Any
    params: Params

    @classmethod
    def fit(
        cls, proxies: Tokens, accuracy: Float[np.ndarray, " given"], settings: Settings | None = None, seed: int = 0
    ) -> "ParZC":
        """Trains a predictor; the same networks, in whatever order, and seed give the same one.

        Args:
            proxies: Tokens of trained networks; what is NaN counts as less than all else.
            accuracy: Result of each network; larger is better, in any unit.
            settings: Settings of the training; the defaults when None.
            seed: Seed of the first weights, batches and draws.

        Raises:
            UserError: Fewer than `FEWEST` networks, another number of accuracies, an accuracy that is not finite, or
                accuracies that are all equal.
        """
        settings = settings or Settings()
        accuracy = _checked(proxies, accuracy)
        order = np.lexsort((*proxies.reshape(len(proxies), -1).T, accuracy))
        proxies, accuracy = _ordered(proxies[order]), accuracy[order]
        known = np.sort(proxies, axis=0)
        _, count, values = proxies.shape
        weights = FreshWeights(key(seed, Purpose.PARZC, 0))
        made = Mixer(count, values, settings.width, settings.depth, settings.expansion, weights)
        graph, state = nnx.split(made, nnx.Param)
        rows = _batches(len(accuracy), settings, seed)
        truth = (accuracy - accuracy.mean()) / accuracy.std()
        x = jnp.asarray(ranks(proxies, known), jnp.float32)
        params = _train(graph, settings, state, x, jnp.asarray(truth, jnp.float32), rows, key(seed, Purpose.PARZC, 1))
        return cls(settings, seed, known, graph, nnx.to_pure_dict(params))

    def __call__(self, proxies: Tokens) -> Prediction:
        """Scores networks.

        Args:
            proxies: Their tokens, of the same proxies.

        Raises:
            UserError: The tokens have another shape than those that were trained on.
        """
        if proxies.shape[1:] != self.known.shape[1:]:
            raise UserError(
                f"parzc: networks have tokens of shape {proxies.shape[1:]}, and the predictor was trained on "
                f"{self.known.shape[1:]}. Give the same proxies, filled up to as many layers."
            )
        x = jnp.asarray(ranks(_ordered(proxies), self.known), jnp.float32)
        keys = jax.random.split(key(self.seed, Purpose.PARZC, 2), self.settings.draws)
        mean, variance = _predict(self.graph, self.params, x, keys)
        return Prediction(np.asarray(mean, np.float64), np.sqrt(np.asarray(variance, np.float64)))


@partial(jax.jit, static_argnums=(0, 1))
def _train(
    graph: Any,
    settings: Settings,
    params: Any,
    x: Float[Array, "a t v"],
    truth: Float[Array, " a"],
    rows: Int[Array | np.ndarray, "s n"],
    draws: Key[Array, ""],
) -> Any:
    """Weights after a step for each row of numbers of networks."""
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    optimizer = optax.adamw(rate, weight_decay=settings.weight_decay)

    def loss(params: Any, batch: Int[Array, " n"], key: Key[Array, ""]) -> Float[Array, ""]:
        predicted = nnx.merge(graph, params)(x[batch], key)
        return -differentiable_kendall(predicted, truth[batch], settings.temperature)

    def step(carry: tuple[Any, Any], of: tuple[Any, Any]) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, *of), state, params)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(draws, settings.steps)
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), (rows, keys))
    return params


@partial(jax.jit, static_argnums=0)
def _predict(
    graph: Any, params: Params, x: Float[Array, "a t v"], keys: Key[Array, " draws"]
) -> tuple[Float[Array, " a"], Float[Array, " a"]]:
    """Mean and variance over draws of the embedding, and over the head's weights in closed form."""
    state = nnx.State(params)
    means, variances = jax.lax.map(lambda key: nnx.merge(graph, state).moments(x, key), keys)
    return means.mean(axis=0), variances.mean(axis=0) + means.var(axis=0)


def _ordered(proxies: Tokens) -> Tokens:
    return np.where(np.isnan(proxies), -np.inf, proxies)


def ranks(proxies: Tokens, known: Float[np.ndarray, "known t v"]) -> Tokens:
    """Returns the rank of each value among trained networks, scaled to mean 0 and variance 1.

    Args:
        proxies: Tokens of networks.
        known: Tokens of trained networks, each column in order; NaN in none of them.
    """
    found = np.zeros(proxies.shape)
    for token, value in np.ndindex(*proxies.shape[1:]):
        column = known[:, token, value]
        below, upto = (np.searchsorted(column, proxies[:, token, value], side) for side in ("left", "right"))
        found[:, token, value] = (below + upto) / (2 * len(column)) - 0.5
    return np.sqrt(12) * found


def _batches(count: int, settings: Settings, seed: int) -> Int[np.ndarray, "s n"]:
    rng, size = stream(seed, Purpose.PARZC), min(count, settings.batch)
    return np.stack([rng.permutation(count)[:size] for _ in range(settings.steps)])


def _checked(proxies: np.ndarray, accuracy: np.ndarray) -> Float[np.ndarray, " a"]:
    if len(accuracy) != len(proxies):
        raise UserError(f"parzc: {len(accuracy)} accuracies of {len(proxies)} networks. Give one for each network.")
    if len(accuracy) < FEWEST:
        raise UserError(f"parzc: {len(accuracy)} trained networks are too few. Give at least {FEWEST}.")
    bad = np.flatnonzero(~np.isfinite(accuracy))
    if bad.size:
        raise UserError(f"parzc: accuracy {bad[0]} is {accuracy[bad[0]]}. Leave out what is not finite.")
    if np.ptp(accuracy) == 0:
        raise UserError("parzc: all trained networks are equally accurate, which orders nothing. Give others.")
    return np.asarray(accuracy, np.float64)
