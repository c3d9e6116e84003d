"""ParZC: its loss and its layers by their formulas, what it learns, what changes nothing, and what is refused."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.stats import kendalltau

from search_spaces import UserError
from supernet.parzc import FEWEST, BayesianLinear, ParZC, Settings, differentiable_kendall, ranks, tokens

QUICK = Settings(width=8, depth=1, steps=150, batch=32, learning_rate=3e-3)
COUNT, HELD_OUT = 40, 100


def _tau(a: np.ndarray, b: np.ndarray) -> float:
    found: Any = kendalltau(a, b)
    return float(found[0])


@pytest.fixture(scope="module")
def networks() -> tuple[np.ndarray, np.ndarray]:
    """Three proxies of two layers each; what a network reaches weighs the layers, each on another scale."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(COUNT + HELD_OUT, 3, 2))
    weights = np.array([[2.0, -1.0], [1.0, 0.5], [0.0, -1.5]])
    return np.exp(3 * values), 70 + np.sum(weights * values, axis=(1, 2))


@pytest.fixture(scope="module")
def fitted(networks: tuple[np.ndarray, np.ndarray]) -> ParZC:
    x, accuracy = networks
    return ParZC.fit(x[:COUNT], accuracy[:COUNT], QUICK, seed=3)


def test_the_loss_is_the_mean_of_the_formula_over_pairs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 7))
    slope = 0.5

    def soft(difference: float) -> float:
        return 1 / (1 + math.exp(-slope * difference)) - 1 / (1 + math.exp(slope * difference))

    pairs = [soft(a[i] - a[j]) * soft(b[i] - b[j]) for i, j in itertools.combinations(range(7), 2)]
    found = differentiable_kendall(jnp.asarray(a), jnp.asarray(b), 2 / slope)
    np.testing.assert_allclose(found, np.mean(pairs), rtol=1e-5)


def test_the_loss_tends_to_kendalls_tau_as_the_temperature_falls() -> None:
    rng = np.random.default_rng(2)
    a = rng.permutation(50)
    b = np.argsort(np.argsort(a + 20 * rng.normal(size=50)))
    tau = _tau(a, b)
    a, b = (jnp.asarray(of, jnp.float32) for of in (a, b))
    gaps = [abs(float(differentiable_kendall(a, b, at)) - tau) for at in (100.0, 10.0, 1.0, 0.1)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.1
    assert gaps[-1] < 1e-6
    np.testing.assert_allclose(differentiable_kendall(a, a, 0.1), 1, rtol=1e-6)
    np.testing.assert_allclose(differentiable_kendall(a, -a, 0.1), -1, rtol=1e-6)


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
def test_the_gradient_is_finite_also_of_ties_and_raises_the_loss(temperature: float) -> None:
    truth = jnp.asarray([0.0, 1.0, 1.0, 3.0])
    for predicted in (jnp.zeros(4), jnp.asarray([1e4, 0.0, 0.0, -1e4])):
        assert bool(jnp.isfinite(jax.grad(differentiable_kendall)(predicted, truth, temperature)).all())
    start = 0.1 * temperature * jnp.asarray([1.0, 0.5, -1.0, 0.0])
    gradient = jax.grad(differentiable_kendall)(start, truth, temperature)
    better = start + 0.01 * temperature * gradient / jnp.linalg.norm(gradient)
    assert differentiable_kendall(better, truth, temperature) > differentiable_kendall(start, truth, temperature)


def test_a_bayesian_layer_has_the_moments_of_its_formula() -> None:
    layer = BayesianLinear(3, 2, nnx.Rngs(0))
    layer.rho[...] = jnp.asarray([[0.0, -5.0], [1.0, 0.3], [-1.0, 2.0]])
    x = jnp.asarray([[1.0, -2.0, 0.5], [0.0, 0.3, 4.0]])
    mean, variance = layer.moments(x)
    deviation = np.log1p(np.exp(np.asarray(layer.rho[...])))
    np.testing.assert_allclose(mean, np.asarray(x) @ np.asarray(layer.mean[...]), rtol=1e-5)
    np.testing.assert_allclose(variance, np.asarray(x) ** 2 @ deviation**2, rtol=1e-5)
    draws = jax.vmap(lambda key: layer(x, key))(jax.random.split(jax.random.key(0), 4000))
    # The mean of n draws lies within sd / sqrt(n), their variance within a share of sqrt(2 / n): five of these.
    np.testing.assert_array_less(abs(draws.mean(axis=0) - mean), 5 * np.sqrt(variance / 4000))
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=5 * math.sqrt(2 / 4000))
    np.testing.assert_allclose(BayesianLinear(3, 2, nnx.Rngs(0)).deviation, np.log1p(np.exp(-5)), rtol=1e-5)


