"""The depthwise convolution against XLA's own, forward and gradient; both of its formulations."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supernet.layers.depthwise import _library, _library_backward, _products, _products_backward, depthwise

KERNELS, STRIDES = (1, 3, 5, 7), (1, 2)
SHAPES = [
    (2, 1, 1, 3),  # smaller than every kernel
    (3, 2, 5, 8),  # a batch and a height that nothing divides
    (4, 8, 8, 16),
    (1, 7, 9, 5),  # one image, odd sizes
    (8, 4, 4, 24),  # several images in one sum
    (2, 6, 37, 4),  # wider than a tile, and no multiple of it
]
# Both sum k² products in fp32 in another order; the kernel's gradient sums b·h·w products.
RELATIVE = 1e-5


def draw(shape: tuple[int, ...], kernel: int, stride: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Input, kernel and cotangent."""
    rng = np.random.default_rng(0)
    out = (shape[0], *((n - 1) // stride + 1 for n in shape[1:3]), shape[3])
    sizes = (shape, (kernel, kernel, shape[3]), out)
    x, k, g = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in sizes)
    return x, k, g


def both(convolve: Callable, stride: int) -> Callable:
    """A jitted function that returns the output and the gradients of input and kernel."""

    def call(x: jax.Array, k: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        y, pull_back = jax.vjp(lambda x, k: convolve(x, k, stride), x, k)
        return y, *pull_back(g)

    return jax.jit(call)


def assert_close(actual: jax.Array, expected: jax.Array) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=RELATIVE, atol=RELATIVE * float(jnp.abs(expected).max()))


@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product(KERNELS, STRIDES)))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients_are_those_of_the_library(shape, kernel, stride):
    x, k, g = draw(shape, kernel, stride)
    for ours, theirs in zip(both(depthwise, stride)(x, k, g), both(_library, stride)(x, k, g), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("stride", STRIDES)
def test_padding_is_half_the_kernel_on_every_side(stride):
    kernel = jnp.zeros((5, 5, 1)).at[0, 4].set(1.0)  # reads two rows up and two columns right
    x = jnp.arange(36.0).reshape(1, 6, 6, 1)
    expected = np.zeros((6, 6), np.float32)
    expected[2:, :4] = np.arange(36.0).reshape(6, 6)[:4, 2:]
    np.testing.assert_array_equal(depthwise(x, kernel, stride)[0, :, :, 0], expected[::stride, ::stride])


def test_both_formulations_are_reachable_and_agree():
    x, k, g = draw((2, 5, 6, 4), 3, 2)
    assert_close(_products(x, k, 2), _library(x, k, 2))
    for ours, theirs in zip(_products_backward(x, k, g, 2), _library_backward(x, k, g, 2), strict=True):
        assert_close(ours, theirs)


def test_cpu_compiles_no_convolution_and_other_devices_the_library_one():
    x, k, _ = draw((2, 8, 8, 4), 3, 1)
    loss = jax.jit(jax.grad(lambda x, k: depthwise(x, k, 1).sum(), argnums=(0, 1)))
    text = {p: loss.trace(x, k).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda", "tpu")}
    assert "stablehlo.convolution" not in text["cpu"]
    assert "stablehlo.convolution" in text["cuda"]
    assert "stablehlo.convolution" in text["tpu"]


def test_works_inside_switch_and_scan_under_jit():
    x, _, _ = draw((2, 6, 6, 4), 3, 1)
    kernels = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5, 5, 4)), jnp.float32)

    def network(kernels: jax.Array, sizes: jax.Array, x: jax.Array) -> jax.Array:
        branches = [lambda x, k: depthwise(x, k[1:4, 1:4], 1), lambda x, k: depthwise(x, k, 1)]
        step = lambda x, inputs: (jax.lax.switch(inputs[1], branches, x, inputs[0]), None)  # noqa: E731
        return jax.lax.scan(step, x, (kernels, sizes))[0]

    sizes = jnp.array([0, 1, 0])
    loss = lambda k: jnp.sum(network(k, sizes, x) ** 2)  # noqa: E731

    def plain(k: jax.Array) -> jax.Array:
        y = _library(_library(_library(x, k[0, 1:4, 1:4], 1), k[1], 1), k[2, 1:4, 1:4], 1)
        return jnp.sum(y**2)

    value, grad = jax.jit(jax.value_and_grad(loss))(kernels)
    expected, expected_grad = jax.value_and_grad(plain)(kernels)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-4, atol=1e-4 * float(jnp.abs(expected_grad).max()))
