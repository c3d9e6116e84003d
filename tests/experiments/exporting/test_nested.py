"""`supernest export --format nested`: one directory of weights that is read up to any size."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

import supernest as sn
from experiments.benchmarks.nested import compared
from experiments.configuration.experiment_config import load_config
from supernet.export.nested import Index, parse_size

SECTIONS: dict[str, Any] = {
    "name": "nested",
    "data": {"train_limit": 600},
    "space": {"family": "vit", "preset": "small", "depth": [1], "width": [32], "heads": [1], "mlp_ratio": [2.0]},
    "train": {
        "steps": 60, "batch_size": 32, "optimizer": {"learning_rate": 0.01, "warmup_steps": 5}, "ema": None,
        "evaluate_every": 60, "checkpoint_every": 60, "diagnose_every": None,
    },
    "search": {"type": "random", "evaluations": 1},
    "export": {"stablehlo": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run, whose network is written as residual blocks."""
    directory = tmp_path_factory.mktemp("nested")
    run = sn.Experiment(**SECTIONS).run(directory / "run", progress=False)
    run.export_nested(bits=8)
    return directory


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


NESTED = Path("run/nested/full")


def distances(sizes: list[int]) -> list[float]:
    """How far outputs of each size are from those of the float network."""
    images = np.random.default_rng(0).integers(0, 17, (64, 8, 8, 1)).astype(np.uint8) * 15
    whole = sn.load_subnet("run/subnets/full").predict(images)
    return [float(np.linalg.norm(sn.load_subnet(NESTED, size=size).predict(images) - whole)) for size in sizes]


def test_more_bytes_are_a_better_network(here: Path) -> None:
    index, report = Index.read(NESTED), json.loads((NESTED / "report.json").read_text())
    assert len(index.blocks) == 8 * len(index.shapes) == report["blocks"]
    assert index.sizes == sorted(set(index.sizes))
    levels = [entry.level for entry in index.blocks]
    assert levels == sorted(levels)
    sizes = [row["bytes"] for row in report["sizes"]]
    assert sizes == [index.sizes[level * len(index.shapes)] for level in range(8)]
    assert sizes[-1] == index.sizes[-1] < 0.6 * report["float32_bytes"]
    found = distances(sizes)
    assert found[-1] < found[3] < found[0]
    assert found[-1] < 0.05 * found[0]
    assert report["sizes"][-1]["accuracy"] == pytest.approx(report["float32"]["accuracy"], abs=0.02)


def test_a_size_reads_what_fits_and_touches_nothing_behind(here: Path) -> None:
    index = Index.read(NESTED)
    between = index.sizes[5] + 1
    expected = sn.load_subnet(NESTED, size=index.sizes[5])
    shutil.copytree(NESTED, "cut")
    file = Path("cut/weights.safetensors")
    with safe_open(file, "numpy") as tensors:
        names = sorted(name for name in tensors.keys() if name.startswith("block."))  # noqa: SIM118
        unread = sum(tensors.get_tensor(name).nbytes for name in names[len(index.shapes) + 5 :])
    content = bytearray(file.read_bytes())
    content[-unread:] = bytes(unread)  # all blocks that do not fit; they are the end of the file
    file.write_bytes(content)
    images = np.zeros((2, 8, 8, 1), np.uint8)
    found = sn.load_subnet("cut", size=f"{between / 1000}kB")
    np.testing.assert_array_equal(found.predict(images), expected.predict(images))
    with pytest.raises(sn.UserError, match=r"weights\.safetensors: altered"):
        sn.load_subnet("cut", size=index.sizes[6])
    with pytest.raises(sn.UserError, match=r"weights\.safetensors: altered"):
        sn.load_subnet("cut")


def test_a_part_is_evaluated(supernest: Any, here: Path) -> None:
    rows = json.loads((NESTED / "report.json").read_text())["sizes"]
    for row in (rows[1], rows[-1]):
        code, out, err = supernest(
            "evaluate", str(NESTED), "--data", "run/config.yaml", "--split", "validation", "--size", f"{row['bytes']}B",
            "--json",
        )  # fmt: skip
        assert (code, err) == (0, "")
        assert json.loads(out)["accuracy"] == pytest.approx(row["accuracy"])
    assert supernest("evaluate", str(NESTED), "--data", "run/config.yaml")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", str(NESTED), "--data", "run/config.yaml", "--size", "10B"), "size: 10 bytes are less than the"),
        (("evaluate", str(NESTED), "--data", "run/config.yaml", "--size", "ten"), "size: 'ten' is no size."),
        (("evaluate", "run/subnets/full", "--data", "run/config.yaml", "--size", "1MB"), "is no nested export"),
        (("export", "run", "--format", "nested"), "nested/full: exists, and is left as it is."),
        (("export", "run", "--bits", "4"), "--bits: goes with --format nested only."),
        (("export", "run", "--format", "nested", "--bits", "0"), "--bits"),
        (("export", "run", "--format", "nested", "--subnet", "half"), "--subnet: 'half' is none of this run."),
    ],
)
def test_what_cannot_work_is_one_line(supernest: Any, here: Path, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = supernest(*arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_benchmark_compares_at_equal_bytes(here: Path) -> None:
    config = load_config("run/config.yaml")
    found = compared(Path("run/subnets/full"), config.data.load(config.seed), 4)
    assert found.pop("float32")["bytes"] == json.loads((NESTED / "report.json").read_text())["float32_bytes"]
    assert found
    for row in found.values():
        assert 0 < row["bytes read of blocks"] <= row["bytes"]
        assert 0 < row["distance, rounded"] < 1
        assert 0 < row["distance, blocks"] < 1


def test_sizes_are_read() -> None:
    assert [parse_size(given) for given in (12, "12B", "1.5MB", "2 kB", "1GB")] == [12, 12, 1_500_000, 2000, 10**9]
