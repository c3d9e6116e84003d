"""The script that writes LiteRT files: pictures in, resized where the network takes others, logits out."""

import importlib.util

import jax
import numpy as np
import pytest

from supernet.export.export import largest_difference
from supernet.pytorch import FORMATS, tflite
from tests.supernet.exports import examples_of, subnet_of
from tests.supernet.families import small

# Not imported here: it changes settings of JAX.
MISSING = [name for name in ("torch", "litert_torch", "ai_edge_litert") if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} missing: pip install 'supernest[litert]' in another environment")
@pytest.mark.parametrize("family", sorted(FORMATS))
def test_networks_agree(family: str) -> None:
    subnet = subnet_of(small(family), np.array(small(family).space.largest.genes))
    assert subnet.config["input"]["shape"][:2] != list(subnet.config["preprocessing"]["image_size"])
    ((content, _), (again, _)) = tflite.tflite_files([("net", subnet, 2), ("net", subnet, 1)])
    examples = examples_of(subnet, 3)
    for file in (content, again):
        assert largest_difference(tflite.run(file, examples), subnet.predict(examples)) <= 1e-4
    weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(subnet.weights))
    fixed, temporary = tflite.memory(again)
    assert weights < fixed < 4 * weights + 100_000
    assert temporary > 0
