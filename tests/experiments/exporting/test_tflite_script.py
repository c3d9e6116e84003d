"""The script that writes LiteRT files: pictures in, resized where the network takes others, logits out."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.exporting import to_tflite
from supernet.export.export import largest_difference
from supernet.pytorch import FORMATS
from supernet.pytorch.module import write_module
from tests.supernet.exports import examples_of, subnet_of
from tests.supernet.families import small

# Not imported here: it changes settings of JAX.
MISSING = [name for name in ("torch", "litert_torch", "ai_edge_litert") if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} missing: pip install 'supernest[litert]' in another environment")
@pytest.mark.parametrize("family", sorted(FORMATS))
def test_networks_agree(family: str, tmp_path: Path) -> None:
    subnet = subnet_of(small(family), np.array(small(family).space.largest.genes))
    assert subnet.config["input"]["shape"][:2] != list(subnet.config["preprocessing"]["image_size"])
    write_module(subnet, tmp_path, "net")
    command = [sys.executable, "-P", to_tflite._SCRIPT, tmp_path, tmp_path / "network.tflite", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    examples = examples_of(subnet, 3)
    found = to_tflite._run((tmp_path / "network.tflite").read_bytes(), examples)
    assert largest_difference(found, subnet.predict(examples)) <= 1e-4
