"""Batch norm in a supernet: gradients by hand, calibrated statistics, and no memory from one subnet to the next."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from search_spaces import UserError
from supernet.layers.batch_norm import BATCH_NORM_EPSILON, activate, moments, normalise
from supernet.layers.elastic_depthwise import elastic_depthwise
from supernet.layers.resolution import resize
from supernet.standalone import mobilenet
from supernet.training.evaluation import Evaluator, calibrate
from tests.supernet.families import Family, small


@pytest.fixture(scope="module")
def family() -> Family:
    return small("mobilenet")


@pytest.mark.parametrize("activation", [None, "relu", "hard_swish"])
def test_gradient_is_that_of_the_formula(activation: str | None) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    x = 3 + 2 * jax.random.normal(keys[0], (4, 5, 6, 8))
    params = {"scale": 1 + jax.random.normal(keys[1], (8,)), "bias": jax.random.normal(keys[2], (8,))}
    direction = jax.random.normal(keys[3], x.shape)

    def by_hand(x: jax.Array, params: dict) -> jax.Array:
        return jnp.sum(direction * normalise(x, moments(x), params, activation))

    def formula(x: jax.Array, params: dict) -> jax.Array:
        z = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + BATCH_NORM_EPSILON)
        return jnp.sum(direction * activate(z * params["scale"] + params["bias"], activation))

    np.testing.assert_allclose(by_hand(x, params), formula(x, params), rtol=1e-5, atol=1e-3)
    for mine, automatic in zip(
        jax.tree.leaves(jax.grad(by_hand, (0, 1))(x, params)),
        jax.tree.leaves(jax.grad(formula, (0, 1))(x, params)),
        strict=True,
    ):
        np.testing.assert_allclose(mine, automatic, rtol=0, atol=1e-5 * np.abs(automatic).max())


def test_variance_survives_a_large_mean() -> None:
    x = 1000 + jax.random.normal(jax.random.key(0), (4096, 3))
    expected = np.asarray(x, np.float64).var(axis=0)
    # Subtracting squares would lose all digits: the square of the mean is 10⁶ times the variance.
    np.testing.assert_allclose(moments(x)["var"], expected, rtol=1e-3)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_elastic_kernel_is_the_centre(index: int, stride: int) -> None:
    sizes = (3, 5, 7)
    x = jax.random.normal(jax.random.key(0), (2, 9, 9, 8))
    kernel = jax.random.normal(jax.random.key(1), (7, 7, 8))

    def library(x: jax.Array, kernel: jax.Array) -> jax.Array:
        edge, half = (7 - sizes[index]) // 2, sizes[index] // 2
        middle = kernel[edge : 7 - edge, edge : 7 - edge, None]
        return jax.lax.conv_general_dilated(
            x, middle, (stride, stride), [(half, half)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=8,
        )  # fmt: skip

    ours, pull = jax.vjp(lambda x, k: elastic_depthwise(x, k, jnp.int32(index), sizes, stride), x, kernel)
    expected, pull_expected = jax.vjp(library, x, kernel)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    cotangent = jax.random.normal(jax.random.key(2), expected.shape)
    for mine, automatic in zip(pull(cotangent), pull_expected(cotangent), strict=True):
        np.testing.assert_allclose(mine, automatic, rtol=0, atol=1e-5 * np.abs(automatic).max())
        assert not np.any(np.asarray(mine)[np.asarray(automatic) == 0])


def test_statistics_are_the_mean_over_batches(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the extracted network, with every norm replaced by one in NumPy that uses and records its batch."""
    batches = jax.random.normal(jax.random.key(5), (3, *family.x.shape))
    for genes in family.draw(4):
        architecture, program = family.space.architecture(genes), family.space.program(genes)
        statistics = calibrate(family.net, family.params, jnp.asarray(genes), batches, program)
        module, _ = family.net.extract(family.params, architecture, statistics)
        stored, seen = {}, {}

        def by_batch(norm: mobilenet.BatchNorm, x: jax.Array, stored: dict = stored, seen: dict = seen) -> jax.Array:
            values = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
            mean, var = values.mean(axis=0), values.var(axis=0)
            stored[id(norm)] = norm.mean[...], norm.var[...]
            seen.setdefault(id(norm), []).append((mean, var))
            z = (np.asarray(x) - mean) / np.sqrt(var + BATCH_NORM_EPSILON)
            z = jnp.asarray(z, jnp.float32) * norm.scale[...] + norm.bias[...]
            return activate(z, norm.activation)

        monkeypatch.setattr(mobilenet.BatchNorm, "__call__", by_batch)
        for batch in batches:
            module(resize(batch, int(program[0])))
        monkeypatch.undo()
        assert len(seen) == sum(isinstance(node, mobilenet.BatchNorm) for _, node in nnx.iter_modules(module))
        for norm, recorded in seen.items():
            assert len(recorded) == len(batches)
            for kept, per_batch in zip(stored[norm], zip(*recorded, strict=True), strict=True):
                expected = np.mean(per_batch, axis=0)
                np.testing.assert_allclose(kept, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_calibration_traces_the_network_once(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    traced, apply = [], family.net.apply
    monkeypatch.setattr(family.net, "apply", lambda *given, **named: traced.append(1) or apply(*given, **named))
    genes, program = jnp.asarray(family.space.smallest.genes), family.space.program(family.space.smallest.genes)
    calibrate(family.net, family.params, genes, jnp.stack([family.x, family.x]), program)
    assert len(traced) == 1


def test_evaluation_does_not_remember_other_subnets(family: Family) -> None:
    space, images = family.space, np.asarray(family.x)
    labels = np.arange(len(images)) % 10
    evaluator = Evaluator(family.net, images, labels, batch_size=4, calibration=images.reshape(2, 4, *images.shape[1:]))
    one, other = space.extremes
    alone = evaluator(family.params, one[None])
    among = evaluator(family.params, np.stack([other, one, other, one]))
    assert alone.loss[0] == among.loss[1] == among.loss[3] != among.loss[0]
    assert alone.figure[0] == among.figure[1] == among.figure[3]


def test_a_subnet_without_statistics_is_refused(family: Family) -> None:
    with pytest.raises(UserError, match="statistics: missing"):
        family.net.extract(family.params, family.space.smallest)


def test_images_of_another_size_are_refused(family: Family) -> None:
    module = family.net.module(family.space.smallest)
    with pytest.raises(UserError, match="expected 6 x 6"):
        module(jnp.zeros((1, 8, 8, 1)))
