"""Runtimes: what ONNX Runtime times, what it predicts with, and devices whose times are taken elsewhere."""

import csv
import hashlib
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import cli
from experiments.configuration.experiment_config import load_config
from experiments.devices.device_file import read_device
from experiments.devices.measure import this_cpu
from experiments.devices.runtime import RUNTIMES, runtime_here
from experiments.experiment import build_experiment
from experiments.profiling.networks import untrained
from experiments.records import RuntimeFacts
from search_spaces import UserError
from tests.experiments.device_files import write_device

pytest.importorskip("onnxruntime")

YAML = """\
name: tiny
data: {source: digits, train_limit: 200}
space: {family: vit, preset: small, depth: [1, 2], width: [8, 16], heads: [1]}
train: {steps: 2, batch_size: 16, diagnose_every: null}
search: {type: random, evaluations: 2}
export: {stablehlo: false}
"""
FEW = ("--networks", "10", "--held-out", "3", "--batch-sizes", "1", "--quiet")
ANDROID = ("--device", "Pixel 8", "--runtime", "litert", "--runtime-version", "2.1", "--threads", "4")


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an experiment and a list of networks to time."""
    directory = tmp_path_factory.mktemp("listed")
    (directory / "e.yaml").write_text(YAML, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert cli.main(("profile", "e.yaml", "--spec", "phone.json", *FEW)) == 0
    return directory


@pytest.fixture
def here(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(listed, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Networks of a list."""
    return json.loads(path.read_text())["networks"]


def macs_of(rows: list[dict[str, Any]]) -> np.ndarray:
    """Their MACs."""
    space = build_experiment(load_config("e.yaml")).space
    return space.cost(np.array([row["genes"] for row in rows], np.int32))["macs"]


def test_onnxruntime_measures_a_device(supernest: Any, here: Path) -> None:
    few = ("--networks", "10", "--held-out", "3", "--quiet")
    arguments = ("profile", "e.yaml", "--repeats", "2", "--quick", *few)
    code, out, err = supernest(*arguments, "--runtime", "onnxruntime", "--threads", "1", "--json")
    assert code == 0, err
    content = json.loads(out)
    assert content["runtime"] == {"name": "onnxruntime", "version": content["software"]["onnxruntime"], "threads": 1}
    asked = {name: content["protocol"][name] for name in ("batch_sizes", "networks", "held_out", "repeats")}
    assert asked == {"batch_sizes": [1], "networks": 10, "held_out": 3, "repeats": 2}
    device = read_device("device.json")
    assert device.name.endswith(f"onnxruntime {content['runtime']['version']}, 1 thread")
    experiment = build_experiment(load_config("e.yaml", ("device=device.json",)))
    space, (row,) = experiment.space, experiment.space.extremes[:1]
    costs = device.cost(space)(space.extremes)
    assert ((costs["latency_ms"] > 0) & (costs["latency_ms"] < 1000)).all()
    # Weights, the picture and the logits, and what ONNX adds of constants; the rest lies between.
    weights = 4 * int(space.cost(row[None])["params"][0])
    assert weights + 64 + 40 < costs["memory_bytes"][0] < 2 * weights + 10_000
    for other in (("--runtime", "jax"), ("--runtime", "onnxruntime", "--threads", "2")):
        code, _, err = supernest(*arguments, *other)
        assert (code, "device.json: measured with onnxruntime" in err) == (2, True)
        assert len(err.splitlines()) == 1


@pytest.mark.skipif(not find_spec("litert_torch"), reason="pip install 'supernest[litert]' in another environment")
def test_litert_measures_a_device(supernest: Any, here: Path) -> None:
    code, out, err = supernest("profile", "e.yaml", "--runtime", "litert", "--threads", "1", "--json", *FEW)
    assert code == 0, err
    assert json.loads(out)["runtime"]["name"] == "litert"
    experiment = build_experiment(load_config("e.yaml", ("device=device.json",)))
    costs = read_device("device.json").cost(experiment.space)(experiment.space.extremes)
    assert ((costs["latency_ms"] > 0) & (costs["latency_ms"] < 1000)).all()
    assert (4 * costs["params"] < costs["memory_bytes"]).all()