def test_predictions_have_the_moments_of_many_passes(fitted: ParZC, networks: tuple[np.ndarray, np.ndarray]) -> None:
    few = networks[0][COUNT : COUNT + 5]
    model = nnx.merge(fitted.graph, nnx.State(fitted.params))
    x = jnp.asarray(ranks(few, fitted.known), jnp.float32)
    passes = np.asarray(jax.vmap(lambda key: model(x, key))(jax.random.split(jax.random.key(1), 4000)))
    found = ParZC(Settings(**{**vars(QUICK), "draws": 4000}), 0, fitted.known, fitted.graph, fitted.params)(few)
    np.testing.assert_array_less(abs(passes.mean(axis=0) - found.mean), 8 * found.deviation / math.sqrt(4000))
    np.testing.assert_allclose(passes.std(axis=0), found.deviation, rtol=0.1)


def test_it_orders_better_than_the_best_single_value(fitted: ParZC, networks: tuple[np.ndarray, np.ndarray]) -> None:
    x, accuracy = (of[COUNT:] for of in networks)
    single = max(abs(_tau(of, accuracy)) for of in x.reshape(len(x), -1).T)
    tau = _tau(fitted(x).mean, accuracy)
    assert tau > max(single + 0.1, 0.6)
    noise = ParZC.fit(x[:COUNT], np.random.default_rng(5).normal(size=COUNT), QUICK)(x[COUNT:]).mean
    assert abs(_tau(noise, accuracy[COUNT:])) < 4 * math.sqrt(4 / (9 * len(noise)))


def test_the_same_seed_and_networks_in_any_order_predict_the_same(
    fitted: ParZC, networks: tuple[np.ndarray, np.ndarray]
) -> None:
    x, accuracy = networks
    order = np.random.default_rng(4).permutation(COUNT)
    expected = fitted(x[COUNT:])
    again = ParZC.fit(x[:COUNT][order], accuracy[:COUNT][order], QUICK, seed=3)(x[COUNT:])
    np.testing.assert_array_equal(again.mean, expected.mean)
    np.testing.assert_array_equal(again.deviation, expected.deviation)
    assert not np.array_equal(ParZC.fit(x[:COUNT], accuracy[:COUNT], QUICK, seed=4)(x[COUNT:]).mean, expected.mean)
    others = np.random.default_rng(5).permutation(HELD_OUT)
    np.testing.assert_allclose(fitted(x[COUNT:][others]).mean, expected.mean[others], rtol=1e-5, atol=1e-6)


def test_units_of_accuracies_and_monotone_changes_of_proxies_do_not_matter(
    fitted: ParZC, networks: tuple[np.ndarray, np.ndarray]
) -> None:
    x, accuracy = networks
    other = ParZC.fit(np.log(x[:COUNT]), 2.0**-7 * accuracy[:COUNT], QUICK, seed=3)(np.log(x[COUNT:]))
    np.testing.assert_allclose(other.mean, fitted(x[COUNT:]).mean, rtol=1e-3, atol=1e-3)


def test_ranks_are_of_the_trained_networks_and_what_is_not_a_number_is_last(
    networks: tuple[np.ndarray, np.ndarray],
) -> None:
    known = np.array([-1.0, 0.0, 0.0, 5.0])[:, None, None]
    found = ranks(np.array([-9.0, -1.0, 0.0, 1.0, np.inf])[:, None, None], known)[:, 0, 0]
    np.testing.assert_allclose(found, math.sqrt(12) * np.array([-0.5, -0.375, 0.0, 0.25, 0.5]))
    x, accuracy = networks
    missing, least = x[:COUNT].copy(), x[:COUNT].copy()
    missing[::7, 1, 0], least[::7, 1, 0] = np.nan, -1e9
    first, second = (ParZC.fit(of, accuracy[:COUNT], QUICK)(x[COUNT:]).mean for of in (missing, least))
    np.testing.assert_array_equal(first, second)


def test_tokens_are_filled_up_with_zeros() -> None:
    found = tokens([[[1.0, 2.0, 3.0], [4.0]], [[5.0], [6.0]]])
    np.testing.assert_array_equal(found, [[[1, 2, 3], [4, 0, 0]], [[5, 0, 0], [6, 0, 0]]])


def test_what_cannot_be_learned_from_is_refused_in_one_line(
    fitted: ParZC, networks: tuple[np.ndarray, np.ndarray]
) -> None:
    x, accuracy = (of[:COUNT] for of in networks)
    few, wrong = FEWEST - 1, np.where(np.arange(COUNT) == 2, np.nan, accuracy)
    for call, message in (
        (lambda: ParZC.fit(x[:few], accuracy[:few]), "9 trained networks are too few. Give at least 10"),
        (lambda: ParZC.fit(x, accuracy[:-1]), "39 accuracies of 40 networks"),
        (lambda: ParZC.fit(x, wrong), "accuracy 2 is nan"),
        (lambda: ParZC.fit(x, np.ones(COUNT)), "equally accurate"),
        (lambda: fitted(x[:, :2]), r"tokens of shape \(2, 2\)"),
        (lambda: tokens([[[1.0]], [[1.0], [2.0]]]), r"networks have \[1, 2\] proxies"),
        (lambda: Settings(temperature=0.0), r"parzc.temperature: 0.0 is out of range"),
        (lambda: Settings(steps=0), r"parzc.steps: 0 is out of range. Give a number above 0"),
        (lambda: Settings(batch=1), r"parzc.batch: 1 is out of range. Give at least 2"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
