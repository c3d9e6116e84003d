"""Exported subnets: what is in the directory, that it stands alone, and what a damaged one says."""

import dataclasses
import json
import re
import subprocess
import sys
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax import export as jax_export

from search_spaces import UserError, ViTSpace, build_space
from supernet.engine.supernet import build_supernet
from supernet.export.export import CountError, ParityError, export_subnet, serialised_forward, stablehlo_text
from supernet.export.subnet import Subnet, flatten, load_subnet
from supernet.families.vit import ViTSupernet
from supernet.storage.manifest import write_manifest
from supernet.tasks.images import Preprocessing
from supernet.tasks.tokens import OUTPUTS, Tokens
from tests.supernet.exports import subnet_of
from tests.supernet.families import small

SPACE = build_space("vit", "small", {"depth": [1, 2, 3], "width": [16, 24]})
NET = build_supernet(SPACE)
PARAMS = NET.init(jax.random.key(0))
ARCHITECTURE = SPACE.architecture(SPACE.sample(np.random.default_rng(4), 1)[0])
IMAGES = np.random.default_rng(0).integers(0, 256, (37, 8, 8, 1), dtype=np.uint8)


def _export(directory, net=NET, params=PARAMS, **keywords):
    return export_subnet(
        net, params, ARCHITECTURE, directory, statistics=None, preprocessing=Preprocessing((8, 8), (0.3,), (0.2,)),
        input_shape=(8, 8, 1), labels=[str(i) for i in range(10)], probe=IMAGES[:9],
        measure=lambda subnet: {"test_accuracy": 0.5}, **keywords,
    )  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "subnets" / "half"
    _export(directory)
    return directory


@pytest.fixture
def copy(exported, tmp_path):
    import shutil

    return shutil.copytree(exported, tmp_path / "copy")


def test_report_and_files(exported):
    report = json.loads((exported / "report.json").read_text())
    assert report["parity_error"] <= 1e-4
    assert report["test_accuracy"] == 0.5
    genes = np.array([ARCHITECTURE.genes], np.int32)
    assert report["costs"] == {name: int(value[0]) for name, value in SPACE.cost(genes).items()}
    assert json.loads((exported / "architecture.json").read_text())["architecture"] == ARCHITECTURE.description
    assert not [p for p in exported.rglob("*") if p.suffix in {".pkl", ".pickle"}]
    assert not [p for p in exported.parent.iterdir() if p != exported]


def test_loaded_network_computes_what_the_supernet_computes(exported):
    subnet = load_subnet(exported)
    x = subnet.preprocessing(jnp.asarray(IMAGES))
    np.testing.assert_allclose(x, (IMAGES / 255.0 - 0.3) / 0.2, rtol=1e-4, atol=1e-5)
    genes = np.array(ARCHITECTURE.genes, np.int32)
    expected = NET.apply(PARAMS, jnp.asarray(genes), x, program=SPACE.program(genes))[0]
    np.testing.assert_allclose(subnet.predict(IMAGES, batch_size=16), expected, atol=1e-4)
    assert sum(leaf.size for leaf in jax.tree.leaves(subnet.weights)) == SPACE.cost(genes[None])["params"][0]


def test_stablehlo_and_orbax_hold_the_same_network(exported):
    subnet = load_subnet(exported)
    program = jax_export.deserialize(bytearray((exported / "forward.jax_export").read_bytes()))
    x = subnet.preprocessing(jnp.asarray(IMAGES))
    np.testing.assert_allclose(program.call(flatten(subnet.weights), x), subnet.predict(IMAGES), atol=1e-4)
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.restore(exported.resolve() / "orbax")
    weights = flatten(subnet.weights)
    for name, leaf in flatten(stored).items():
        np.testing.assert_array_equal(leaf, weights[name])


def test_the_text_is_stablehlo_whose_arguments_are_the_weights_by_name(exported):
    text = (exported / "forward.mlir").read_text("utf-8")
    assert "stablehlo.dot_general" in text
    (main,) = [line for line in text.splitlines() if "func.func public @main" in line]
    weights = flatten(load_subnet(exported).weights)
    sizes = ["x".join(map(str, weights[name].shape)) for name in sorted(weights)]
    assert re.findall(r"%arg\d+: tensor<(.*?)xf32>", main) == [*sizes, "1x8x8x1"]
    for place in (sys.prefix, str(exported), ".py"):
        assert place not in text


