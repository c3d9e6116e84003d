"""Networks of every family as ONNX files: ONNX Runtime computes what the exported network computes."""

import os
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image, ImageOps

from search_spaces import UserError, build_space
from supernet.engine.supernet import SUPERNETS, build_supernet
from supernet.export.export import largest_difference
from supernet.export.generate import generate
from supernet.export.subnet import Subnet
from supernet.standalone.language import LanguageModel
from supernet.tasks.arrays import Standardised
from supernet.tasks.classes import CLASSES
from supernet.tasks.images import Preprocessing
from supernet.tasks.numbers import Numbers
from tests.marks import OF_THEIR_OWN, sampled
from tests.supernet.exports import examples_of, expected_of, subnet_of
from tests.supernet.families import SETTINGS, Family, small

pytest.importorskip("onnxruntime", reason="needs the extra onnx: pip install 'supernest[onnx]'")

from supernet.onnx.network import Settings, onnx_network
from supernet.onnx.pictures import fitted
from supernet.onnx.runtime import generated, run, session

NETWORKS = int(os.environ.get("SUPERNEST_ONNX_NETWORKS", "3"))
TOLERANCE = 1e-4  # of a network in fp32, relative to the largest output


@pytest.fixture(params=sampled(SUPERNETS, OF_THEIR_OWN))
def family(request: pytest.FixtureRequest) -> Family:
    return small(request.param)


# SUPERNEST_ONNX_NETWORKS=50 tries fifty.
def test_random_networks_agree_at_any_batch_size(family: Family) -> None:
    for genes in family.draw(NETWORKS):
        subnet = subnet_of(family, genes)
        loaded = session(onnx_network("net", subnet, Settings()), threads=1)
        examples = examples_of(subnet, 3)
        expected = expected_of(family, genes, subnet, examples)
        for count in (1, 3):
            assert largest_difference(run(loaded, examples[:count]), expected[:count]) <= TOLERANCE


def operators(subnet: Subnet, **settings: Any) -> Counter[str]:
    return Counter(node.op_type for node in onnx_network("net", subnet, Settings(**settings)).graph.node)


@pytest.mark.parametrize(("batch", "opset"), [(None, 20), (None, 23), (1, 20), (2, 20)])
def test_norms_and_activations_are_one_node_each(batch: int | None, opset: int) -> None:
    vit = subnet_of(small("vit"), np.array(small("vit").space.largest.genes))
    found = operators(vit, batch=batch, opset=opset)
    depth = len(vit.module.layers)  # type: ignore[union-attr]
    attention = found["Softmax"] + found["Attention"]
    assert (found["LayerNormalization"], found["Gelu"], attention) == (2 * depth + 1, depth, depth)
    assert not found.keys() & {"RMSNormalization", "Sqrt", "Reciprocal", "Tanh", "Exp", "Pow", "ReduceSum"}


@pytest.mark.parametrize("batch", [None, 2])
def test_linear_layers_are_gemms_and_attention_an_operator_where_there_is_one(batch: int | None) -> None:
    vit = subnet_of(small("vit"), np.array(small("vit").space.largest.genes))
    depth = len(vit.module.layers)  # type: ignore[union-attr]
    found = operators(vit, batch=batch)
    assert (found["Gemm"], found["MatMul"]) == (4 * depth, 2 * depth + 4)  # the resize, patches and head are products
    assert found["Transpose"] <= 4 * depth + 3
    found = operators(vit, batch=batch, opset=23)
    assert found["Attention"] == depth
    assert "Softmax" not in found
    assert found["Mul"] == 1  # of the preprocessing
    examples = examples_of(vit, 2)
    model = onnx_network("net", vit, Settings(batch=batch, opset=23))
    assert largest_difference(run(session(model), examples, batch), vit.predict(examples)) <= TOLERANCE


def test_a_mobilenet_is_convolutions_and_activations_alone() -> None:
    family = small("mobilenet")
    found = operators(subnet_of(family, np.array(family.space.largest.genes)))
    assert not found.keys() & {"BatchNormalization", "Sqrt", "Slice", "Concat", "Pad"}
    assert found["Conv"] > 10


def test_root_mean_squares_are_one_node_where_the_operators_have_it() -> None:
    family = small("language")
    subnet = subnet_of(family, np.array(family.space.largest.genes))
    model = onnx_network("net", subnet, Settings(opset=23))
    assert sum(node.op_type == "RMSNormalization" for node in model.graph.node) == 2 * len(subnet.module.layers) + 1  # type: ignore[union-attr]
    examples = examples_of(subnet, 2)
    assert largest_difference(run(session(model), examples), subnet.predict(examples)) <= TOLERANCE


