"""Small exported networks that tests of prediction and serving share."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from search_spaces import build_space
from supernet.engine.supernet import build_supernet
from supernet.export.export import export_subnet
from supernet.export.subnet import Subnet
from supernet.tasks.arrays import Standardised
from supernet.tasks.images import Preprocessing
from supernet.tasks.numbers import Numbers

LABELS = ["cat", "dog", "owl"]


def export_images(directory: Path, background: str | None = None) -> Path:
    """Exports a ViT on images of 8x8x3 with three classes."""
    net = build_supernet(build_space("vit", "small", {"channels": 3, "classes": 3, "depth": [1], "width": [16]}))
    export_subnet(
        net, net.init(jax.random.key(0)), net.space.largest, directory, statistics=None,
        preprocessing=Preprocessing((8, 8), (0.3,) * 3, (0.2,) * 3, background), input_shape=(8, 8, 3), labels=LABELS,
        probe=np.zeros((2, 8, 8, 3), np.uint8), measure=lambda subnet: {}, stablehlo=False,
    )  # fmt: skip
    return directory


def of_rows() -> Subnet:
    """A network that takes rows of `area` and `year`, and predicts 10 times the first."""
    module = nnx.Linear(2, 1, kernel_init=lambda *_: jnp.array([[1.0], [0.0]]), rngs=nnx.Rngs(0))
    config = {"task": "arrays", "input": {"shape": [2], "dtype": "float32"}, "labels": []}
    before = Standardised(("area", "year"), (0.0, 1900.0), (1.0, 100.0))
    return Subnet(config, {}, module, {}, before, Numbers(("price",), (0.0,), (10.0,)))
