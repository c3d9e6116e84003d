"""The engine's switch against the plain formulation, of one sublayer and of layers: values, gradients, residuals."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supernet.engine.branches import Branches, layered, switched
from supernet.engine.stages import Context, Stage, run
from supernet.engine.views import Edges, Graph, Parallel, View
from supernet.layers.attention import batched_matmul, probabilities, probabilities_gradient
from supernet.weights.cuts import take

SIZES = (2, 3, 5)


def _hidden(params, inputs, context):
    return jnp.tanh(inputs[0] @ params["up"])


def _gate(params, inputs, context):
    x, h = inputs
    return h * jnp.sum(x, axis=1, keepdims=True)


def _gate_gradient(params, inputs, output, g, context):
    x, h = inputs
    total = jnp.sum(x, axis=1, keepdims=True)
    d_x = jnp.broadcast_to(jnp.sum(g * h, axis=1, keepdims=True), x.shape)
    return None, (d_x, g * total)


def _out(params, inputs, context):
    x, h, gated = inputs
    return x + (gated + h) @ params["down"] * context.genes["scale"]


STAGES = (Stage(_hidden), Stage(_gate, _gate_gradient), Stage(_out))
PARAMS = {
    "up": jax.random.normal(jax.random.key(0), (4, SIZES[-1])),
    "down": jax.random.normal(jax.random.key(1), (SIZES[-1], 4)),
}
CUTS = [{"up": (slice(0, 4), slice(0, size)), "down": (slice(0, size), slice(0, 4))} for size in SIZES]
X = jax.random.normal(jax.random.key(2), (6, 4))


def _loss(forward):
    return lambda params, x: jnp.sum(jnp.sin(forward(params, x)))


@pytest.mark.parametrize("index", range(len(SIZES)))
@pytest.mark.parametrize("genes", [1, 2])
def test_equals_the_plain_sublayer_forward_and_gradient(index, genes):
    context = Context(genes={"scale": jnp.asarray(genes)})
    plain = _loss(lambda p, x: run(STAGES, take(p, CUTS[index]), x, context))
    own = _loss(lambda p, x: switched(Branches(STAGES, CUTS), jnp.asarray(index), p, x, context))
    expected, grads = jax.value_and_grad(plain, argnums=(0, 1))(PARAMS, X)
    found, own_grads = jax.jit(jax.value_and_grad(own, argnums=(0, 1)))(PARAMS, X)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), own_grads, grads)
    assert (np.asarray(own_grads[0]["up"])[:, SIZES[index] :] == 0).all()


def test_index_minus_one_returns_the_input_and_no_gradient_to_the_weights():
    context = Context(genes={"scale": jnp.asarray(1)})
    own = _loss(lambda p, x: switched(Branches(STAGES, CUTS), jnp.asarray(-1), p, x, context))
    value, (grads, d_x) = jax.value_and_grad(own, argnums=(0, 1))(PARAMS, X)
    np.testing.assert_allclose(value, jnp.sum(jnp.sin(X)), rtol=1e-6)
    np.testing.assert_allclose(d_x, jnp.cos(X), rtol=1e-6)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(grads))


def _narrowing(params, inputs, context):
    return inputs[0] + inputs[1] @ params["down"] * context.genes["scale"]


def _reading(params, inputs, context):
    return jnp.tanh(inputs[0][1] @ params["up"])


def _adding(params, inputs, context):
    (total, source), h = inputs
    return total + h @ params["down"], source


LAYERS, SCALES = 4, (1, 2, 1, 1)
CHAINS = {False: (Stage(_hidden), Stage(_narrowing)), True: (Stage(_reading), Stage(_adding))}
STACKED = [
    {
        name: jax.random.normal(jax.random.key(10 * s + i), (LAYERS, *PARAMS[name].shape))
        for i, name in enumerate(PARAMS)
    }
    for s in range(2)
]
INDICES = ([0, -1, 2, 1], [1, 2, -1, 0]), ([-1] * LAYERS, [2] * LAYERS), ([-1] * LAYERS, [-1] * LAYERS)


VIEWS = {False: View(), True: Parallel()}


def _layered(parallel, indices):
    sublayers = [Branches(CHAINS[parallel], CUTS)] * 2
    genes = [{"scale": jnp.asarray(SCALES)}] * 2

    def forward(params, x):
        return layered(sublayers, [jnp.asarray(i) for i in indices], params, x, Context(), genes, VIEWS[parallel])

    return forward


def _one_by_one(parallel, indices):
    def forward(params, x):
        for layer in range(LAYERS):
            value = (x, x) if parallel else x
            for weights, index in zip(params, indices, strict=True):
                if index[layer] >= 0:
                    own = take({name: leaf[layer] for name, leaf in weights.items()}, CUTS[index[layer]])
                    value = run(CHAINS[parallel], own, value, Context(genes={"scale": jnp.asarray(SCALES[layer])}))
            x = value[0] if parallel else value
        return x

    return forward


@pytest.mark.parametrize("device", ["cpu", "other"])
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("indices", INDICES)
def test_layers_equal_the_plain_sublayers_one_by_one(indices, parallel, device, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    forward, plain = _layered(parallel, indices), _one_by_one(parallel, indices)
    output = plain(STACKED, X)
    np.testing.assert_allclose(jax.jit(forward)(STACKED, X), output, rtol=0, atol=1e-5 * np.abs(output).max())
    expected, grads = jax.value_and_grad(_loss(plain), argnums=(0, 1))(STACKED, X)
    found, own_grads = jax.jit(jax.value_and_grad(_loss(forward), argnums=(0, 1)))(STACKED, X)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), own_grads, grads)
    for weights, index in zip(own_grads[0], indices, strict=True):
        for layer, choice in enumerate(index):
            assert (np.asarray(weights["up"])[layer, :, SIZES[choice] if choice >= 0 else 0 :] == 0).all()


@pytest.mark.parametrize("device", ["cpu", "other"])
@pytest.mark.parametrize("reads", ["nodes", "inputs"])
def test_edges_of_a_graph_equal_sums_one_by_one(reads, device, monkeypatch):
    """Of four edges the first and the third lead to node 1; edges may read what earlier ones have added to."""
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    edges, indices = Edges((1, 2, 1, 2), (0, 1, 0, 0), reads), INDICES[0]
    other = X[::-1] * 0.5 if reads == "inputs" else None

    def graph(x):
        nodes = jnp.stack([x, jnp.zeros_like(x), jnp.zeros_like(x)])
        return Graph(nodes, None if other is None else jnp.stack([other, x]), jnp.sin(x))

    def forward(params, x):
        sublayers, genes = [Branches(CHAINS[True], CUTS)] * 2, [{"scale": jnp.asarray(SCALES)}] * 2
        found = layered(sublayers, [jnp.asarray(i) for i in indices], params, graph(x), Context(), genes, edges)
        return found.nodes[1] + jnp.cos(found.nodes[2]) * found.carried + found.nodes[0]

    def plain(params, x):
        whole = graph(x)
        nodes, inputs = list(whole.nodes), [] if whole.inputs is None else list(whole.inputs)
        for layer, (target, source) in enumerate(zip(edges.targets, edges.sources, strict=True)):
            value = nodes[target], (nodes if reads == "nodes" else inputs)[source]
            for weights, index in zip(params, indices, strict=True):
                if index[layer] >= 0:
                    own = take({name: leaf[layer] for name, leaf in weights.items()}, CUTS[index[layer]])
                    value = run(CHAINS[True], own, value, Context(genes={"scale": jnp.asarray(SCALES[layer])}))
            nodes[target] = value[0]
        return nodes[1] + jnp.cos(nodes[2]) * whole.carried + nodes[0]

    expected, grads = jax.value_and_grad(_loss(plain), argnums=(0, 1))(STACKED, X)
    found, own_grads = jax.jit(jax.value_and_grad(_loss(forward), argnums=(0, 1)))(STACKED, X)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), own_grads, grads)


def _copies_of_what_is_kept():
    gradient = jax.jit(jax.grad(_loss(_layered(False, INDICES[0])), argnums=(0, 1)))
    program = gradient.lower(STACKED, X).compile().as_text() or ""
    return len(re.findall(rf"= f32\[{LAYERS},{len(X)},{SIZES[-1]}\]\S* copy\(", program))


def test_a_layer_does_not_copy_what_others_keep(monkeypatch):
    assert _copies_of_what_is_kept() <= 2  # where the two sublayers' loops begin
    monkeypatch.setattr(
        "supernet.engine.branches.in_place",
        lambda index, branches, carry: jax.lax.switch(index + 1, [lambda carry: carry, *branches], carry),
    )
    assert _copies_of_what_is_kept() > 2


def test_collected_statistics_come_back_padded_to_the_largest_size():
    def collecting(params, inputs, context):
        h = inputs[0] @ params["up"]
        if context.collected is not None:
            context.collected["mean"] = h.mean(axis=0)
        return h

    stages = (Stage(collecting), Stage(lambda p, inputs, context: inputs[0] + inputs[1] @ p["down"]))
    context = Context(collected={})
    switched(Branches(stages, CUTS), jnp.asarray(0), PARAMS, X, context)
    mean = np.asarray((context.collected or {})["mean"])
    np.testing.assert_allclose(mean[: SIZES[0]], (X @ PARAMS["up"]).mean(axis=0)[: SIZES[0]], rtol=1e-5)
    assert mean.shape == (SIZES[-1],)
    assert (mean[SIZES[0] :] == 0).all()


def test_attention_gradient_by_hand_is_the_automatic_one():
    q, k, v = (jax.random.normal(jax.random.key(i), (3, 5, 4)) for i in range(3))

    def plain(q, k):
        return jax.nn.softmax(jnp.einsum("nqd,nkd->nqk", q, k) / 2.0)

    p, vjp = jax.vjp(plain, q, k)
    g = jax.random.normal(jax.random.key(9), p.shape)
    np.testing.assert_allclose(probabilities(q, k), p, rtol=1e-5, atol=1e-6)
    for found, expected in zip(probabilities_gradient(q, k, p, g), vjp(g), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    d_p, d_v = jax.vjp(batched_matmul, p, v)[1](v)
    np.testing.assert_allclose(d_p, jnp.einsum("nqd,nkd->nqk", v, v), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(d_v, jnp.einsum("nqk,nqd->nkd", p, v), rtol=1e-5, atol=1e-6)
