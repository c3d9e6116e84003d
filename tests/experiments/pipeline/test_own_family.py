"""A user's own family in one file outside of the repository, with no plain module: from `check` to reloaded exports."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import supernest as sn
from search_spaces import FAMILIES
from supernest.testing import ContractError, build_space, build_supernet, check_family
from supernet.engine.derived import DerivedNetwork
from supernet.engine.supernet import SUPERNETS

FILE = Path(__file__).parents[2] / "supernest" / "own_family" / "patch_transformer.py"
NAME = FILE.stem
SIZES = {"width": [8, 16], "depth": [1, 2], "heads": [1, 2], "mlp_ratio": [1.0, 2.0], "head_dim": 8, "patch": 4}
YAML = """\
plugins: [{module}]
data: {{source: npz, path: images.npz}}
space: {{family: {module}, {settings}}}
train: {{steps: 2, batch_size: 8, diagnose_every: null}}
search: {{type: random, evaluations: 4}}
gradient: {{warmup: 0.0, settle: 0.0, budget: full}}
rank: {{panel: 3, steps: 1}}
budgets: {{full: macs<=100%}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory outside of the repository, with images of 12 by 20 pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 48), ("test", 12)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 12, 20), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 3
    np.savez(tmp_path / "images.npz", **arrays)
    return tmp_path


def put(here: Path, text: str, module: str, **sizes: Any) -> None:
    """Writes a family and its experiment."""
    settings = ", ".join(f"{name}: {value}" for name, value in {**SIZES, **sizes}.items())
    (here / f"{module}.py").write_text(text.replace(NAME, module), "utf-8")
    (here / "e.yaml").write_text(YAML.format(module=module, settings=settings), "utf-8")


@contextmanager
def without_plugin() -> Iterator[None]:
    """As in a process that knows nothing of it."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in (FAMILIES, SUPERNETS):
            patch.setattr(registry, "_entries", {k: v for k, v in dict(registry).items() if k != NAME})
        yield


def test_the_documentation_shows_the_family_that_is_tested() -> None:
    text = FILE.read_text("utf-8")
    assert len(text.splitlines()) <= 110
    assert f"```python\n{text}```" in (Path(__file__).parents[3] / "docs" / "extending.md").read_text("utf-8")


def test_one_file_goes_from_check_to_reloaded_exports(here: Path, supernest: Any, subtests: pytest.Subtests) -> None:
    put(here, FILE.read_text("utf-8"), NAME)
    code, out, err = supernest("check", "e.yaml", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["space"]["subnets"] == 40
    put(here, FILE.read_text("utf-8"), NAME, width=[16])  # one program
    for stage, run in (("run", "run"), ("rank", "run"), ("gradient", "searched"), ("export", "searched")):
        code, _, err = supernest(stage, "e.yaml", "--out", run, "--quiet")
        assert (code, err) == (0, "")
    images = np.random.default_rng(1).integers(0, 256, (5, 12, 20, 1), np.uint8)
    for directory in (here / "run/subnets/full", here / "searched/subnets/full"):
        report = json.loads((directory / "report.json").read_text("utf-8"))
        assert report["parity_error"] < 1e-5
        subnet = sn.load_subnet(directory)
        assert isinstance(subnet.module, DerivedNetwork)
        assert sum(leaf.size for leaf in _leaves(subnet.weights)) == report["costs"]["params"]
        logits = subnet.predict(images)
        assert logits.shape == (5, 3)
        with without_plugin():
            alone = sn.load_subnet(directory)
        assert alone.module is None
        np.testing.assert_allclose(alone.predict(images), logits, rtol=1e-5, atol=1e-5)
    with subtests.test("ONNX"):
        runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx: pip install 'supernest[onnx]'")
        code, _, err = supernest("export", "run", "--format", "onnx", "--subnet", "full", "--quiet")
        assert (code, err) == (0, "")
        (model,) = (here / "run").rglob("*.onnx")
        (found,) = runtime.InferenceSession(model).run(None, {"images": images})
        expected = sn.load_subnet(here / "run/subnets/full").predict(images)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    code, _, err = supernest("check", "e.yaml", "--set", "space={family: vit, preset: small}")
    assert (code, err.count("\n")) == (2, 1)
    assert "images of 12 by 20 pixels" in err


def _leaves(tree: Any) -> list[Any]:
    return [leaf for part in tree.values() for leaf in _leaves(part)] if isinstance(tree, dict) else [tree]


WRONG = {
    "reads_another": ('params["up"])', 'params["top"])', "PatchTransformer.stages.<locals>.up raised KeyError"),
    "never_reads": (
        '{"norm": norm(width), "up"',
        '{"more": norm(width), "norm": norm(width), "up"',
        "space.family: no stage of PatchTransformer, nor embed or head, reads layers/0/mlp/more/bias, layers/0/",
    ),
    "another_axis": (
        'Axis("hidden", ("width", "mlp_ratio"), lambda width, ratio: int(width * ratio))',
        'Axis("hidden", ("width", "mlp_ratios"), lambda width, ratio: int(width * ratio))',
        "axis hidden is sized by 'mlp_ratios', which is no choice. Did you mean 'mlp_ratio'?",
    ),
    "another_size": (
        '"down": linear(hidden, width, t)',
        '"down": linear(width, width, t)',
        "PatchTransformer.stages.<locals>.down raised TypeError while",
    ),
    "costs_too_little": (
        "    @property\n    def tokens",
        "    def price(self, cost, sizes):\n        return cost._replace(params=cost.params - 3)\n\n"
        "    @property\n    def tokens",
        "parameters, and its cost says ",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_check_refuses_a_wrong_family_in_one_line(kind: str, here: Path, supernest: Any) -> None:
    before, after, expected = WRONG[kind]
    text = FILE.read_text("utf-8")
    assert before in text
    put(here, text.replace(before, after), f"{NAME}_{kind}")
    code, out, err = supernest("check", "e.yaml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected in err


def test_a_weight_that_no_part_names_is_one_line_in_tests_too() -> None:
    text = FILE.read_text("utf-8").replace(NAME, f"{NAME}_read").replace('params["up"])', 'params["top"])')
    exec(compile(text, "own", "exec"), {"__name__": "own_read"})
    space = build_space(f"{NAME}_read", None, {**SIZES, "input_shape": [4, 8, 1], "classes": 3})
    with pytest.raises(ContractError, match=r"a stage of PatchTransformer reads 'top', which no part of the network"):
        check_family(build_supernet(space))
