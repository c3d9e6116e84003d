"""GeneNorms against norms of the weights that a layer, a depth or a width governs, taken by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search_spaces import MobileNetSpace, build_space
from supernet.engine.supernet import SUPERNETS, build_supernet
from supernet.training.gene_norms import GeneNorms
from tests.marks import sampled
from tests.supernet.families import small


def _random(tree):
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(structure, [jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves])


def _norm(*leaves):
    return np.sqrt(sum(float(jnp.sum(jnp.square(leaf))) for leaf in leaves))


def test_genes_of_a_vision_transformer_govern_their_sublayers():
    space = build_space("vit", "small", {"width": [16, 24], "depth": [1, 2, 3], "head_dim": 8})
    net = build_supernet(space)
    gradient = _random(jax.eval_shape(net.init, jax.random.key(0)))
    norms = np.asarray(jax.jit(GeneNorms(net))(gradient))
    layers = gradient["layers"]
    attention = layers["attention"]
    for i in range(3):
        expected = _norm(attention["qkv"]["kernel"][i], attention["qkv"]["bias"][i], attention["out"]["kernel"][i])
        np.testing.assert_allclose(norms[space.columns["heads"][i]], expected, rtol=1e-5)
        expected = _norm(layers["fc1"]["kernel"][i], layers["fc1"]["bias"][i], layers["fc2"]["kernel"][i])
        np.testing.assert_allclose(norms[space.columns["mlp_ratio"][i]], expected, rtol=1e-5)
    beyond = _norm(*(leaf[1:] for leaf in jax.tree.leaves(layers)))
    np.testing.assert_allclose(norms[space.columns["depth"]], beyond, rtol=1e-5)
    width = norms[space.columns["width"]]
    assert beyond < width <= _norm(*jax.tree.leaves(gradient)) + 1e-3


def test_genes_of_a_mobilenet_govern_their_block_and_a_resolution_everything():
    space = build_space("mobilenet", "small")
    assert isinstance(space, MobileNetSpace)
    net = build_supernet(space)
    gradient = _random(jax.eval_shape(net.init, jax.random.key(0)))
    norms = np.asarray(GeneNorms(net)(gradient))
    np.testing.assert_allclose(norms[space.columns["resolution"]], _norm(*jax.tree.leaves(gradient)), rtol=1e-5)
    kernel = gradient["stage_1"]["rest"]["depthwise"]["kernel"]
    columns = space.columns["kernel"].reshape(space.stages, -1)[1]
    for i in range(1, space.max_depth):
        np.testing.assert_allclose(norms[columns[i]], _norm(kernel[i - 1]), rtol=1e-5)


@pytest.mark.parametrize("family", sampled(SUPERNETS))
def test_genes_that_mean_nothing_in_a_path_have_no_gradient(family):
    one = small(family)
    space, row = one.space, np.array(one.space.smallest.genes, np.int32)
    norms = np.asarray(GeneNorms(one.net)(one.switched(row, space.program(row))[1]))
    active = space.active(row[None])[0]
    assert (norms[~active] == 0).all()
    # A depth of least may govern nothing that is used, and so may an operation without weights.
    sized = active & space.ordered
    assert (norms[sized] > 0).sum() >= sized.sum() - len(space.columns)


def test_a_gene_of_a_layer_that_sizes_no_weight_governs_its_sublayer():
    sizes = {"encoder_width": [16], "decoder_width": [16], "query_size": 16, "vocabulary": 20, "length": 30}
    space = build_space("translation", "small", sizes)
    net = build_supernet(space)
    gradient = _random(jax.eval_shape(net.init, jax.random.key(0)))
    norms = np.asarray(GeneNorms(net)(gradient))
    for i in range(3):
        for name in ("cross_heads", "memories"):
            expected = _norm(*(leaf[i] for leaf in jax.tree.leaves(gradient["decoder"]["layers"]["cross"])))
            np.testing.assert_allclose(norms[space.columns[name][i]], expected, rtol=1e-5)
        expected = _norm(*(leaf[i] for leaf in jax.tree.leaves(gradient["encoder"]["layers"]["attention"])))
        np.testing.assert_allclose(norms[space.columns["encoder_heads"][i]], expected, rtol=1e-5)


def test_an_edge_is_governed_by_its_node_s_inputs_and_the_operations_that_it_may_have():
    operations = {"normal_operations": ["dil_conv_5x5", "skip_connect"], "reduction_operations": ["sep_conv_3x3"]}
    space = build_space("darts", "small", {"cells": 3, "width": 2, "nodes": 3, **operations})
    net = build_supernet(space)
    gradient: Any = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), net.plain_shapes)
    stack = next(stack for stack in space.network.stacks if stack.path == "cell_0/edges")
    norms = GeneNorms(net)
    for (target, source), slots in {(4, 0): (4,), (4, 1): (4, 5), (4, 3): (5,), (2, 1): (1,)}.items():
        edge = [(edge.target, edge.source) for edge in stack.edges].index((target, source))
        one = jax.tree.map(np.copy, gradient)
        one["cell_0"]["edges"]["dil_conv_5x5"]["dilated"]["kernel"][edge] = 1
        governing = {space.column("normal_operations", 0, slot) for slot in slots}
        governing |= {space.column("normal_4_inputs")} if target == 4 else set()
        assert set(np.flatnonzero(norms(one))) == governing
