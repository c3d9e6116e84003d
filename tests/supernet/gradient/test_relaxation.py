"""Relaxations: what is drawn, its exact gradients, and that each method finds the best of known operations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import dirichlet as scipy_dirichlet

from search_spaces import UserError
from supernet.gradient.relaxation import RELAXATIONS, Darts, Drnas, Gdas, Relaxation

VALUES = jnp.array([[True, True, True, True], [True, True, False, False], [True, False, False, False]])
LOGITS = jnp.array([[0.3, -0.7, 1.1, -2.0], [0.4, -0.1, 9.0, 9.0], [0.2, 9.0, 9.0, 9.0]])
DRAWS = 100_000


@pytest.fixture(params=sorted(RELAXATIONS))
def relaxation(request: pytest.FixtureRequest) -> Relaxation:
    return RELAXATIONS[request.param]()


def draws(relaxation: Relaxation, temperature: float) -> np.ndarray:
    """Many draws at LOGITS, [n, g, v]."""
    keys = jax.random.split(jax.random.key(0), DRAWS)
    one = lambda key: relaxation.draw(LOGITS, VALUES, key, jnp.float32(temperature))  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(one))(keys))


def test_draws_and_probabilities_are_distributions_over_the_values(relaxation: Relaxation) -> None:
    for weights in (draws(relaxation, 0.5)[:1000], np.asarray(relaxation.probabilities(LOGITS, VALUES))[None]):
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
        assert (weights >= 0).all()
        assert not weights[:, ~np.asarray(VALUES)].any()
        assert (weights[:, 2, 0] == 1).all()


def test_gradients_stay_with_the_values_and_are_finite(relaxation: Relaxation) -> None:
    cotangent = jax.random.normal(jax.random.key(1), LOGITS.shape)

    def loss(logits: jax.Array, key: jax.Array) -> jax.Array:
        weights = relaxation.draw(logits, VALUES, key, jnp.float32(0.5))
        return jnp.sum(cotangent * weights) + relaxation.penalty(logits, VALUES)

    for logits in (LOGITS, 8 * LOGITS):
        gradient = jax.jit(jax.grad(loss))(logits, jax.random.key(2))
        assert np.isfinite(gradient).all()
        assert not np.asarray(gradient)[~np.asarray(VALUES)].any()
        assert np.asarray(gradient)[0].any()


def test_darts_is_the_softmax() -> None:
    found = Darts().draw(LOGITS, VALUES, jax.random.key(0), jnp.float32(2.0))
    expected = np.exp(np.array(LOGITS[0]) / 2)
    np.testing.assert_allclose(found[0], expected / expected.sum(), rtol=1e-6)


def test_gdas_draws_one_value_with_the_probability_of_the_softmax() -> None:
    found = draws(Gdas(), 0.7)
    assert set(np.unique(found)) == {0.0, 1.0}
    expected = np.asarray(Gdas().probabilities(LOGITS, VALUES))
    # Five standard deviations of a share of 1e5 draws.
    np.testing.assert_allclose(found.mean(axis=0), expected, rtol=0, atol=5 * 0.5 / DRAWS**0.5)


def test_gdas_has_the_gradient_of_the_softmax_of_the_same_noise() -> None:
    key, temperature, cotangent = jax.random.key(3), 0.7, jnp.arange(12.0).reshape(3, 4)
    found = jax.grad(lambda z: jnp.sum(cotangent * Gdas().draw(z, VALUES, key, jnp.float32(temperature))))(LOGITS)
    noise = np.asarray(jax.random.gumbel(key, LOGITS.shape))[0]
    p = np.exp((np.asarray(LOGITS[0]) + noise) / temperature)
    p /= p.sum()
    c = np.asarray(cotangent[0])
    # The log-softmax shifts all logits alike, which the softmax does not see.
    np.testing.assert_allclose(found[0], p * (c - p @ c) / temperature, rtol=1e-4, atol=1e-6)
    assert np.asarray(found).sum(axis=1) == pytest.approx([0, 0, 0], abs=1e-5)


def test_drnas_draws_are_dirichlet() -> None:
    found = draws(Drnas(), 1.0)[:, 0]
    concentration = np.where(LOGITS[0] > 0, LOGITS[0] + 1, np.exp(LOGITS[0]))
    np.testing.assert_allclose(Drnas().probabilities(LOGITS, VALUES)[0], concentration / concentration.sum(), rtol=1e-5)
    known = scipy_dirichlet(concentration.astype(np.float64))
    np.testing.assert_allclose(found.mean(axis=0), known.mean(), rtol=0, atol=5 * 0.5 / DRAWS**0.5)
    np.testing.assert_allclose(found.var(axis=0), known.var(), rtol=0.03)


def test_drnas_gradients_are_those_of_the_mean() -> None:
    """The reparametrised gradient is unbiased: averaged over draws, it is that of the concentrations' mean."""
    cotangent = jnp.array([[1.0, -2.0, 0.5, 3.0], [1.0, -1.0, 0.0, 0.0], [0.0] * 4])
    keys = jax.random.split(jax.random.key(4), DRAWS)
    of_draw = jax.grad(lambda z, key: jnp.sum(cotangent * Drnas().draw(z, VALUES, key, jnp.float32(1.0))))
    each = np.asarray(jax.jit(jax.vmap(of_draw, in_axes=(None, 0)))(LOGITS, keys), np.float64)
    expected = jax.grad(lambda z: jnp.sum(cotangent * Drnas().probabilities(z, VALUES)))(LOGITS)
    error = each.std(axis=0) / DRAWS**0.5
    assert (np.abs(each.mean(axis=0) - expected) <= 5 * error + 1e-6).all()
    assert np.abs(expected[0]).max() > 20 * error.max()


