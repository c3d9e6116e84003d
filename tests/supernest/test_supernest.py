"""The Python face: experiments from sections and files, a run from training to exported networks, one-line errors."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import supernest as sn
from experiments import cli

SECTIONS = {
    "name": "face",
    "space": {"family": "vit", "preset": "small", "depth": [1, 2], "width": [16, 32], "heads": [1, 2]},
    "train": {"steps": 4, "batch_size": 16, "checkpoint_every": 4, "evaluate_every": 4, "diagnose_every": None},
    "search": {"type": "random", "evaluations": 6},
    "budgets": {"full": "macs<=100%"},
    "export": {"stablehlo": False},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sn.Run:
    """A whole run of the sections, made once."""
    return sn.Experiment(**SECTIONS).run(tmp_path_factory.mktemp("face") / "run", progress=False)


def test_a_run_has_figures_front_and_networks(run: sn.Run) -> None:
    assert run.summary["train"]["steps"] == 4
    assert run.pareto["evaluated"] == 6
    assert list(run.subnets) == ["full"]
    assert run.report.is_file()
    images = np.random.default_rng(0).integers(0, 256, (3, *run.subnet("full").config["input"]["shape"]), np.uint8)
    assert run.subnet("full").predict(images).shape == (3, 10)


def test_an_answer_and_an_export_for_another_budget(run: sn.Run) -> None:
    found = run.find("macs<=90%")
    assert found["best"]["costs"]["macs"] <= found["limits"]["macs"]
    subnet = run.export("macs<=90%", progress=False)
    assert subnet.architecture == found["best"]["architecture"]
    assert len(run.subnets) == 2


def test_exported_networks_become_onnx_files_once(run: sn.Run, capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx: pip install 'supernest[onnx]'")
    capsys.readouterr()
    assert cli.main(["export", str(run.path), "--format", "onnx", "--subnet", "full", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["parity_error"] <= 1e-4
    assert report["proved_on"]["split"] == "validation"
    assert {"jax", "onnx", "onnxruntime"} <= report["versions"].keys()
    file = Path(report["directory"]) / "network.onnx"
    loaded = onnxruntime.InferenceSession(file)
    subnet = run.subnet("full")
    images = np.random.default_rng(0).integers(0, 256, (3, *subnet.config["input"]["shape"]), np.uint8)
    np.testing.assert_allclose(loaded.run(None, {"images": images})[0], subnet.predict(images), atol=1e-4)
    metadata = loaded.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == list(subnet.config["labels"])
    assert json.loads(metadata["preprocessing"]) == subnet.config["preprocessing"]

    before = file.read_bytes()
    assert cli.main(["export", str(run.path), "--format", "onnx"]) == 2
    assert "onnx/full: exists, and is left as it is." in capsys.readouterr().err
    assert file.read_bytes() == before


def test_onnx_files_without_the_extra_are_refused(run: sn.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.exporting.to_onnx.NEEDED", ("onnx", "no_such_runtime"))
    with pytest.raises(sn.UserError, match=r"no_such_runtime cannot be imported. Install the extra"):
        run.export_onnx("full")
    with pytest.raises(sn.UserError, match=r"max_loss: goes with quantize='int8' only"):
        run.export_onnx("full", max_loss=2)


def test_exported_networks_become_pytorch_modules(
    run: sn.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra pytorch: pip install 'supernest[pytorch]'")
    assert cli.main(["export", str(run.path), "--format", "pytorch", "--subnet", "full", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["parity_error"] <= 1e-4
    assert report["versions"]["torch"] == torch.__version__
    subnet, directory = run.subnet("full"), Path(report["directory"])
    told = json.loads((run.subnets["full"] / "report.json").read_text("utf-8"))
    assert report["params"] == told["costs"]["params"]
    assert {path.name for path in directory.iterdir()} == {
        "config.json", "manifest.json", "model.safetensors", "network.py", "report.json",
    }  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (3, *subnet.config["input"]["shape"]), np.uint8)
    np.save(tmp_path / "images.npy", images)
    # As the file says, in a process that has PyTorch and safetensors alone.
    code = (
        "import json, sys, numpy, torch\n"
        "from network import Network, prepare; from safetensors.torch import load_file\n"
        "config = json.load(open('config.json')); network = Network(**config['architecture']).eval()\n"
        "network.load_state_dict(load_file('model.safetensors'))\n"
        "pictures = torch.from_numpy(numpy.load(sys.argv[1]))\n"
        "print(json.dumps(network(prepare(pictures, **config['preprocessing'])).tolist()))\n"
        "assert not {'jax', 'supernet', 'search_spaces'} & sys.modules.keys()"
    )
    command = [sys.executable, "-B", "-c", code, tmp_path / "images.npy"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), subnet.predict(images), atol=1e-4)
    with pytest.raises(sn.UserError, match=r"pytorch/full: exists, and is left as it is"):
        run.export_pytorch("full")
    monkeypatch.setattr("experiments.exporting.to_pytorch._NEEDED", ("no_such_torch",))
    with pytest.raises(
        sn.UserError, match=r"^--format pytorch: no_such_torch cannot be imported\. .*supernest\[pytorch\]'$"
    ):
        run.export_pytorch()


def test_exported_networks_become_litert_files(run: sn.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("experiments.exporting.to_tflite.NEEDED", ("no_such_converter",))
        with pytest.raises(sn.UserError, match=r"^--format tflite: no_such_converter .*supernest\[litert\]'$"):
            run.export_tflite()
    for name in ("litert_torch", "ai_edge_litert"):
        if importlib.util.find_spec(name) is None:  # not imported here: it changes settings of JAX
            pytest.skip(f"{name} is missing: pip install 'supernest[litert]' in an environment of its own")
    (report,) = run.export_tflite("full", batch=5)  # which does not divide the examples
    assert report["parity_error"] <= 1e-4
    assert {path.name for path in Path(report["directory"]).iterdir()} == {
        "config.json", "manifest.json", "network.tflite", "report.json",
    }  # fmt: skip


def test_networks_are_quantised_within_a_loss_that_is_named(run: sn.Run, capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx: pip install 'supernest[onnx]'")
    with pytest.raises(sn.UserError, match=r"full.int8: --quantize int8 loses .* accuracy .*--max-loss -101"):
        run.export_onnx("full", quantize="int8", max_loss=-101)
    assert not (run.path / "onnx" / "full.int8").exists()
    arguments = ["export", str(run.path), "--format", "onnx", "--subnet", "full", "--quantize", "int8", "--json"]
    assert cli.main([*arguments, "--max-loss", "100"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["float32_parity_error"] <= 1e-4 < report["int8_difference"] < 1
    assert "parity_error" not in report
    figures = report["quantization"]["validation"]
    for one in figures.values():
        low, high = one["interval"]
        assert 0 <= low <= one["accuracy"] <= high <= 1
        assert one["examples"] > 100
    assert abs(figures["int8"]["accuracy"] - figures["float32"]["accuracy"]) <= 0.05
    file = Path(report["directory"]) / "network.onnx"
    import onnx

    kinds = [node.op_type for node in onnx.load(file).graph.node]
    assert kinds.count("QuantizeLinear") >= 4
    assert {"LayerNormalization", "Gelu", "Softmax"} <= set(kinds)
    subnet = run.subnet("full")
    images = np.random.default_rng(0).integers(0, 256, (3, *subnet.config["input"]["shape"]), np.uint8)
    (logits,) = onnxruntime.InferenceSession(file).run(None, {"images": images})
    assert logits.shape == (3, 10)
    assert np.isfinite(logits).all()


def test_options_of_onnx_go_with_it_alone(run: sn.Run, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in [
        (["--opset", "23"], "--opset, --any-size, --quantize: go with --format onnx only."),
        (["--format", "pytorch", "--batch", "2"], "--batch: goes with --format onnx or tflite only."),
        (["--format", "pytorch", "--dtype", "float16"], "--model-type, --dtype: go with --format transformers only."),
        (["--format", "onnx", "--max-loss", "2"], "--max-loss: goes with --quantize int8 only."),
        (["--format", "onnx", "--dtype", "float16"], "--model-type, --dtype: go with --format transformers only."),
        (["--format", "onnx", "--subnet", "ful"], "--subnet: 'ful' is none of this run. Did you mean 'full'?"),
    ]:
        assert cli.main(["export", str(run.path), *arguments]) == 2
        assert said in capsys.readouterr().err


def test_a_file_and_its_settings_are_the_experiment_of_the_command_line(run: sn.Run, tmp_path: Path) -> None:
    file = tmp_path / "face.yaml"
    file.write_text(yaml.safe_dump({**SECTIONS, "train": {**SECTIONS["train"], "steps": 9}}), "utf-8")
    experiment = sn.Experiment(file, settings={"train.steps": 4})
    assert experiment.config == sn.Experiment(**SECTIONS).config
    before = run.summary
    assert experiment.run(run.path, progress=False).summary == before  # nothing is done twice


def test_check_is_the_command_line_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "face.yaml"
    file.write_text(yaml.safe_dump(SECTIONS), "utf-8")
    assert cli.main(["check", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(sn.Experiment(file).check()))


def test_errors_are_one_line(run: sn.Run, tmp_path: Path) -> None:
    with pytest.raises(sn.UserError, match=r"^Experiment: train\.steps: [^\n]*$"):
        sn.Experiment(**{**SECTIONS, "train": {"steps": -1}})
    with pytest.raises(sn.UserError, match="not both"):
        sn.Experiment()
    with pytest.raises(sn.UserError, match="is no run directory"):
        sn.Run(tmp_path)
    with pytest.raises(sn.UserError, match=r"no subnet 'ful' was exported.*full"):
        run.subnet("ful")
    with pytest.raises(sn.UserError, match="holds no run"):
        sn.Experiment(**SECTIONS).search(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(AttributeError, match="nothing"):
        _ = sn.nothing


def test_names_are_there_and_typed(tmp_path: Path) -> None:
    assert set(sn.__all__) <= set(dir(sn))
    assert all(getattr(sn, name) is not None for name in sn.__all__)
    assert (Path(sn.__file__).parent / "py.typed").is_file()
    code = "import sys, supernest; assert not {'jax', 'numpy', 'pydantic'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(sn.__file__).parents[1]).returncode == 0
