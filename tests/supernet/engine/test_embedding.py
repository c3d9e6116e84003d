"""Embedding is the inverse of extraction: the same weights come out, and the engine computes the plain network."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from search_spaces import Architecture
from supernet.engine.embedding import embed, embed_statistics, owned
from supernet.engine.supernet import SUPERNETS
from supernet.training.optimizer import OptimizerSettings
from supernet.training.training import TrainStep
from tests.marks import sampled
from tests.supernet.families import Family, small


@pytest.fixture(params=sampled(SUPERNETS))
def family(request: pytest.FixtureRequest) -> Family:
    return small(request.param)


def drawn(family: Family, architecture: Architecture) -> nnx.Module:
    """The plain module; every weight differs from 0 and from what it is initialised with. Nothing is compiled."""
    module, rng = nnx.eval_shape(lambda: family.net.module(architecture)), np.random.default_rng(0)
    for kind, values in ((nnx.Param, partial(rng.normal, 0, 0.5)), (nnx.BatchStat, partial(rng.uniform, 0.5, 1.5))):
        shapes = nnx.to_pure_dict(nnx.state(module, kind))
        filled = jax.tree.map(lambda leaf, values=values: jnp.asarray(values(leaf.shape), jnp.float32), shapes)
        nnx.update(module, filled)
    return module


def test_what_is_embedded_is_extracted_again_and_nothing_besides(family: Family) -> None:
    for genes in family.draw(10):
        architecture = family.space.architecture(genes)
        module = drawn(family, architecture)
        weights = nnx.to_pure_dict(nnx.state(module))
        full = embed(family.net, weights, architecture)
        assert jax.tree.map(jnp.shape, full) == jax.tree.map(jnp.shape, family.params)
        _, again = family.net.extract(full, architecture, family.moments)
        again, expected = (
            nnx.to_pure_dict(nnx.state(_filled(family, architecture, w), nnx.Param)) for w in (again, weights)
        )
        jax.tree.map(np.testing.assert_array_equal, again, expected)
        inside = sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(expected))
        assert sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(full)) == inside


def test_the_description_says_whether_there_are_statistics(family: Family) -> None:
    assert family.net.has_statistics == bool(jax.tree.leaves(family.net.statistics_shapes))


def test_with_its_statistics_all_of_a_network_is_extracted_again(family: Family) -> None:
    for genes in family.draw(4):
        architecture = family.space.architecture(genes)
        weights = nnx.to_pure_dict(nnx.state(drawn(family, architecture)))
        params, moments = (put(family.net, weights, architecture) for put in (embed, embed_statistics))
        assert jax.tree.map(jnp.shape, moments) == jax.tree.map(jnp.shape, family.net.statistics_shapes)
        _, again = family.net.extract(params, architecture, moments)
        jax.tree.map(np.testing.assert_array_equal, again, weights)


def test_a_network_owns_as_many_entries_as_it_has_weights(family: Family) -> None:
    for genes in family.draw(4):
        architecture = family.space.architecture(genes)
        module, own = drawn(family, architecture), owned(family.net, architecture)
        full = embed(family.net, nnx.to_pure_dict(nnx.state(module)), architecture)
        count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
        assert sum(int(np.sum(leaf)) for leaf in jax.tree.leaves(own)) == count
        assert all(jax.tree.leaves(jax.tree.map(lambda leaf, at: bool(np.all(at | (leaf == 0))), full, own)))


def _filled(family: Family, architecture, weights) -> nnx.Module:
    module = nnx.eval_shape(lambda: family.net.module(architecture))
    nnx.update(module, weights)
    return module


def test_the_engine_computes_the_embedded_network(family: Family) -> None:
    forward = jax.jit(
        lambda p, g, x, s, program: family.net.apply(p, g, x, program=program, statistics=s)[0],
        static_argnames="program",
    )
    for genes in family.draw(4):
        architecture, program = family.space.architecture(genes), family.space.program(genes)
        module = drawn(family, architecture)
        full = embed(family.net, nnx.to_pure_dict(nnx.state(module)), architecture)
        if family.moments is not None:  # the plain module computes with stored moments
            nnx.update(module, family.net.slice(full, architecture, family.moments))
        logits = forward(full, genes, family.x, family.moments, program)
        expected = module(family.input(architecture))
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_training_leaves_everything_outside_at_zero(family: Family) -> None:
    genes = family.draw(3)[2]
    architecture = family.space.architecture(genes)
    module = drawn(family, architecture)
    full = embed(family.net, nnx.to_pure_dict(nnx.state(module)), architecture)
    outside = jax.tree.map(lambda leaf: np.asarray(leaf) == 0, full)
    step = TrainStep(family.net, OptimizerSettings(learning_rate=0.01).build(10), average_decay=0.9)
    state = step.init(full)
    targets = jnp.arange(family.direction[..., 0].size).reshape(family.direction.shape[:-1]) % family.net.classes
    for _ in range(3):
        state, _ = step(state, genes[None], ("random",), np.ones(1, np.float32), family.x, targets)
    for tree in (state.params, state.average):
        for (path, leaf), away in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(outside), strict=True):
            assert not np.any(np.asarray(leaf)[away]), jax.tree_util.keystr(path)
    moved = jax.tree.map(lambda leaf, away: np.asarray(leaf)[~away], state.params, outside)
    before = embed(family.net, nnx.to_pure_dict(nnx.state(module)), architecture)
    assert any(
        np.any(a != np.asarray(b)[~c]) for a, b, c in zip(*map(jax.tree.leaves, (moved, before, outside)), strict=True)
    )
