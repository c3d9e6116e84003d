"""The description of every family and form names the weights of its plain module, and cuts what extraction cuts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from search_spaces import UserError, build_space
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import Axis, linear
from supernet.engine.supernet import SUPERNETS, build_supernet
from supernet.weights.described import Weights
from tests.supernet.engine.test_language import FORMS
from tests.supernet.families import SETTINGS, small

LAYERS = {
    "heads_follow_width": {"heads_follow_width": True, "kv_heads": [2, 3]},
    "equidistant": {"keep": "equidistant"},
    "ranked": {"keep": "ranked", "layer_order": [2, 0, 1]},
    "uniform": {"uniform": True},
}
CASES = {
    "vit": ("vit", {"class_token": True}),
    **{form: ("language", settings) for form, settings in {**FORMS, **LAYERS}.items()},
}


def test_an_edge_of_a_mixture_weighs_as_often_as_random_cells_have_it() -> None:
    """By all choices of one node: which inputs it has, and the operation of each."""
    operations = ["sep_conv_3x3", "max_pool_3x3", "skip_connect"]
    space = build_space("darts", "small", {"nodes": 3, "normal_operations": operations})
    relaxed = np.zeros((space.num_genes, max(space.cardinalities)))
    for row, count in zip(relaxed, space.cardinalities, strict=True):
        row[:count] = np.random.default_rng(count).dirichlet(np.ones(count))
    columns = [space.column("normal_4_inputs"), *(space.column("normal_operations", 0, slot) for slot in (4, 5))]
    stack = next(stack for stack in space.network.stacks if stack.path == "cell_0/edges")
    found = Weights(space).relaxed(jnp.asarray(relaxed, jnp.float32), stack, ("normal_operations",))
    expected = np.zeros((len(stack.edges), 3))
    for values in np.ndindex(*space.cardinalities[columns].tolist()):
        genes = np.zeros(space.num_genes, np.int32)
        genes[columns] = values
        for layer in space.active_layers(space.architecture(genes)):
            if layer.stack is stack and stack.edges[layer.number].target == 4:
                operation = operations.index(str(layer.values["normal_operations"]))
                expected[layer.number, operation] += relaxed[columns, values].prod()
    of_node = [edge.target == 4 for edge in stack.edges]
    assert sum(of_node) == 4
    np.testing.assert_allclose(np.asarray(found["normal_operations"])[of_node], expected[of_node], rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_description_is_that_of_the_weights(case: str) -> None:
    family, settings = CASES[case]
    space = build_space(family, "small", {**SETTINGS[family], **settings})
    net, weights = build_supernet(space), Weights(space)
    params: Any = jax.tree.map(np.asarray, net.init(jax.random.key(0)))
    again = weights.init(net.module(space.largest, nnx.Rngs(jax.random.key(0))))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    for genes in space.sample(np.random.default_rng(1), 10):
        architecture = space.architecture(genes)
        found, expected = weights.slice(params, architecture, {}), net.slice(params, architecture, {})
        jax.tree.map(np.testing.assert_array_equal, found, expected)


class _Plain(nnx.Module):
    """Two layers, `up`, and a head."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Dict(up=nnx.Linear(4, 6, rngs=rngs)) for _ in range(2)])
        self.head = nnx.Linear(4, 3, rngs=rngs)


@pytest.mark.parametrize(
    ("classes", "hidden", "part", "bias", "expected"),
    [
        (3, 7, "up", True, "part layers/0/up/kernel: axis hidden has 7 entries, and the plain module's weight 6."),
        (5, 6, "up", True, "part head/kernel: axis 5 has 5 entries, and the plain module's weight 3."),
        (3, 6, "down", True, "part layers/0/down/kernel: the plain module has no such weight."),
        (3, 6, "up", False, "the plain module's weight layers/0/up/bias is named by no part."),
    ],
)
def test_a_description_that_contradicts_the_plain_module_is_refused(classes, hidden, part, bias, expected) -> None:
    space: Any = build_space("vit", "small", {"width": [4], "depth": [2]})
    up = linear(Axis("width"), Axis("hidden", ("width",), lambda _: hidden), bias=bias)
    stack = Stack("layers", (Sublayer("layer", {part: up}),), 2)
    space.__dict__["network"] = Network(Sublayer("outside_layers", {"head": linear(Axis("width"), classes)}), (stack,))
    with pytest.raises(UserError) as error:
        Weights(space).init(_Plain())
    assert f"network: {expected}" in str(error.value)


@pytest.mark.parametrize("family", SUPERNETS)
def test_shapes_are_those_of_fresh_weights(family: str) -> None:
    net = small(family).net
    of = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert of(net.shapes) == of(net.init(jax.random.key(0)))