@pytest.mark.parametrize("family", ["vit", "mobilenet"])
def test_mlir_tools_take_the_text(family):
    compiler = pytest.importorskip("iree.compiler", reason="in no extra: pip install iree-base-compiler")
    of = small(family)
    text = stablehlo_text(subnet_of(of, np.array(of.space.smallest.genes)))
    assert compiler.compile_str(text, target_backends=["llvm-cpu"], input_type="stablehlo")


def test_programs_of_earlier_versions_load(exported, copy):
    expected, old = load_subnet(exported).predict(IMAGES[:5]), copy
    (old / "forward.jax_export").rename(old / "forward.stablehlo")
    config = json.loads((old / "config.json").read_text("utf-8"))
    (old / "config.json").write_text(json.dumps({**config, "family": "not_here", "plugin": "of_another"}), "utf-8")
    write_manifest(old)
    subnet = load_subnet(old)
    assert subnet.module is None
    np.testing.assert_allclose(subnet.predict(IMAGES[:5]), expected, atol=1e-5)


def test_a_class_token_is_exported_for_any_batch_size(tmp_path):
    space = build_space("vit", "small", {"depth": [1, 2], "width": [16], "class_token": True})
    net = build_supernet(space)
    export_subnet(
        net, net.init(jax.random.key(0)), space.largest, tmp_path / "half", statistics=None,
        preprocessing=Preprocessing((8, 8), (0.3,), (0.2,)), input_shape=(8, 8, 1), labels=["a", "b"], probe=IMAGES[:9],
        measure=lambda subnet: {},
    )  # fmt: skip
    subnet = load_subnet(tmp_path / "half")
    program = jax_export.deserialize(bytearray((tmp_path / "half" / "forward.jax_export").read_bytes()))
    for images in (IMAGES[:1], IMAGES[:5]):
        logits = program.call(flatten(subnet.weights), subnet.preprocessing(jnp.asarray(images)))
        np.testing.assert_allclose(logits, subnet.predict(images), atol=1e-4)


def test_images_need_not_be_square(tmp_path):
    class Wide(ViTSupernet):  # as many patches as in a square
        def example(self, architecture):
            return jax.ShapeDtypeStruct((4, 16, 1), jnp.float32)

    images = np.random.default_rng(0).integers(0, 256, (9, 8, 32, 1), dtype=np.uint8)
    export_subnet(
        Wide(SPACE, NET.sharing), PARAMS, ARCHITECTURE, tmp_path / "half", statistics=None,
        preprocessing=Preprocessing((4, 16), (0.3,), (0.2,)), input_shape=(8, 32, 1), labels=["a", "b"], probe=images,
        measure=lambda subnet: {},
    )  # fmt: skip
    subnet = load_subnet(tmp_path / "half")
    x = subnet.preprocessing(jnp.asarray(images))
    assert x.shape == (9, 4, 16, 1)
    program = jax_export.deserialize(bytearray((tmp_path / "half" / "forward.jax_export").read_bytes()))
    np.testing.assert_allclose(program.call(flatten(subnet.weights), x), subnet.predict(images), atol=1e-4)


def test_equal_networks_have_equal_programs_that_tell_no_place(exported):
    subnet = load_subnet(exported)
    written = (exported / "forward.jax_export").read_bytes()
    assert serialised_forward(subnet) == written
    assert (lambda: serialised_forward(subnet))() == written  # from another line
    for place in (__file__, sys.prefix, str(exported), ".py"):
        assert place.encode() not in written


