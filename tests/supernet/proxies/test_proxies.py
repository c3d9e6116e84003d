"""Zero-cost proxies: each by hand on a plain network, the same for a supernet's architecture, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from search_spaces import UserError, build_space
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.supernet import build_supernet
from supernet.proxies import PROXIES, Batch, PlainNetwork, Scoring, SupernetNetworks, consensus, proxies
from supernet.proxies.block_figures import block_figures
from tests.supernet.families import SETTINGS

NOTHING = np.zeros(0, np.int32)
COUNT, CLASSES = 6, 3
LABELS = np.arange(COUNT) % CLASSES
BLOCKS = ("expressivity", "progressivity", "trainability", "transmission")
LACKING: dict[str, str] = dict.fromkeys(BLOCKS, "blocks, and of a plain network none are known")
LACKING |= {"zen": "batch norms, and these networks have none"}


class Net(nnx.Module):
    """A convolution, a ReLU, means, a dense layer, a ReLU and a classifier."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(3, 5, rngs=rngs)
        self.head = nnx.Linear(5, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.dense(nnx.relu(self.conv(x)).mean(axis=(1, 2)))))


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(COUNT, 4, 4, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(x: np.ndarray) -> Scoring:
    networks = PlainNetwork(Net(nnx.Rngs(0)), jax.ShapeDtypeStruct(x.shape[1:], np.float32))
    return Scoring(networks, Batch(x, LABELS))


@pytest.fixture(scope="module")
def by_hand(x: np.ndarray) -> dict[str, float]:
    """The scores by their formulas, with JAX's own derivatives."""
    _, state = nnx.split(Net(nnx.Rngs(0)))
    weights = nnx.to_pure_dict(state)

    def parts(weights, x, bias=None):
        kernel = weights["conv"]["kernel"]
        bias = bias or [0.0, 0.0, 0.0]
        a = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        a = a + bias[0]
        z = jnp.maximum(a + weights["conv"]["bias"], 0)
        b = z.mean(axis=(1, 2)) @ weights["dense"]["kernel"] + bias[1]
        y = jnp.maximum(b + weights["dense"]["bias"], 0)
        c = y @ weights["head"]["kernel"] + bias[2]
        return c + weights["head"]["bias"], (a, b, c), (a + weights["conv"]["bias"], b + weights["dense"]["bias"])

    def loss(logits):
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(COUNT), LABELS])

    names = ("conv", "dense", "head")
    kernels = [weights[n]["kernel"] for n in names]

    def of_kernels(kernels):
        return loss(parts({n: {**weights[n], "kernel": k} for n, k in zip(names, kernels, strict=True)}, x)[0])

    g = jax.grad(of_kernels)(kernels)
    hg = jax.jvp(jax.grad(of_kernels), (kernels,), (g,))[1]
    _, outputs, reads = parts(weights, x)
    probes = [jnp.zeros_like(a) for a in outputs]
    ga = jax.grad(lambda p: loss(parts(weights, x, p)[0]))(probes)
    fisher = 0.0
    for a, of_a, kernel in zip(outputs, ga, kernels, strict=True):
        by_example = (a * of_a).reshape(COUNT, -1, a.shape[-1]).sum(axis=1)
        fisher += float((0.5 * (by_example**2).mean(axis=0)).sum() * kernel.size / kernel.shape[-1])
    jacobian = np.asarray(jax.grad(lambda x: parts(weights, x)[0].sum())(x), float).reshape(COUNT, -1)
    values = np.linalg.eigvalsh(np.corrcoef(jacobian)) + 1e-5
    by_class = [np.log(np.abs(np.corrcoef(jacobian[c == LABELS])) + 1e-5).sum() for c in range(CLASSES)]
    codes = [(np.asarray(r) > 0).reshape(COUNT, -1).astype(float) for r in reads]
    agreements = sum(c @ c.T + (1 - c) @ (1 - c).T for c in codes)
    positive = jax.tree.map(jnp.abs, weights)
    flow = jax.grad(lambda w: parts(w, np.ones_like(x[:1]))[0].sum())(positive)
    return {
        "grad_norm": sum(float(jnp.linalg.norm(a)) for a in g),
        "snip": sum(float(jnp.abs(a * w).sum()) for a, w in zip(g, kernels, strict=True)),
        "plain": sum(float((a * w).sum()) for a, w in zip(g, kernels, strict=True)),
        "grasp": -sum(float((a * w).sum()) for a, w in zip(hg, kernels, strict=True)),
        "fisher": fisher,
        "jacov": -float((np.log(values) + 1 / values).sum()),
        "epe_nas": float(np.abs(by_class).sum()),
        "nwot": float(np.linalg.slogdet(agreements)[1]),
        "synflow": float(np.log1p(sum(float((flow[n]["kernel"] * positive[n]["kernel"]).sum()) for n in names))),
        "l2": sum(float(jnp.linalg.norm(w)) for w in kernels),
        "params": float(sum(leaf.size for leaf in jax.tree.leaves(weights))),
        "flops": float(16 * 18 * 3 + 15 + 15),
    }


