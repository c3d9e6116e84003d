"""Perturbed passes: equal to full-rank arithmetic for every family, antithetic, unbiased, and never a full matrix."""

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search_spaces import UserError
from supernet.engine.supernet import SUPERNETS
from supernet.evolution_strategy.perturbed import PerturbedPass
from tests.marks import sampled
from tests.supernet.families import small

WIDE = {"kernel": jax.random.normal(jax.random.key(0), (64, 48)), "bias": jnp.ones(48)}
X = jax.random.normal(jax.random.key(1), (4, 64))


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def equations(jaxpr):
    """All equations of a jaxpr and of those within it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("family", sampled(SUPERNETS))
def test_a_perturbed_pass_is_that_of_the_perturbed_weights(family):
    one = small(family)
    largest = np.array(one.space.largest.genes, np.int32)
    program = one.space.program(largest)
    drawn = [row for row in one.draw(64) if one.space.program(row) == program][-1]

    def forward(params, genes, x):
        return one.net.apply(params, genes, x, program=program)[0]

    passes = PerturbedPass(forward, one.params, (largest, one.x), rank=2)
    noise = passes.draw(jax.random.key(7))
    perturbed = jax.jit(lambda genes: passes(one.params, noise, 0.1, genes, one.x))
    plain = jax.jit(lambda params, genes: forward(params, genes, one.x))
    weights = passes.materialised(one.params, noise, 0.1)
    for genes in (largest, drawn):
        expected = plain(weights, genes)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(perturbed(genes), expected, rtol=1e-5, atol=1e-5 * scale)
        assert np.abs(expected - plain(one.params, genes)).max() > 0.05 * scale
    matrices = [leaf for leaf in passes.leaves if leaf.low_rank]
    assert matrices
    assert all(leaf.low_rank for leaf in passes.leaves if leaf.path.endswith("head/kernel"))


def test_no_array_of_a_member_is_as_large_as_the_matrix():
    passes = PerturbedPass(dense, WIDE, (X,), rank=2)

    def population(keys):
        def pair(key):
            noise = passes.draw(key)
            return jax.vmap(lambda sign: passes(WIDE, noise, sign * 0.1, X))(jnp.array([1.0, -1.0]))

        return jax.vmap(pair)(keys)

    keys = jax.random.split(jax.random.key(0), 8)
    found = list(equations(jax.make_jaxpr(population)(keys).jaxpr))
    most = max(prod(var.aval.shape) for equation in found for var in equation.outvars)
    assert most < 8 * 64 * 48
    assert most >= 16 * 4 * 48  # the outputs of all members are among them
    bases = [e for e in found if e.primitive.name == "dot_general" and e.invars[1].aval.shape == (64, 48)]
    assert len(bases) == 1


def test_noise_takes_rank_times_the_sides_of_a_matrix():
    assert PerturbedPass(dense, WIDE, (X,), rank=3).numbers == 3 * (64 + 48) + 48


def test_an_antithetic_pair_averages_to_the_plain_output():
    passes = PerturbedPass(dense, WIDE, (X,), rank=4)
    noise = passes.draw(jax.random.key(2))
    plus, minus = (passes(WIDE, noise, scale, X) for scale in (0.3, -0.3))
    np.testing.assert_allclose((plus + minus) / 2, dense(WIDE, X), atol=1e-4)
    assert np.abs(plus - minus).max() > 1


@pytest.mark.parametrize("rank", [1, 8])
def test_a_linear_fitness_gives_its_gradient(rank):
    shape, pairs = (6, 5), 20_000
    passes = PerturbedPass(lambda params, x: x @ params, jnp.zeros(shape), (jnp.ones((1, 6)),), rank)
    gradient = jax.random.normal(jax.random.key(3), shape)
    noise = jax.jit(jax.vmap(passes.draw))(jax.random.split(jax.random.key(4), pairs))
    each = jax.vmap(lambda own: passes.leaves[0].full(own, passes.unit))(noise[0])
    fitness = jnp.tensordot(each, gradient, 2)
    (total,) = passes.weighted_sum(fitness, noise)
    # The variance of an entry of f * E is |G|^2 (r + 2) / r plus smaller terms; five deviations of the mean.
    deviation = np.sqrt(np.sum(np.square(gradient)) * (1 + 3 / rank) / pairs)
    np.testing.assert_allclose(total / pairs, gradient, atol=5 * deviation)
    assert np.isclose(np.mean(np.square(each)), 1, atol=0.05)


def test_the_variance_of_the_estimate_falls_with_the_rank():
    def spread(rank):
        passes = PerturbedPass(lambda params, x: x @ params, jnp.zeros((6, 5)), (jnp.ones((1, 6)),), rank)
        noise = jax.vmap(passes.draw)(jax.random.split(jax.random.key(4), 4000))
        each = jax.vmap(lambda own: passes.leaves[0].full(own, passes.unit))(noise[0])
        return np.var(each[:, 0, 0] * each[:, 0, 0])

    assert spread(1) > 1.5 * spread(8) > 1.5 * spread(64)


def test_the_rank_of_the_update_grows_with_the_pairs():
    passes = PerturbedPass(lambda params, x: x @ params, jnp.zeros((12, 9)), (jnp.ones((1, 12)),), rank=2)
    for pairs, expected in ((1, 2), (3, 6), (5, 9), (8, 9)):
        noise = jax.vmap(passes.draw)(jax.random.split(jax.random.key(pairs), pairs))
        (total,) = passes.weighted_sum(jnp.arange(1.0, pairs + 1), noise)
        assert np.linalg.matrix_rank(np.asarray(total), tol=1e-4) == expected


def test_the_update_is_the_sum_of_full_perturbations_also_in_stacks():
    one = small("vit")
    genes = np.array(one.space.largest.genes, np.int32)
    program = one.space.program(genes)
    forward = lambda params, x: one.net.apply(params, jnp.asarray(genes), x, program=program)[0]  # noqa: E731
    passes = PerturbedPass(forward, one.params, (one.x,), rank=2)
    noise = jax.vmap(passes.draw)(jax.random.split(jax.random.key(5), 3))
    coefficients = jnp.array([0.5, -2.0, 1.0])
    for leaf, own, total in zip(passes.leaves, noise, passes.weighted_sum(coefficients, noise), strict=True):
        each = jnp.stack([leaf.full([factor[q] for factor in own], passes.unit) for q in range(3)])
        np.testing.assert_allclose(total, jnp.tensordot(coefficients, each, 1), atol=1e-4)


def test_layers_and_leaves_have_noise_of_their_own():
    def loop(params, x):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, params["stack"])[0] @ params["last"]

    params = {"last": jnp.ones((8, 8)), "stack": jnp.ones((3, 8, 8))}
    passes = PerturbedPass(loop, params, (jnp.ones((2, 8)),), rank=1)
    last, stack = passes.leaves
    assert (stack.reads, stack.writes) == ((1,), (2,))
    noise = passes.draw(jax.random.key(0))
    each = [last.full(noise[0], 1.0), *stack.full(noise[1], 1.0)]
    for i, a in enumerate(each):
        for b in each[:i]:
            assert np.abs(a - b).max() > 0.5
    weights = passes.materialised(params, noise, 0.2)
    expected = loop(weights, jnp.ones((2, 8)))
    np.testing.assert_allclose(passes(params, noise, 0.2, jnp.ones((2, 8))), expected, rtol=1e-5)


def test_joined_sliced_and_tied_matrices():
    def forward(params, tokens):
        x = params["table"][tokens] * params["scale"]
        both = jnp.concatenate([params["a"], params["b"].reshape(8, -1)], axis=1)
        y = x @ both[:, 2:9]
        return jnp.tanh(y) @ params["back"] @ (2.0 * params["table"]).T

    key = jax.random.key(1)
    shapes = {"table": (11, 8), "a": (8, 4), "b": (8, 2, 3), "back": (7, 8), "scale": (8,)}
    params = {name: jax.random.normal(jax.random.fold_in(key, i), s) for i, (name, s) in enumerate(shapes.items())}
    tokens = jnp.array([[0, 3, 10], [5, 5, 1]])
    passes = PerturbedPass(forward, params, (tokens,), rank=3)
    assert [leaf.low_rank for leaf in passes.leaves] == [True, True, True, False, True]
    noise = passes.draw(jax.random.key(2))
    expected = forward(passes.materialised(params, noise, 0.1), tokens)
    np.testing.assert_allclose(passes(params, noise, 0.1, tokens), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("forward", "named"),
    [
        (lambda w, x: x @ jnp.sort(w), "sort"),
        (lambda w, x: x @ w + jnp.sum(w**2), "integer_pow|square"),
        (lambda w, x: jnp.tensordot(x[:, :2], w.reshape(2, 2, 4), 1), "dot_general over other axes"),
    ],
)
def test_an_unknown_operation_is_refused_by_name(forward, named):
    with pytest.raises(UserError, match=rf"^train\.method: evolution_strategy cannot perturb .*({named}).*Use it"):
        PerturbedPass(forward, jnp.ones((4, 4)), (jnp.ones((4, 4)),), rank=1)
