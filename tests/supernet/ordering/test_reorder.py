"""Order by importance: the function stays, prefixes descend in importance, and batches add up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.ordering import random_scores
from search_spaces import UserError
from supernet.engine.supernet import build_supernet
from supernet.families.language import LanguageSupernet
from supernet.layers.rotary import rotate
from supernet.ordering.importance import Importance, importance
from supernet.ordering.reorder import reordered
from tests.supernet.engine.test_language import FORMS, family_of
from tests.supernet.engine.test_parity import assert_close


def net_of(form: str) -> LanguageSupernet:
    net = family_of(form).net
    assert isinstance(net, LanguageSupernet)
    return net


@pytest.mark.parametrize("form", FORMS)
def test_the_function_stays_and_what_matters_comes_first(form: str) -> None:
    family, net = family_of(form), net_of(form)
    scores = importance(net, family.params, [family.x])
    params = reordered(family.space, family.params, scores)
    genes = np.array(family.space.largest.genes, np.int32)
    program = family.space.program(genes)
    run = jax.jit(lambda params: net.apply(params, jnp.asarray(genes), family.x, program=program)[0])
    assert_close(run(params), run(family.params))
    again = importance(net, params, [family.x])
    for descending in (again.channels, again.units, again.heads, np.linalg.norm(again.heads, axis=-1)):
        assert (np.diff(descending, axis=-1) <= 1e-5 * descending.max()).all()
    for before, after in zip(scores, again, strict=True):
        flat = [np.sort(part.reshape(len(part), -1)) if part.ndim > 1 else np.sort(part) for part in (before, after)]
        np.testing.assert_allclose(*flat, rtol=1e-3)


@pytest.mark.parametrize("form", ["llama", "llama_biases", "gpt_neox"])
def test_where_the_rest_does_nothing_a_prefix_is_the_whole_network(form: str) -> None:
    family, net = family_of(form), net_of(form)
    space, rng = net.space, np.random.default_rng(0)
    layers = jax.tree.map(np.array, family.params["layers"])
    idle = {"kv_heads": layers["attention"]["v"], "mlp_width": layers["mlp"]["up"]}
    genes = np.array(space.largest.genes, np.int32)
    for choice, weights in idle.items():
        smallest, *_, largest = getattr(space, choice)
        genes[space.columns[choice]] = 0
        for layer in range(space.max_depth):
            places = rng.permutation(largest)[: largest - smallest]
            weights["kernel"][layer][:, places] = 0
            if "bias" in weights:
                weights["bias"][layer][places] = 0
    params = {**family.params, "layers": layers}
    scores = importance(net, params, [family.x])
    run = jax.jit(
        lambda params, genes: net.apply(params, genes, family.x, program=space.program(space.largest.genes))[0]
    )
    whole = run(params, jnp.asarray(space.largest.genes, jnp.int32))
    assert_close(run(reordered(space, params, scores), genes), whole)
    for order in (params, reordered(space, params, random_scores(scores, 0))):
        assert np.abs(run(order, genes) - whole).max() > 0.01 * np.abs(whole).max()


def test_scores_of_one_layer_by_hand() -> None:
    family = family_of("llama")
    module, _ = family.net.extract(family.params, family.space.largest)
    scores = importance(net_of("llama"), family.params, [family.x])
    x = module.embedding[...][family.x]  # type: ignore[attr-defined]
    layer = module.layers[0]  # type: ignore[attr-defined]
    mixed, _ = layer.attention(layer.attention.norm(x), jnp.arange(7), None)
    read = layer.mlp.norm(x + mixed)
    units = jax.nn.silu(layer.mlp.gate(read)) * layer.mlp.up(read)
    expected = np.linalg.norm(np.abs(units).mean(axis=1), axis=0)
    np.testing.assert_allclose(scores.units[0], expected, rtol=1e-4)
    attention, normed = layer.attention, layer.attention.norm(x)
    q, k, v = (getattr(attention, name)(normed).reshape(8, 7, -1, 8).swapaxes(1, 2) for name in "qkv")
    q, k = (rotate(part, jnp.arange(7), 500.0 ** (-np.arange(4, dtype=np.float32) / 4)) for part in (q, k))
    for head in range(4):
        weights = jnp.where(jnp.tri(7, dtype=bool), q[:, head] @ k[:, head // 2].swapaxes(1, 2) * 8**-0.5, -jnp.inf)
        read = jax.nn.softmax(weights) @ v[:, head // 2]
        expected = np.linalg.norm(np.abs(read).mean(axis=1))
        np.testing.assert_allclose(scores.heads[0].reshape(-1)[head], expected, rtol=1e-4)


@pytest.mark.parametrize("form", ["llama", "gpt_neox", "bert"])  # untied, parallel, with a bias of the logits
def test_layers_are_scored_by_the_logits_without_them(form: str) -> None:
    family, net = family_of(form), net_of(form)
    deepest = net.space.max_depth

    def run(depth: int, last: int) -> jax.Array:
        """Logits of the largest network of some layers, of which `last` is left out first."""
        order = (*(i for i in range(deepest) if i != last), last)
        space = dataclasses.replace(net.space, keep="ranked", layer_order=order, depth=(deepest - 1, deepest))
        genes = np.array(space.largest.genes)
        genes[space.columns["depth"]] = space.depth.index(depth)
        return build_supernet(space).apply_sliced(family.params, space.architecture(genes), family.x)

    whole = run(deepest, 0)
    expected = [jnp.sum((run(deepest - 1, i) - whole) ** 2) / jnp.sum(whole**2) for i in range(deepest)]
    np.testing.assert_allclose(importance(net, family.params, [family.x]).layers, expected, rtol=1e-3)


def test_a_layer_that_adds_nothing_comes_last() -> None:
    family = family_of("llama")
    layers = jax.tree.map(jnp.copy, family.params["layers"])
    for sublayer, part in (("attention", "out"), ("mlp", "down")):
        kernel = layers[sublayer][part]["kernel"]
        layers[sublayer][part]["kernel"] = kernel.at[1].set(0)
    scores = importance(net_of("llama"), {**family.params, "layers": layers}, [family.x])
    assert scores.layers[1] == 0
    assert (np.delete(scores.layers, 1) > 1e-4).all()
    assert scores.layer_order[-1] == 1
    assert sorted(scores.layer_order) == [0, 1, 2, 3]


def test_batches_add_up() -> None:
    family, net = family_of("gpt2"), net_of("gpt2")
    whole = importance(net, family.params, [family.x])
    parts = importance(net, family.params, [family.x[:4], family.x[4:]])
    for name, one, other in zip(Importance._fields, whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, err_msg=name)
    with pytest.raises(UserError, match="calibration: no tokens"):
        importance(net, family.params, [])