@pytest.mark.parametrize("name", list(PROXIES))
def test_a_proxy_is_its_formula(name: str, plain: Scoring, by_hand: dict[str, float]) -> None:
    proxy = PROXIES[name](plain)
    if name not in by_hand:
        assert proxy.lacks(NOTHING) == LACKING[name]
        return
    assert proxy.lacks(NOTHING) is None
    found = proxy(NOTHING)
    # jacov divides by eigenvalues of 1e-5; grasp's difference is exact to its step's square.
    assert found == pytest.approx(by_hand[name], rel={"jacov": 0.02, "grasp": 2e-3}.get(name, 1e-5))
    assert PROXIES[name](Scoring(plain.networks, plain.batch))(NOTHING) == found


# ---------------------------------------------------------------- a supernet's architectures


@pytest.fixture(scope="module")
def cells():
    """A supernet of cells with one edge to choose, and a scoring of it and of two of its networks on their own."""
    edges = {"edge_1_0": ["skip", "conv_3x3"], "edge_2_0": ["skip"], "edge_2_1": ["conv_1x1"], "edge_3_0": ["none"]}
    edges |= {"edge_3_1": ["pool_3x3"], "edge_3_2": ["conv_1x1"]}
    sizes = {"width": 2, "cells": 1, "stages": 1, "image_size": 4, "classes": CLASSES}
    net = build_supernet(build_space("nas_bench_201", "small", {**sizes, **edges}))
    assert isinstance(net, ElasticNetwork)
    params = net.init(jax.random.key(0))
    images = np.random.default_rng(1).normal(size=(COUNT, 4, 4, 3)).astype(np.float32)
    batch, alone = Batch(images, LABELS), []
    rows = np.array([[0] * 6, [1, 0, 0, 0, 0, 0]], np.int32)
    for row in rows:
        architecture = net.space.architecture(row)
        statistics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), net.statistics_shapes)
        module, _ = net.extract(params, architecture, statistics)
        alone.append(Scoring(PlainNetwork(module, net.example(architecture)), batch))
    return Scoring(SupernetNetworks(net, params), batch), rows, alone


@pytest.mark.parametrize("name", list(PROXIES))
def test_an_architecture_scores_as_its_network_alone(name: str, cells) -> None:
    shared, rows, alone = cells
    proxy = PROXIES[name](shared)
    scores = []
    for row, of in zip(rows, alone, strict=True):
        assert proxy.lacks(row) is None
        scores.append(proxy(row))
        assert np.isfinite(scores[-1])
        if name not in LACKING:  # zen's draws are of other trees
            expected = PROXIES[name](of)(NOTHING)
            assert scores[-1] == pytest.approx(expected, rel={"jacov": 0.02, "grasp": 0.02}.get(name, 2e-4), abs=1e-6)
    assert scores[0] != scores[1]


