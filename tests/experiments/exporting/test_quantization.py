"""Eight-bit files: which products are quantised, and batches of a fixed size that do not divide the examples."""

from itertools import pairwise
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from search_spaces import UserError
from supernet.export.export import largest_difference
from supernet.export.subnet import Subnet
from supernet.tasks.arrays import Standardised
from supernet.tasks.classes import CLASSES
from supernet.tasks.images import Preprocessing
from supernet.tasks.numbers import Numbers
from tests.supernet.families import small

pytest.importorskip("onnxruntime", reason="needs the extra onnx: pip install 'supernest[onnx]'")

from experiments.exporting.quantization import static_int8
from supernet.onnx.network import Settings, onnx_network
from supernet.onnx.runtime import run, session
from tests.supernet.exports import examples_of
from tests.supernet.exports import subnet_of as subnet_of_family


class Layers(nnx.Module):
    """Linear layers on all values of an example at once."""

    def __init__(self, *sizes: int) -> None:
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(sizes)])
        for layer in self.layers:
            assert layer.bias is not None
            layer.bias[...] = layer.bias[...] + 0.1

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)


def subnet_of(module: nnx.Module, before: Any, outputs: Any, shape: list[int]) -> Subnet:
    config = {"family": "own", "task": before.task, "labels": [], "input": {"shape": shape}, "preprocessing": {}}
    weights = nnx.to_pure_dict(nnx.state(module))
    return Subnet({**config, "outputs": outputs.as_dict()}, {}, module, weights, before, outputs)


def quantised_weights(model: Any) -> set[tuple[int, ...]]:
    """Shapes of the matrices that are stored in eight bits."""
    stored = {one.name: one for one in model.graph.initializer}
    given = {node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return {tuple(stored[name].dims) for name in given & stored.keys() if len(stored[name].dims) == 2}


PICTURES = np.random.default_rng(0).integers(0, 256, (100, 9, 9, 1), dtype=np.uint8)


@pytest.mark.parametrize("batch", [None, 64, 512])  # a part of the examples in the last batch; more than there are
def test_the_resize_and_the_last_product_stay_in_float(batch: int | None) -> None:
    subnet = subnet_of(Layers(16, 12, 10, 3), Preprocessing((4, 4), (0.4,), (0.3,)), CLASSES, [9, 9, 1])
    model = onnx_network("net", subnet, Settings(batch=batch))
    made = static_int8("net", model, subnet, PICTURES, batch)
    assert quantised_weights(made) == {(16, 12), (12, 10)}
    found = run(session(made), PICTURES, batch)
    assert 1e-6 < largest_difference(found, subnet.predict(PICTURES)) < 0.1


def test_the_last_batch_of_a_fixed_size_calibrates_too() -> None:
    rows = np.zeros((10, 3), np.float32)
    rows[-1] = 100  # which nothing but the last, partial batch has
    before = Standardised(tuple("abc"), (0.0,) * 3, (1.0,) * 3)
    subnet = subnet_of(Layers(3, 4, 2), before, Numbers(("y", "z"), (10.0, -3.0), (5.0, 0.1)), [3])
    model = onnx_network("net", subnet, Settings(batch=8))
    made = static_int8("net", model, subnet, rows, 8)
    assert quantised_weights(made) == {(3, 4)}
    assert largest_difference(run(session(made), rows, 8), subnet.predict(rows)) < 0.1


@pytest.mark.parametrize("family", ["vit", "mobilenet", "nas_bench_201"])
def test_of_a_family_all_but_resize_and_head_are_in_eight_bits(family: str) -> None:
    space = small(family).space
    subnet = subnet_of_family(small(family), np.array(space.largest.genes))
    model = static_int8("net", onnx_network("net", subnet, Settings()), subnet, examples_of(subnet, 8), None)
    stored = {one.name for one in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    in_float = [products.index(node) for node in products if node.input[1] in stored]
    assert in_float == [0, 1, len(products) - 1]  # the resize of rows and of columns, and the head


def test_a_last_product_alone_is_not_quantised() -> None:
    subnet = subnet_of(Layers(16, 3), Preprocessing((4, 4), (0.4,), (0.3,)), CLASSES, [9, 9, 1])
    model = onnx_network("net", subnet, Settings())
    with pytest.raises(UserError, match=r"net: --quantize int8: no product .* before the last one, .* Leave it out"):
        static_int8("net", model, subnet, PICTURES, None)