def test_generation_through_the_cache_is_token_for_token() -> None:
    family = small("language")
    for genes in family.draw(2):
        subnet = subnet_of(family, genes)
        assert isinstance(subnet.module, LanguageModel)
        loaded = session(onnx_network("net", subnet, Settings()), threads=1)
        prompt = examples_of(subnet, 2)[:, :2]
        expected = generate(subnet.module, jnp.asarray(prompt), 5)
        np.testing.assert_array_equal(generated(loaded, prompt, 5), expected)


def test_encoders_take_tokens_and_no_cache() -> None:
    space = build_space("language", "small", {**SETTINGS["language"], "causal": False})
    family = Family(build_supernet(space))
    genes = np.array(space.largest.genes)
    subnet = subnet_of(family, genes)
    model = onnx_network("net", subnet, Settings())
    assert [one.name for one in model.graph.input] == ["input_ids"]
    assert [one.name for one in model.graph.output] == ["logits"]
    examples = examples_of(subnet, 3)
    assert largest_difference(run(session(model), examples), expected_of(family, genes, subnet, examples)) <= TOLERANCE


class Gated(nnx.Module):
    """A user's own network of rows: a gate, a norm, and two numbers."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.up, self.norm = nnx.Linear(5, 16, rngs=rngs), nnx.LayerNorm(8, rngs=rngs)
        self.down = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        value, gate = jnp.split(self.up(x), 2, axis=-1)
        return self.down(self.norm(value * nnx.sigmoid(gate) + jnp.where(value > 0, value, 0.1 * value)))


@pytest.mark.parametrize("batch", [None, 2])
def test_own_modules_of_arrays_give_numbers_in_their_units(batch: int | None) -> None:
    module = Gated(rngs=nnx.Rngs(0))
    before = Standardised(tuple("abcde"), (1.0, 2.0, 3.0, 4.0, 5.0), (0.5, 1.0, 2.0, 4.0, 8.0))
    outputs = Numbers(("y", "z"), (10.0, -3.0), (5.0, 0.1))
    config = {"family": "own", "task": "arrays", "labels": [], "input": {"shape": [5]}, "preprocessing": {}}
    weights = nnx.to_pure_dict(nnx.state(module))
    subnet = Subnet({**config, "outputs": outputs.as_dict()}, {}, module, weights, before, outputs)
    model = onnx_network("net", subnet, Settings(batch=batch))
    assert [one.name for one in (*model.graph.input, *model.graph.output)] == ["inputs", "values"]
    rows = np.random.default_rng(0).normal(3, 2, (3, 5)).astype(np.float32)
    assert largest_difference(run(session(model), rows, batch), subnet.predict(rows)) <= TOLERANCE


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_size_can_be_fixed(family: Family, batch: int) -> None:
    genes = np.array(family.space.smallest.genes)
    subnet = subnet_of(family, genes)
    model = onnx_network("net", subnet, Settings(batch=batch))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == batch
    examples = examples_of(subnet, 3)
    expected = expected_of(family, genes, subnet, examples)
    assert largest_difference(run(session(model), examples, batch=batch), expected) <= TOLERANCE


@pytest.mark.parametrize("size", [(9, 9), (13, 30), (40, 11)])
def test_pictures_of_any_size_are_cropped_and_resized_as_in_training(size: tuple[int, int]) -> None:
    family = small("vit")
    subnet = subnet_of(family, np.array(family.space.smallest.genes))
    loaded = session(onnx_network("net", subnet, Settings(any_size=True)))
    shape = (2, *size, subnet.config["input"]["shape"][-1])
    pictures = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    pillows = [ImageOps.fit(Image.fromarray(one.squeeze()), (9, 9), Image.Resampling.BILINEAR) for one in pictures]
    ours, theirs = (
        np.asarray(fitted(jnp.asarray(pictures), (9, 9))),
        np.stack([np.asarray(one).reshape(9, 9, -1) for one in pillows]),
    )
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # a level of 255, where a byte is rounded the other way
    assert largest_difference(run(loaded, pictures), subnet.predict(ours)) <= TOLERANCE


def test_an_operation_without_counterpart_is_named() -> None:
    before = Preprocessing((4, 4), (0.4,), (0.3,))
    config = {"family": "own", "task": "images", "labels": [], "input": {"shape": [4, 4, 1]}, "outputs": {}}

    class Sorted(nnx.Module):
        def __call__(self, x: jax.Array) -> jax.Array:
            return jnp.sort(x.reshape(x.shape[0], -1), axis=-1)

    subnet = Subnet({**config, "preprocessing": {}}, {}, Sorted(), {}, before, CLASSES)
    with pytest.raises(UserError, match=r"^here: operation sort has no counterpart in ONNX"):
        onnx_network("here", subnet, Settings())
