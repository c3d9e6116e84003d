"""A user's own Flax modules, in files outside of the repository, from `check` to a reloaded export; and wrong ones."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import supernest as sn
from search_spaces.errors import UserError
from supernet.export.subnet import PROGRAM
from supernet.standalone import MODULES
from supernet.storage.manifest import write_manifest

OWN = Path(__file__).parents[2] / "supernest" / "own_modules"
YAML = """\
plugins: [{module}]
data: {data}
space: {{family: {family}, width: {widths}, depth: [1, 2], hidden: [8, 16]}}
train: {{steps: 2, batch_size: 16, diagnose_every: null}}
search: {{type: random, evaluations: 4}}
gradient: {{warmup: 0.0, settle: 0.0, budget: full}}
evaluation: {{calibration_batches: 2, calibration_batch_size: 16}}
rank: {{panel: 3, steps: 1}}
budgets: {{full: macs<=100%}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory outside of the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


DIGITS = "{source: digits, train_limit: 64}"
TABLE = "{source: table, path: t.csv, target: y}"
PICTURES = "{source: npz, path: images.npz}"


def put(here: Path, name: str, text: str | None = None, module: str | None = None, data: str = DIGITS) -> None:
    """Writes a module and its experiment."""
    module = module or name
    text = text if text is not None else (OWN / f"{name}.py").read_text("utf-8")
    (here / f"{module}.py").write_text(text, "utf-8")
    widths = [8] if name.startswith("small_cnn") else [4, 8]
    (here / "e.yaml").write_text(YAML.format(module=module, family=name, widths=widths, data=data), "utf-8")


def test_the_documentation_shows_the_module_that_is_tested() -> None:
    text = (Path(__file__).parents[3] / "docs" / "own_module.md").read_text("utf-8")
    assert f"```python\n{(OWN / 'residual_mlp.py').read_text('utf-8')}```" in text


@pytest.mark.parametrize(
    ("name", "data", "shape"),
    [
        ("residual_mlp", DIGITS, (8, 8, 1)),
        pytest.param("small_cnn", PICTURES, (12, 20, 1), marks=pytest.mark.slow),
    ],
)
def test_thirty_lines_go_from_check_to_a_reloaded_export(
    name: str, data: str, shape: tuple[int, ...], here: Path, supernest: Any, subtests: pytest.Subtests
) -> None:
    pictures(here)
    put(here, name, data=data)
    assert len((OWN / f"{name}.py").read_text("utf-8").splitlines()) <= 30
    code, out, err = supernest("check", "e.yaml", "--json")
    assert (code, err) == (0, "")
    space = json.loads(out)["space"]
    programs = 1 if name == "small_cnn" else 2
    assert (space["subnets"], space["genes"], space["programs"]) == (6 * programs, 4, programs)
    code, _, err = supernest("run", "e.yaml", "--out", "run", "--quiet")
    assert (code, err) == (0, "")
    code, _, err = supernest("rank", "e.yaml", "--out", "run", "--quiet")
    assert (code, err) == (0, "")
    for stage in ("gradient", "export"):
        code, _, err = supernest(stage, "e.yaml", "--out", "searched", "--quiet")
        assert (code, err) == (0, "")
    code, _, err = supernest("export", "run", "--budget", "macs<=60%", "--quiet")
    assert (code, err) == (0, "")
    with subtests.test("ONNX"):
        pytest.importorskip("onnxruntime", reason="needs the extra onnx: pip install 'supernest[onnx]'")
        code, out, err = supernest("export", "run", "--format", "onnx", "--subnet", "full", "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)[0]["parity_error"] <= 1e-4
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    subnets = [here / "run/subnets/full", here / "run/subnets/macs60%", here / "searched/subnets/full"]
    for directory in subnets:
        subnet = sn.load_subnet(directory)
        report = json.loads((directory / "report.json").read_text("utf-8"))
        assert sum(leaf.size for leaf in _leaves(subnet.weights)) >= report["costs"]["params"]  # with statistics
        assert report["parity_error"] < 1e-4
        logits = subnet.predict(images)
        assert logits.shape == (5, 10)
        with _without_modules():
            alone = sn.load_subnet(directory)
        assert alone.module is None
        np.testing.assert_allclose(alone.predict(images), logits, rtol=1e-5, atol=1e-5)
    (subnets[0] / PROGRAM).write_bytes(b"of another version")
    write_manifest(subnets[0])
    with (
        _without_modules(),
        pytest.raises(UserError, match=r"jax_export: cannot be read by JAX .*--plugin FILE"),
    ):
        sn.load_subnet(subnets[0])


def table(here: Path) -> np.ndarray:
    """Writes rows of three numbers and what follows from them; returns the numbers."""
    x = np.random.default_rng(0).normal(size=(60, 3)).round(3)
    rows = "\n".join(f"{a},{b},{c},{2 * a - b}" for a, b, c in x)
    (here / "t.csv").write_text(f"a,b,c,y\n{rows}\n", "utf-8")
    return x.astype(np.float32)


def pictures(here: Path) -> None:
    """Writes images of 12 by 20 pixels, of ten classes."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 60), ("test", 20)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 12, 20), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 10
    np.savez(here / "images.npz", **arrays)


def test_the_same_lines_take_a_table(here: Path, supernest: Any) -> None:
    put(here, "residual_mlp", data=TABLE)
    text = (here / "e.yaml").read_text("utf-8")
    (here / "e.yaml").write_text(text.replace("[4, 8]", "[4]"))
    examples = table(here)
    for stage, out in (("run", "run"), ("gradient", "searched"), ("export", "searched")):
        code, _, err = supernest(stage, "e.yaml", "--out", out, "--quiet")
        assert (code, err) == (0, "")
    for run in ("run", "searched"):
        subnet = here / run / "subnets" / "full"
        found = sn.load_subnet(subnet).predict(examples[:5])
        assert found.shape == (5, 1)
        with _without_modules():
            np.testing.assert_allclose(sn.load_subnet(subnet).predict(examples[:5]), found, rtol=1e-5, atol=1e-5)
    for family in ("vit", "mobilenet"):
        code, _, err = supernest("check", "e.yaml", "--set", f"space={{family: {family}, preset: small}}")
        assert (code, err.count("\n")) == (2, 1)
        assert "takes images, and the data are arrays" in err


@contextmanager
def _without_modules() -> Iterator[None]:
    """As in a process that knows nothing of a plug-in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULES, "_entries", {})
        patch.setattr(MODULES, "_loaded", True)
        yield


def _leaves(tree: Any) -> list[Any]:
    return [leaf for part in tree.values() for leaf in _leaves(part)] if isinstance(tree, dict) else [tree]


# ---------------------------------------------------------------- wrong ones


WRONG = {
    "ignores hidden": (
        "nnx.Linear(width, hidden, rngs=rngs), nnx.Linear(hidden, width, rngs=rngs)",
        "nnx.Linear(width, 64, rngs=rngs), nnx.Linear(64, width, rngs=rngs)",
        "space.hidden: no weight of ResidualMLP follows it; they are alike at each of [8, 16]. Use it in the module",
    ),
    "skips a layer": (
        "for layer in self.layers:",
        "for layer in list(self.layers)[1:]:",
        "space.family: ResidualMLP never runs the entries of layers.",
    ),
    "depends on the depth": (
        "        return self.head(x)",
        "        return self.head(x) * self.depth",
        "space.family: the exported module's outputs of residual_mlp (width 8, depth 2, hidden [16, 16]) differ",
    ),
    "needs the size of the batch": (
        "x.reshape(x.shape[0], -1)",
        "x.reshape(len(x), -1)",
        "cannot be exported for any number of inputs (TypeError: '_DimExpr' object cannot",
    ),
    "costs too little": (
        "sn.elastic(ResidualMLP,",
        "family = sn.elastic(ResidualMLP,",
        "parameters, and its cost says ",
    ),
}
WRONG_CNN = {
    "ignores hidden": (
        "Block(width, hidden, ",
        "Block(width, 16, ",
        "space.hidden: no weight of SmallCNN follows it; they are alike at each of [8, 16].",
    ),
    "costs too little": ("sn.elastic(SmallCNN,", "family = sn.elastic(SmallCNN,", "parameters, and its cost says "),
}
LOW = """

family.price = lambda self, cost, sizes: cost._replace(params=cost.params - 3)
"""


@pytest.mark.parametrize(
    ("module", "kind"), [*(("residual_mlp", kind) for kind in WRONG), *(("small_cnn", kind) for kind in WRONG_CNN)]
)
def test_check_refuses_a_wrong_module_in_one_line(module: str, kind: str, here: Path, supernest: Any) -> None:
    table(here)
    pictures(here)
    before, after, expected = (WRONG if module == "residual_mlp" else WRONG_CNN)[kind]
    text = (OWN / f"{module}.py").read_text("utf-8")
    assert before in text
    text = text.replace(before, after)
    if kind == "costs too little":
        text += LOW
    if kind == "depends on the depth":
        text = text.replace(
            "depth, hidden, classes, *, rngs):\n", "depth, hidden, classes, *, rngs):\n        self.depth = depth\n"
        )
    name = f"{module}_{len(kind)}"
    text = re.sub(r"sn\.elastic\((\w+),", rf'sn.elastic(\1, "{name}",', text)
    put(here, name, text, f"own_{name}", TABLE if module == "residual_mlp" else PICTURES)
    code, out, err = supernest("check", "e.yaml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected.replace("residual_mlp", name) in err


SAMPLER = """\
from dataclasses import dataclass

import numpy as np

from samplers import SAMPLERS, Paths, Sampler


@SAMPLERS.register("{name}")
@dataclass(frozen=True)
class Own(Sampler):
    paths_per_step = 2

    def sample(self, state, step, score=None):
        genes = self.space.sample(self.rng({rng}), 2)
        paths = Paths(genes, ("random",) * 2, np.ones(2, np.float32))
        for name, value in dict(genes={genes}, roles={roles}, weights={weights}).items():
            object.__setattr__(paths, name, value)  # past the types that only tests check
        return paths
"""
RIGHT = {"rng": "step", "genes": "genes", "roles": '("random",) * 2', "weights": "np.ones(2, np.float32)"}


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({}, None),
        ({"genes": "genes / 2"}, "sampler.type: Own.sample returns genes float64(2, 14), expected int32(paths, 14)."),
        ({"genes": "genes[:, :3]"}, "sampler.type: Own.sample returns genes int32(2, 3), expected int32(paths, 14)."),
        ({"genes": "genes + 9"}, "sampler.type: Own.sample returns genes outside of the space."),
        ({"genes": "np.tile(genes, (2, 1))"}, "returns 4 paths, and paths_per_step is 2."),
        ({"roles": '("own",) * 2'}, "sampler.type: Own.sample returns roles ('own', 'own') of 2 paths."),
        ({"weights": "np.ones(2)"}, "returns weights float64(2,), expected finite float32(2,)."),
        ({"rng": "np.random.SeedSequence().entropy % 1000"}, "draws other paths when step 0 is asked again."),
        (
            {"weights": "1 / 0"},
            "Own.sample raised ZeroDivisionError while the experiment was put together: division by zero.",
        ),
    ],
)
def test_check_refuses_a_wrong_sampler_in_one_line(
    wrong: dict[str, str], expected: str | None, here: Path, supernest: Any, request: pytest.FixtureRequest
) -> None:
    name = "own_sampler_" + re.sub(r"\W", "_", request.node.name)[-40:].lower() + str(len(str(wrong)))
    (here / f"{name}.py").write_text(SAMPLER.format(name=name, **{**RIGHT, **wrong}), "utf-8")
    (here / "e.yaml").write_text(
        f"plugins: [{name}]\nspace: {{family: vit, preset: small}}\nsampler: {{type: {name}}}\ntrain: {{steps: 2}}\n"
    )
    code, _, err = supernest("check", "e.yaml")
    if expected is None:
        assert (code, err) == (0, "")
    else:
        assert (code, err.count("\n")) == (2, 1)
        assert expected in err
    shutil.rmtree(here / "__pycache__", ignore_errors=True)


@pytest.mark.parametrize(("module", "data"), [("residual_mlp", TABLE), ("small_cnn", PICTURES)])
def test_check_refuses_a_sampler_of_floats_for_a_module(module: str, data: str, here: Path, supernest: Any) -> None:
    table(here)
    pictures(here)
    name = f"{module}_floats"
    text = (OWN / f"{module}.py").read_text("utf-8")
    text = re.sub(r"sn\.elastic\((\w+),", rf'sn.elastic(\1, "{name}",', text)
    put(here, name, text + SAMPLER.format(name=name, **{**RIGHT, "genes": "genes / 2"}), f"own_{name}", data)
    code, out, err = supernest("check", "e.yaml", "--set", f"sampler.type={name}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "sampler.type: Own.sample returns genes float64(2, 4), expected int32(paths, 4)." in err