@pytest.mark.skipif(bool(find_spec("litert_torch")), reason="litert-torch is installed")
def test_litert_that_is_not_installed_is_named(supernest: Any, here: Path) -> None:
    code, _, err = supernest("profile", "e.yaml", "--runtime", "litert", *FEW)
    assert code == 2
    assert "runtime litert: " in err
    assert "cannot be imported. Install the extra: pip install 'supernest[litert]'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("family", ["mobilenet", "language"])
def test_networks_of_other_families_run_and_their_memory_is_counted(family: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 100, encoding="utf-8")
    data = "{source: text, path: text.txt, context: 8}" if family == "language" else "{source: digits}"
    (tmp_path / "e.yaml").write_text(f"data: {data}\nspace: {{family: {family}, preset: small}}\ntrain: {{steps: 1}}\n")
    experiment = build_experiment(load_config(tmp_path / "e.yaml"))
    network = untrained(experiment.net, experiment.data, experiment.space.smallest, 2)
    (program,) = RUNTIMES["onnxruntime"](1).build([network])
    program()
    params = int(experiment.space.cost(np.array([experiment.space.smallest.genes], np.int32))["params"][0])
    assert 4 * 0.9 * params < program.memory.fixed < 4 * 1.5 * params + 100_000
    assert program.memory.temporary > 0


def test_memory_is_that_of_tensors_alive_at_a_time() -> None:
    from onnx import TensorProto, helper, numpy_helper

    from supernet.onnx.memory import memory

    nodes = [
        ("Add", ["x", "w"], "a"), ("Relu", ["a"], "b"), ("Add", ["a", "b"], "c"), ("Relu", ["c"], "y"),
        ("NonZero", ["x"], "n"), ("Cast", ["n"], "z"),
    ]  # fmt: skip
    more: dict[str, Any] = {"Cast": {"to": TensorProto.FLOAT}}
    made = [helper.make_node(op, given, [out], **more.get(op, {})) for op, given, out in nodes]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in ("y", "z")]
    weights = [numpy_helper.from_array(np.ones(3, np.float32), "w")]
    model = helper.make_model(
        helper.make_graph(made, "g", inputs, outputs, weights), opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )  # fmt: skip
    # x, y 24 bytes each, w 12, z 2x6 floats; at most a, b and c lie between, or the indices n, 2x6 of eight bytes.
    assert memory(model, {"x": np.ones((2, 3), np.float32)}) == (24 + 24 + 12 + 48, 96)
    assert memory(model, {"x": np.zeros((4, 3), np.float32)}) == (48 + 48 + 12 + 0, 3 * 48)


