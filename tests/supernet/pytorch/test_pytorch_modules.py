"""PyTorch modules of exported networks: what they compute, what they are called, and that timm's classes take them."""

import ast
import dataclasses
import importlib
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from search_spaces import UserError, build_space
from supernet.engine.supernet import build_supernet
from supernet.export.export import largest_difference
from supernet.export.subnet import Subnet
from supernet.pytorch import FORMATS, WRITTEN
from supernet.standalone import MODULES
from supernet.tasks.classes import CLASSES
from tests.supernet.exports import examples_of, expected_of, subnet_of
from tests.supernet.families import SETTINGS, Family, small

pytest.importorskip("torch", reason="needs the extra pytorch: pip install 'supernest[pytorch]'")

import torch
from safetensors.torch import load_file

from supernet.pytorch.module import load_module, write_module

NETWORKS = int(os.environ.get("SUPERNEST_PYTORCH_NETWORKS", "3"))
TOLERANCE = 1e-4  # of a network in fp32, relative to the largest output
# Spaces whose networks timm's classes can express: heads that fill the stream, and a stem of stride 2.
UNIFORM: dict[str, dict[str, Any]] = {
    "vit": {"width": [16], "depth": [1, 2], "heads": [2], "mlp_ratio": [1.0, 2.5], "head_dim": 8, "class_token": True},
    "mobilenet": {**SETTINGS["mobilenet"], "stem_stride": 2, "resolution": [8], "kernel": [3, 5]},
}


@pytest.fixture(params=sorted(FORMATS))
def family(request: pytest.FixtureRequest) -> Family:
    return small(request.param)


def outputs_of(network: Any, given: Any) -> np.ndarray:
    with torch.no_grad():
        return network(given).numpy()


# SUPERNEST_PYTORCH_NETWORKS=50 tries fifty.
def test_random_networks_agree(family: Family, tmp_path: Path) -> None:
    for genes in family.draw(NETWORKS):
        subnet = subnet_of(family, genes)
        write_module(subnet, tmp_path, "net")
        network, prepare = load_module(tmp_path)
        examples = examples_of(subnet, 3)
        found = outputs_of(network, prepare(torch.from_numpy(examples)))
        assert largest_difference(found, expected_of(family, genes, subnet, examples)) <= TOLERANCE
        counted = sum(parameter.numel() for parameter in network.parameters())
        assert counted == family.space.cost(genes[None].astype(np.int32))["params"][0]


@pytest.mark.parametrize("size", [(5, 6), (9, 9), (14, 8)])  # smaller, as it is, larger across
def test_pictures_are_prepared_as_in_training(family: Family, size: tuple[int, int], tmp_path: Path) -> None:
    subnet = subnet_of(family, np.array(family.space.smallest.genes))
    write_module(subnet, tmp_path, "net")
    _, prepare = load_module(tmp_path)
    examples, before = examples_of(subnet, 2), dataclasses.replace(subnet.preprocessing, image_size=size)  # type: ignore[type-var]
    found = prepare(torch.from_numpy(examples), image_size=size).numpy()  # type: ignore[call-arg]
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), before(jnp.asarray(examples)), atol=1e-5)


def test_the_file_imports_pytorch_alone_and_stands_by_itself(family: Family, tmp_path: Path) -> None:
    write_module(subnet_of(family, np.array(family.space.smallest.genes)), tmp_path, "net")
    tree = ast.parse((tmp_path / "network.py").read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} - sys.stdlib_module_names == {"torch"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "network.py"]
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert config["labels"] == ["a"]
    assert config["preprocessing"].keys() == {"image_size", "mean", "std", "interpolation"}


