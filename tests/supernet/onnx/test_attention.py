"""Attention of users' own modules as ONNX: the operator stands only where its heads fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from supernet.export.export import largest_difference
from supernet.export.subnet import Subnet
from supernet.tasks.classes import CLASSES
from supernet.tasks.images import Preprocessing

pytest.importorskip("onnxruntime", reason="needs the extra onnx: pip install 'supernest[onnx]'")

from supernet.onnx.network import Settings, onnx_network
from supernet.onnx.runtime import run, session


class Attends(nnx.Module):
    """Attention whose values may have another size, or with one head of keys and values for all queries."""

    def __init__(self, kv_heads: int, size: int) -> None:
        rngs = nnx.Rngs(0)
        self.kv_heads, self.size = kv_heads, size
        self.q, self.k = nnx.Linear(4, 16, rngs=rngs), nnx.Linear(4, 8 * kv_heads, rngs=rngs)
        self.v = nnx.Linear(4, size * kv_heads, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x[..., 0]
        b, t, _ = x.shape
        q, k = self.q(x).reshape(b, t, 2, 8), self.k(x).reshape(b, t, self.kv_heads, 8)
        v = self.v(x).reshape(b, t, self.kv_heads, self.size)
        q, k, v = (one.swapaxes(1, 2) for one in (q, k, v))
        weights = jax.nn.softmax((q @ k.swapaxes(2, 3)) * 0.35, axis=-1)
        return jnp.mean((weights @ v).swapaxes(1, 2).reshape(b, t, -1), axis=1)


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize(("kv_heads", "size", "operator"), [(2, 8, True), (2, 6, False), (1, 8, False), (1, 16, False)])
def test_the_operator_needs_keys_and_values_of_the_queries_shape(
    kv_heads: int, size: int, operator: bool, batch: int | None
) -> None:
    module = Attends(kv_heads, size)
    config = {"family": "own", "task": "images", "labels": [], "input": {"shape": [5, 4, 1]}, "preprocessing": {}}
    weights = nnx.to_pure_dict(nnx.state(module))
    subnet = Subnet({**config, "outputs": {}}, {}, module, weights, Preprocessing((5, 4), (0.4,), (0.3,)), CLASSES)
    model = onnx_network("net", subnet, Settings(batch=batch, opset=23))
    assert any(node.op_type == "Attention" for node in model.graph.node) == operator
    pictures = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 1), dtype=np.uint8)
    assert largest_difference(run(session(model), pictures, batch), subnet.predict(pictures)) <= 1e-4