def test_penalties() -> None:
    squares = 0.3**2 + 0.7**2 + 1.1**2 + 2.0**2 + 0.4**2 + 0.1**2 + 0.2**2
    for method in (Darts(decay=0.1), Gdas(decay=0.1), Drnas(decay=0.1)):
        assert float(method.penalty(LOGITS, VALUES)) == pytest.approx(0.05 * squares, rel=1e-5)
    kl = Drnas(decay=0.1, anchor="kl")
    assert float(kl.penalty(jnp.zeros((3, 4)), VALUES)) == pytest.approx(0, abs=1e-6)
    # KL(Beta(a, b) || uniform) by quadrature; the gene of four values is at the anchor, the one of one value has none.
    logits = jnp.array([[0.0] * 4, [1.5, -0.4, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0]])
    a, b = 2.5, np.exp(-0.4)
    t = (np.arange(200_000) + 0.5) / 200_000
    density = scipy_dirichlet([a, b]).pdf(np.stack([t, 1 - t]))
    assert float(kl.penalty(logits, VALUES)) == pytest.approx(0.1 * np.mean(density * np.log(density)), rel=1e-3)


def test_temperatures_fall_linearly() -> None:
    assert [Gdas().temperature_at(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([10, 5.05, 0.1])
    assert [Drnas().temperature_at(p) for p in (0.0, 1.0)] == [1, 1]


@pytest.mark.parametrize("setting", [{"decay": -1.0}, {"temperature": 0.0}, {"final_temperature": -0.1}])
def test_wrong_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"gradient\.{next(iter(setting))}: "):
        Gdas(**setting)


def test_each_method_finds_the_best_of_four_operations(relaxation: Relaxation) -> None:
    """Losses (0.1, 0.2, 0.5, 1.0), mixed by the weights; 50 seeds at once, 500 steps of Adam at 0.02."""
    losses, values = jnp.array([0.1, 0.2, 0.5, 1.0]), jnp.ones((50, 4), bool)

    def step(i: int, carry: tuple) -> tuple:
        z, m, v = carry
        start, end = relaxation.temperature, relaxation.final_temperature
        temperature = jnp.float32(start) + (end - start) * jnp.float32(i / 500)

        def loss(z: jax.Array) -> jax.Array:
            weights = relaxation.draw(z, values, jax.random.fold_in(jax.random.key(0), i), temperature)
            return jnp.sum(weights @ losses) + relaxation.penalty(z, values)

        g = jax.grad(loss)(z)
        m, v = 0.5 * m + 0.5 * g, 0.999 * v + 0.001 * g * g
        t = i + 1.0
        return z - 0.02 * (m / (1 - 0.5**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v

    start = 1e-3 * jax.random.normal(jax.random.key(1), (50, 4))
    z, *_ = jax.lax.fori_loop(0, 500, step, (start, jnp.zeros((50, 4)), jnp.zeros((50, 4))))
    assert np.mean(np.argmax(z, axis=1) == 0) >= 0.95