def test_the_names_are_timms(tmp_path: Path) -> None:
    family = small("vit")
    write_module(subnet_of(family, np.array(family.space.smallest.genes)), tmp_path, "net")
    layers = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    expected = ["patch_embed.proj", *(f"blocks.0.{name}" for name in layers), "norm", "head"]
    assert set(load_file(tmp_path / "model.safetensors")) == {
        "pos_embed", *(f"{name}.{leaf}" for name in expected for leaf in ("weight", "bias")),
    }  # fmt: skip
    family = small("mobilenet")
    write_module(subnet_of(family, np.array(family.space.smallest.genes)), tmp_path, "net")
    convolutions = ["conv_stem", "blocks.0.0.conv_dw", "blocks.0.0.conv_pw", "blocks.3.0.conv", "conv_head"]
    convolutions += [f"blocks.{stage}.0.{name}" for stage in (1, 2) for name in ("conv_pw", "conv_dw", "conv_pwl")]
    norms = ["bn1", "blocks.0.0.bn1", "blocks.0.0.bn2", "blocks.3.0.bn1"]
    norms += [f"blocks.{stage}.0.bn{i}" for stage in (1, 2) for i in (1, 2, 3)]
    biased = ["classifier", "blocks.2.0.se.conv_reduce", "blocks.2.0.se.conv_expand"]
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert set(load_file(tmp_path / "model.safetensors")) == {
        *(f"{name}.weight" for name in convolutions), *(f"{name}.{leaf}" for name in norms for leaf in leaves),
        *(f"{name}.{leaf}" for name in biased for leaf in ("weight", "bias")),
    }  # fmt: skip


@pytest.fixture
def timms() -> dict[str, Any]:
    """Functions that make timm's own classes from arguments; skips where timm cannot be imported."""
    try:
        vit, mobilenet, blocks = (
            importlib.import_module(f"timm.models.{name}")
            for name in ("vision_transformer", "mobilenetv3", "_efficientnet_blocks")
        )
    except (ImportError, RuntimeError) as error:  # of a torchvision that is not of this PyTorch
        pytest.skip(f"needs timm, and the torchvision of the PyTorch in use: {str(error).splitlines()[0]}")
    gates = partial(blocks.SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer=torch.nn.ReLU)
    of_mobilenets = partial(mobilenet.MobileNetV3, act_layer=torch.nn.Hardswish, se_layer=gates)
    return {"vit": vit.VisionTransformer, "mobilenet": of_mobilenets}


@pytest.mark.parametrize("name", sorted(UNIFORM))
def test_timms_own_classes_load_what_they_can_express(timms: dict[str, Any], name: str, tmp_path: Path) -> None:
    family = Family(build_supernet(build_space(name, "small", UNIFORM[name])))
    for genes in family.draw(3):
        subnet = subnet_of(family, genes)
        write_module(subnet, tmp_path, "net")
        network, prepare = load_module(tmp_path)
        arguments = json.loads((tmp_path / "config.json").read_text("utf-8")).get("timm")
        if arguments is None:  # layers of several widths
            assert len(set(subnet.config["module"]["hidden"])) > 1
            continue
        own = timms[name](**arguments).eval()
        own.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
        assert own.state_dict().keys() == network.state_dict().keys()
        given = prepare(torch.from_numpy(examples_of(subnet, 3)))
        assert largest_difference(outputs_of(own, given), outputs_of(network, given)) <= TOLERANCE


def test_what_timm_cannot_express_is_not_said_to_be(tmp_path: Path) -> None:
    for name in sorted(FORMATS):  # heads that do not fill the stream; a stem of stride 1
        family = small(name)
        write_module(subnet_of(family, np.array(family.space.largest.genes)), tmp_path, "net")
        assert "timm" not in json.loads((tmp_path / "config.json").read_text("utf-8"))


def language_model() -> nnx.Module:
    net = build_supernet(build_space("language", "small", SETTINGS["language"]))
    arguments = net.config(net.space.smallest)
    return nnx.eval_shape(lambda: MODULES["language"](**arguments, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("family", "module", "fit"),
    [
        ("own", lambda: nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "onnx"),
        ("language", language_model, r"transformers \(a directory that PyTorch reads too\) and onnx"),
    ],
)
def test_other_networks_are_told_the_formats_that_fit(family: str, module: Any, fit: str, tmp_path: Path) -> None:
    subnet = Subnet({"family": family}, {}, module(), {}, None, CLASSES)  # type: ignore[arg-type]
    said = rf"^net: --format pytorch: .* family '{family}', .* mobilenet and vit .*fit: {fit}\.$"
    with pytest.raises(UserError, match=said):
        write_module(subnet, tmp_path, "net")
    assert not list(tmp_path.iterdir())


def test_all_files_that_are_copied_prepare_pictures_alike() -> None:
    trees = [ast.parse((WRITTEN / f"{name}.py").read_text("utf-8")) for name in FORMATS]
    found = {ast.dump(node) for tree in trees for node in tree.body if getattr(node, "name", None) == "prepare"}
    assert (len(trees), len(found)) == (2, 1)
