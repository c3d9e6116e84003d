"""The description of every family and form names the weights of its plain module, and cuts what extraction cuts."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from search_spaces import UserError, build_space
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import Axis, linear
from supernet.engine.supernet import build_supernet
from supernet.weights.described import Weights
from tests.supernet.engine.test_language import FORMS
from tests.supernet.families import SETTINGS

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