def test_listed_networks_are_what_the_list_says(here: Path) -> None:
    from supernet.onnx.runtime import session

    rows = rows_of(here / "phone.json")
    assert len({tuple(row["genes"]) for row in rows}) == 13
    for row in rows[:2]:
        content = (here / row["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
        feed = {name: np.zeros(one["shape"], one["dtype"]) for name, one in row["inputs"].items()}
        (logits,) = session(content, 1).run(None, feed)
        assert np.shape(logits) == (1, 10)  # type: ignore[arg-type]
    assert {path.stem for path in (here / "phone").iterdir()} == {row["id"] for row in rows}


@pytest.mark.parametrize("form", ["csv", "json"])
def test_times_taken_elsewhere_make_a_device_file(supernest: Any, here: Path, form: str) -> None:
    rows = rows_of(here / "phone.json")
    times = [
        {"id": row["id"], "milliseconds": float(macs) / 1e6} for row, macs in zip(rows, macs_of(rows), strict=True)
    ]
    if form == "json":
        Path("times.json").write_text(json.dumps(times[::-1]))
    else:
        with Path("times.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "milliseconds"), *(row.values() for row in times)])
    arguments = ("--spec", "phone.json", "--measured", f"times.{form}", "--out", "pixel.json")
    code, out, err = supernest("profile", "e.yaml", *arguments, *ANDROID)
    assert code == 0, err
    assert out.startswith("remote Pixel 8; litert 2.1, 4 threads; 10 networks measured to fit\n")
    device = read_device("pixel.json")
    assert device.runtime == RuntimeFacts("litert", "2.1", 4)
    assert device.accuracy[1].latency.kendall_tau == 1
    # An experiment takes it as any other, and knows that this machine is not the phone.
    experiment = build_experiment(load_config("e.yaml", ("device=pixel.json", "budgets={a: latency_ms<=50%}")))
    assert experiment.cost_on_device is not None
    assert experiment.cost_on_device.device.name == "remote Pixel 8, litert 2.1, 4 threads"
    assert runtime_here(device) is None


def test_times_of_fewer_networks_do_not_replace_those_of_more(supernest: Any, here: Path) -> None:
    def taken(spec: str) -> tuple[int, str, str]:
        lines = (f"{row['id']},{5 + i}" for i, row in enumerate(rows_of(here / spec)))
        Path("times.csv").write_text("\n".join(["id,milliseconds", *lines]))
        return supernest(
            "profile", "e.yaml", "--spec", spec, "--measured", "times.csv", "--out", "pixel.json", *ANDROID
        )

    assert supernest("profile", "e.yaml", "--spec", "more.json", *FEW, "--networks", "11")[0] == 0
    assert taken("more.json")[0] == 0
    before = Path("pixel.json").read_bytes()
    code, _, err = taken("phone.json")
    assert (code, "pixel.json: has all that phone.json lists and more: 11 networks and 3 held-out" in err) == (2, True)
    assert Path("pixel.json").read_bytes() == before
    assert taken("more.json")[0] == 0


GOOD = [("n000", "1"), *((f"n{i:03}", "2") for i in range(1, 13))]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (GOOD[:-1], "times.csv: lacks 'n012' of the 13 networks in phone.json. Time them, too."),
        (GOOD[:-3], "times.csv: lacks 'n010' and 2 more of the 13"),
        ([*GOOD, ("n013", "1")], "times.csv: 'n013' is not in phone.json"),
        ([*GOOD, ("n003", "1")], "times.csv: 'n003' is there twice"),
        ([("n000", "nan"), *GOOD[1:]], "times.csv: 'n000': 'nan' is no time"),
        ([("n000", "inf"), *GOOD[1:]], "'inf' is no time"),
        ([("n000", "0"), *GOOD[1:]], "'0' is no time. Give milliseconds, a number above 0: 1e-06 to 1e+09."),
        ([("n000", "1e308"), *GOOD[1:]], "'1e308' is no time"),
        ([("n000", "1e-320"), *GOOD[1:]], "'1e-320' is no time"),
        ([("n000", "1,5"), *GOOD[1:]], "times.csv: holds no times. Give CSV with the columns id and milliseconds"),
        ([("n000", "fast"), *GOOD[1:]], "'fast' is no time"),
        ([], "times.csv: holds no times. Give CSV with the columns id and milliseconds, or JSON"),
    ],
)
def test_times_that_do_not_match_the_list_are_refused(
    supernest: Any, here: Path, times: list[tuple[str, str]], message: str
) -> None:
    Path("times.csv").write_text("id,milliseconds\n" + "".join(f"{name},{value}\n" for name, value in times))
    arguments = ("--spec", "phone.json", "--measured", "times.csv", "--out", "pixel.json")
    code, out, err = supernest("profile", "e.yaml", *arguments, *ANDROID)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not Path("pixel.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id;ms\nn000;1\n", "holds no times"),
        ('[{"id": "n000", "milliseconds": 1}', "holds no times"),
        ('[{"id": 0, "milliseconds": 1}]', "holds no times"),
        ('[{"id": "n000", "milliseconds": true}]', "True is no time"),
        ('[{"id": "n000", "milliseconds": NaN}]', "nan is no time"),
        ("\x00\x01", "holds no times"),
    ],
)
def test_files_without_times_are_refused(supernest: Any, here: Path, content: str, message: str) -> None:
    Path("times").write_text(content)
    arguments = ("--spec", "phone.json", "--measured", "times", *ANDROID)
    code, _, err = supernest("profile", "e.yaml", *arguments)
    assert (code, message in err) == (2, True)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--runtime", "coreml"), "--runtime coreml: cannot be timed in this process; jax, litert, onnxruntime can."),
        (("--runtime", "jax", "--threads", "4096"), "--threads: XLA takes the "),
        (("--spec", "phone.json"), "phone.json: exists, and is left as it is"),
        (("--spec", "other"), "--spec: other has no ending"),
        (("--spec", "new.json", "--runtime", "jax"), "--runtime: goes with --measured, or without --spec"),
        (("--device", "Pixel 8"), "--device: goes with --measured only"),
        (("--measured", "times.csv"), "--measured: of which networks?"),
        (("--spec", "phone.json", "--measured", "times.csv"), "--measured: says nothing of the device"),
        (("--spec", "e.yaml", "--measured", "times.csv", *ANDROID), "e.yaml: "),
        (("--spec", "no.json", "--measured", "times.csv", *ANDROID), "no.json: no such list of networks."),
        (("--spec", "phone.json", "--measured", "no.csv", *ANDROID), "no.csv: no such file."),
        (
            ("--spec", "phone.json", "--measured", "times.csv", *ANDROID, "--networks", "10"),
            "--networks: the list of --spec says it",
        ),
        (
            ("--spec", "phone.json", "--measured", "times.csv", *ANDROID, "--set", "space.width=[8,24]"),
            "phone.json: lists networks of another search space",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(
    supernest: Any, here: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = sorted(path.name for path in here.iterdir())
    code, out, err = supernest("profile", "e.yaml", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in here.iterdir()) == before


def test_a_list_that_cannot_be_written_leaves_no_networks(
    supernest: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise UserError(f"{path}: No space left on device.")

    monkeypatch.setattr("experiments.profiling.elsewhere.write_text_atomically", full)
    before = sorted(here.iterdir())
    code, _, err = supernest("profile", "e.yaml", "--spec", "new.json", *FEW)
    assert (code, "new.json: No space left" in err) == (2, True)
    assert sorted(here.iterdir()) == before


def test_a_changed_list_is_refused(supernest: Any, here: Path) -> None:
    path = here / "phone.json"
    path.write_text(path.read_text().replace('"batch_size": 1', '"batch_size": 2', 1))
    Path("times.csv").write_text("id,milliseconds\n")
    code, _, err = supernest("profile", "e.yaml", "--spec", "phone.json", "--measured", "times.csv", *ANDROID)
    assert (code, "phone.json: is damaged" in err) == (2, True)


def test_exports_are_timed_by_the_runtime_of_the_device(
    supernest: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = build_experiment(load_config("e.yaml")).space
    write_device(here / "cpu.json", space, device=this_cpu().as_json(), runtime={"name": "onnxruntime", "threads": 1})
    settings = ("--set", "device=cpu.json", "--set", "budgets.full=latency_ms<=100%")
    with monkeypatch.context() as patched:  # said before the training, not after it
        patched.setattr("experiments.devices.runtimes.onnxruntime.NEEDED", ("no_such_runtime",))
        code, _, err = supernest("run", "e.yaml", "--out", "run", "--quiet", *settings)
    assert (code, "runtime onnxruntime: no_such_runtime cannot be imported." in err) == (2, True)
    assert not (here / "run").exists()
    code, out, err = supernest("run", "e.yaml", "--out", "run", "--json", "--quiet", *settings)
    assert code == 0, err
    (row,) = json.loads(out)["subnets"]
    assert row["measured"].keys() == {"latency_ms", "batch_size", "runtime", "version", "threads"}
    assert (row["measured"]["runtime"], row["measured"]["threads"]) == ("onnxruntime", 1)
    assert row["memory"]["runtime"] == "onnxruntime"
    assert "onnxruntime" in row["predicted"]["device"]
    code, out, err = supernest("export", "run", "--format", "onnx")
    assert code == 0, err
    assert "; predicted latency " in out
    assert "; measured latency " in out
    report = json.loads((here / "run/onnx/full/report.json").read_text())
    assert 0 < report["measured"]["latency_ms"] < 1000
