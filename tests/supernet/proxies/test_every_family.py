"""Proxies of the networks of every family: computed, or refused for what the networks lack."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context
from supernet.engine.supernet import SUPERNETS
from supernet.proxies import PROXIES, Batch, Scoring, SupernetNetworks
from supernet.tasks import tokens
from supernet.tasks.classes import CLASSES
from tests.marks import sampled
from tests.supernet.families import small

BLOCKS = {"expressivity", "progressivity", "trainability", "transmission"}
IN_ONE_STREAM = {"vit", "mobilenet", "language", "encoder", "nas_bench_201"}
"""Families whose blocks each read the one before alone. In a graph of cells, two streams or several members, what is
between blocks has no one entropy, and a chain of them would be another network."""


FAST = {"vit", "language", "vit_ensemble"}  # the others' programs take long to compile
FAMILIES = [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in SUPERNETS]


@cache
def scoring(family: str) -> Scoring:
    one = small(family)
    assert isinstance(one.net, ElasticNetwork)
    labels = np.random.default_rng(0).integers(0, 2, one.direction.shape[:-1])
    outputs = CLASSES if labels.ndim == 1 else tokens.OUTPUTS
    return Scoring(SupernetNetworks(one.net, one.params), Batch(np.asarray(one.x), labels, outputs))


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_known_where_they_follow_each_other(family: str) -> None:
    genes = np.array(small(family).space.largest.genes, np.int32)
    refused = {name for name in BLOCKS if PROXIES[name](scoring(family)).lacks(genes) is not None}
    assert refused == (set() if family in IN_ONE_STREAM else BLOCKS)


@pytest.mark.parametrize("family", ["vit", pytest.param("nas_bench_201", marks=pytest.mark.slow)])
def test_blocks_one_after_the_other_are_the_network(family: str) -> None:
    one = small(family)
    assert isinstance(one.net, ElasticNetwork)
    net, row = one.net, one.draw(4)[-1]
    genes, program = jnp.asarray(row), one.space.program(row)

    def in_blocks(params, x):
        stream, blocks = SupernetNetworks(net, params).blocks(params, genes, x, program)
        for block in blocks:
            stream = block(stream)
        context = Context(x.shape, net.known(program), input=x)
        return net.head(net.weights.taken(params, one.space.network.outside_layers, context.values), stream, context)

    whole = jax.jit(lambda params, x: net.apply(params, genes, x, program=program)[0])(one.params, one.x)
    np.testing.assert_allclose(jax.jit(in_blocks)(one.params, one.x), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", sampled(SUPERNETS))
def test_what_is_not_refused_is_computed(family: str) -> None:
    of, one = scoring(family), small(family)
    for genes in (np.array(one.space.largest.genes, np.int32), one.draw(4)[-1]):
        for name in PROXIES:
            proxy = PROXIES[name](of)
            if proxy.lacks(np.array(one.space.largest.genes, np.int32)) is None:
                assert np.isfinite(proxy(genes)), name
