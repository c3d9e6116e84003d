"""Attention's stages and the dense layer against textbook formulas: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supernet.engine.stages import Context, Stage, pull_back, values_of
from supernet.families.attention import attend, mixed
from supernet.layers.linear import linear

STAGES = (
    Stage(lambda params, inputs, context: inputs[0]),
    attend(causal=True),
    Stage(lambda params, inputs, context: mixed(*inputs[1:])),
)


def _draw(*shapes):
    return tuple(jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))


@pytest.mark.parametrize("positions", [5, 64, 150, 300])
def test_causal_attention_in_blocks_is_masked_attention(positions):
    *projected, g = _draw((2, 2, 3, positions, 4), *[(2, 2, positions, 4)] * 2, (2, positions, 6, 4))

    def plain(q, k, v):
        scores = jnp.einsum("bgnqd,bgkd->bgnqk", q, k) / 2
        p = jax.nn.softmax(jnp.where(np.tri(positions, dtype=bool), scores, -jnp.inf))
        return jnp.einsum("bgnqk,bgkd->bqgnd", p, v).reshape(g.shape)

    *values, y = values_of(STAGES, {}, tuple(projected), Context())
    expected, pull = jax.vjp(plain, *projected)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert sum(p.size for p in values[-1]) < 12 * positions**2 or positions <= 64  # what nobody sees is not computed
    _, found = pull_back(STAGES, {}, tuple(values), g, Context())
    for own, other in zip(found, pull(g), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(3, 5), (5, 3)])
@pytest.mark.parametrize("rows", [(6,), (2, 3), (200_000,)])  # the last has large operands
def test_gradients_of_a_dense_layer(rows, sizes):
    x, kernel, bias, g = _draw((*rows, sizes[0]), sizes, sizes[1:], (*rows, sizes[1]))
    y, pull = jax.vjp(linear, x, {"kernel": kernel, "bias": bias})
    np.testing.assert_allclose(y, x @ kernel + bias, rtol=1e-4, atol=1e-5)
    d_x, found = pull(g)
    np.testing.assert_allclose(d_x, g @ kernel.T, rtol=1e-4, atol=1e-5)
    inputs, outputs = (np.asarray(a, np.float64).reshape(-1, a.shape[-1]) for a in (x, g))
    scale = len(inputs) ** 0.5  # of a sum of so many products
    np.testing.assert_allclose(found["kernel"] / scale, inputs.T @ outputs / scale, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["bias"] / scale, outputs.sum(axis=0) / scale, rtol=1e-5, atol=1e-5)