@pytest.mark.parametrize("length", [1, 7])
def test_a_language_program_refuses_what_its_network_does_not_take(length):
    sizes = {"width": [16], "depth": [1], "kv_heads": [1], "mlp_width": [16], "head_size": 8, "vocabulary": 19}
    net = build_supernet(build_space("language", "small", {**sizes, "context": length}))
    module, weights = net.extract(net.init(jax.random.key(0)), net.space.smallest)
    subnet = Subnet({"input": {"shape": [length]}}, {}, module, weights, Tokens(19, length), OUTPUTS)
    program = jax_export.deserialize(bytearray(serialised_forward(subnet)))
    tokens = np.random.default_rng(0).integers(0, 19, (3, length)).astype(np.int32)
    logits = program.call(flatten(weights), jnp.asarray(tokens))
    np.testing.assert_allclose(logits, subnet.predict(tokens), atol=1e-5)
    with pytest.raises(ValueError, match="shape"):  # one token more than there are positions
        program.call(flatten(weights), jnp.zeros((1, length + 1), jnp.int32))
    tokens[1, -1], tokens[2, 0] = 19, -1
    logits = np.asarray(program.call(flatten(weights), jnp.asarray(tokens)))
    assert np.isfinite(logits[0]).all()
    assert np.isnan(logits[1:]).all()


def test_a_cost_model_that_counts_too_little_is_not_exported(tmp_path):
    class Cheap(ViTSpace):
        @cached_property
        def cost(self) -> Any:
            return lambda genes: {metric: values - 1 for metric, values in SPACE.cost(genes).items()}

    assert isinstance(SPACE, ViTSpace)
    net = ViTSupernet(Cheap(**dataclasses.asdict(SPACE)), NET.sharing)
    count = int(SPACE.cost(np.array([ARCHITECTURE.genes], np.int32))["params"][0])
    with pytest.raises(
        CountError, match=rf"has {count:,} parameters.* family 'vit' .*Cheap\.cost\) says {count - 1:,}"
    ):
        _export(tmp_path / "half", net=net)
    assert list(tmp_path.iterdir()) == []


def test_it_runs_in_a_process_that_never_imports_elastic_code(exported):
    code = (
        "import sys, numpy as np; from supernet.export.subnet import load_subnet; "
        f"print(load_subnet({str(exported)!r}).predict(np.zeros((2, 8, 8, 1), np.uint8)).shape); "
        "elastic = ('supernet.engine.supernet', 'supernet.engine.branches', 'supernet.families.vit'); "
        "sys.exit(any(m in sys.modules for m in elastic))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "(2, 10)"), done.stderr


def test_a_network_that_differs_is_not_exported(tmp_path):
    class Broken(ViTSupernet):
        def slice(self, params, architecture, statistics):
            weights = super().slice(params, architecture, statistics)
            return {**weights, "head": {**weights["head"], "bias": weights["head"]["bias"] + 0.01}}

    with pytest.raises(ParityError, match="differ from the supernet's"):
        _export(tmp_path / "half", net=Broken(SPACE, NET.sharing))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json", "forward.jax_export", "report.json"])
def test_an_altered_or_truncated_file_is_named(copy, name):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=rf"{name}: altered"):
        load_subnet(copy)
    (copy / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{name}: truncated"):
        load_subnet(copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: missing"):
        load_subnet(copy)


def test_what_cannot_be_a_subnet_says_so(copy, tmp_path):
    with pytest.raises(UserError, match=r"manifest\.json"):
        load_subnet(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such directory"):
        load_subnet(tmp_path / "nowhere", size="1MB")
    config = json.loads((copy / "config.json").read_text())
    for change, message in [
        ({"family": "vitt"}, "family 'vitt' is not known here"),
        ({"module": {**config["module"], "width": 20}}, "shape"),
    ]:
        (copy / "config.json").write_text(json.dumps({**config, **change}))
        write_manifest(copy)
        with pytest.raises(UserError, match=message):
            load_subnet(copy)


def test_no_images_have_no_logits(exported):
    subnet = load_subnet(exported)
    one, none = (subnet.predict(np.zeros((count, 8, 8, 1), np.uint8)) for count in (1, 0))
    assert none.shape == (0, *one.shape[1:])
    assert none.dtype == one.dtype


def test_images_of_the_wrong_kind_are_refused(exported):
    subnet = load_subnet(exported)
    for images in (np.zeros((2, 9, 8, 1), np.uint8), np.zeros((2, 8, 8, 1), np.float32)):
        with pytest.raises(UserError, match=r"expected uint8 of shape \(8, 8, 1\)"):
            subnet.predict(images)