def test_figures_of_blocks_are_their_formulas(cells) -> None:
    shared, rows, _ = cells
    networks, x = shared.networks, jnp.asarray(shared.batch.x)
    stream, blocks = networks.blocks(networks.weights(rows[1]), jnp.asarray(rows[1]), x, ())
    (block,) = blocks
    before, after = stream[0], block(stream)[0]
    found = shared.blocks(rows[1])
    for features, of in zip((before, after), found.entropies, strict=True):
        values = np.linalg.eigvalsh(np.cov(np.asarray(features, float).reshape(-1, 2).T, bias=True))
        assert of == pytest.approx(-(values / values.sum() * np.log(values / values.sum())).sum(), rel=1e-4)
    # A stretch by W turns random signs into a mean outer product near W, so the spectral norm is near W's.
    kernel = np.random.default_rng(3).normal(size=(2, 2)).astype(np.float32)
    measured = block_figures(jnp.ones((4000, 2)), [lambda x: x @ kernel], jax.random.key(0))
    assert measured.norms[0] == pytest.approx(np.linalg.norm(kernel, 2), rel=0.1)
    assert measured.means[0] == pytest.approx(np.linalg.svd(kernel, compute_uv=False).mean(), rel=0.1)
    assert PROXIES["transmission"](shared)(rows[1]) == pytest.approx(np.log(found.means).mean())
    score = np.mean(2 - found.norms - 1 / found.norms)
    assert PROXIES["trainability"](shared)(rows[1]) == pytest.approx(score, rel=1e-3)
    assert PROXIES["expressivity"](shared)(rows[1]) == pytest.approx(found.entropies.sum())
    assert PROXIES["progressivity"](shared)(rows[1]) == pytest.approx(found.entropies[1] - found.entropies[0])


def test_positions_that_become_one_are_channels_of_a_block() -> None:
    x = np.random.default_rng(0).normal(size=(2000, 5, 4, 2)).astype(np.float32)
    measured = block_figures(jnp.asarray(x), [lambda x: x[:, ::2, ::2]], jax.random.key(0))
    assert measured.norms[0] == pytest.approx(1, rel=0.05)


def test_a_consensus_prefers_what_none_puts_low() -> None:
    a, b = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 3.0, 4.0, np.nan])
    found = consensus([a, b])
    assert (found.argmax(), found.argmin()) == (1, 3)
    expected = np.log(np.array([4, 3, 2, 1]) / 4) + np.log(np.array([2, 3, 4, 1]) / 4)
    np.testing.assert_allclose(found, expected)
    assert (consensus([np.ones(3)]) == np.log(2 / 3)).all()


def test_what_reads_no_labels_does_not_depend_on_them(cells) -> None:
    shared, rows, _ = cells
    other = Scoring(shared.networks, Batch(shared.batch.x, (LABELS + 1) % CLASSES))
    for name in ("nwot", "jacov", "l2"):
        assert PROXIES[name](shared)(rows[0]) == PROXIES[name](other)(rows[0])
    assert PROXIES["snip"](shared)(rows[0]) != PROXIES["snip"](other)(rows[0])


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("vit", "nwot", "ReLUs, and these networks have none"),
        ("vit", "zen", "batch norms, and these networks have none"),
        ("language", "jacov", "inputs with gradients, and these networks read tokens"),
        ("language", "synflow", "inputs that can be 1, and these networks read tokens"),
        ("language", "epe_nas", "one class an example, and these data have none"),
    ],
)
def test_what_networks_cannot_have_is_one_line(family: str, name: str, message: str) -> None:
    net = build_supernet(build_space(family, "small", SETTINGS[family]))
    assert isinstance(net, ElasticNetwork)
    example = net.example(net.space.largest)
    x = np.ones((6, *example.shape), example.dtype)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), net.shapes)
    scoring = Scoring(SupernetNetworks(net, params), Batch(x, x if x.dtype == np.int32 else LABELS))
    with pytest.raises(UserError) as error:
        proxies([name], scoring, np.array(net.space.largest.genes, np.int32), "rank.proxies")
    assert str(error.value) == f"rank.proxies: {name} needs {message}. Leave it out."


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match=r"proxy: 'nwott' is not known\. Did you mean 'nwot'"):
        PROXIES["nwott"]
