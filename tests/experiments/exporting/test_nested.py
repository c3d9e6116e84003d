"""`supernest export --format nested`: one directory of weights that is read up to any size."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import supernest as sn
from experiments.benchmarks.nested import compared
from experiments.configuration.experiment_config import load_config
from experiments.exporting.conversion import Source
from experiments.exporting.to_nested import Judge
from supernet.export.nested import Index, parse_size
from supernet.storage.manifest import write_manifest

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
    assert report["float32_parity_error"] <= 1e-4
    assert report["proved_on"] == {"split": "validation", "examples": 64}


def test_what_is_cut_into_blocks_is_proved_first(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("run", "other", ignore=shutil.ignore_patterns("nested"))
    given = []
    prove = Source.prove

    def noted(source: Source, outputs: np.ndarray, runtime: str) -> float:
        given.append(outputs)
        return prove(source, outputs + 1, runtime)

    monkeypatch.setattr(Source, "prove", noted)
    with pytest.raises(sn.UserError, match=r"nested/full: the exported network's outputs differ from the supernet's"):
        sn.Run("other").export_nested(bits=1)
    assert given[0].shape == (64, 10)
    assert not Path("other/nested/full").exists()


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
            "evaluate", str(NESTED), "--data", "run/config.yaml", "--split", "validation", "--size", f"{row['bytes']}",
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
        (
            ("evaluate", "run/subnets/ful", "--data", "run/config.yaml", "--size", "1MB"),
            "ful/manifest.json: no such dir",
        ),
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


def test_blocks_that_take_more_than_float32_are_refused_before_anything_is_computed(
    supernest: Any, here: Path, tmp_path: Path
) -> None:
    shutil.copytree("run", tmp_path / "run", ignore=shutil.ignore_patterns("nested"))
    code, _, err = supernest("export", str(tmp_path / "run"), "--format", "nested", "--bits", "24")
    assert code == 2
    assert "bits: 24 blocks of each weight of" in err
    assert err.endswith(" in float32. Give at most 16.\n")
    assert not (tmp_path / "run" / "nested" / "full").exists()


def altered(path: Path, alter: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of the export whose index is another one, with the hashes of its files."""
    shutil.copytree(NESTED, path)
    content = json.loads((path / "nested.json").read_text())
    alter(content)
    (path / "nested.json").write_text(json.dumps(content))
    write_manifest(path)
    return path


def shape(size: list[Any]) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["shapes"].update({"head.kernel": size})


def first(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["blocks"][0].update({key: value})


ALTERED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no shapes": (lambda index: index.pop("shapes"), "is damaged"),
    "shapes are a list": (lambda index: index.update(shapes=[]), "is damaged"),
    "a shape is text": (lambda index: index["shapes"].update({"head.kernel": "32"}), "is damaged"),
    "a shape of floats": (shape([32.0, 10.0]), "is damaged"),
    "no numbers": (shape([]), "shapes: 'head.kernel': [], expected 2 to 32 numbers above 0"),
    "one number": (shape([320]), "shapes: 'head.kernel': [320], expected 2"),
    "zeros": (shape([0, 0]), "shapes: 'head.kernel': [0, 0], expected 2"),
    "below zero": (shape([-32, -10]), "shapes: 'head.kernel': [-32, -10], expected 2"),
    "33 numbers": (shape([1] * 31 + [32, 10]), "10], expected 2 to 32 numbers"),
    "a larger shape": (shape([2**20, 2**20]), "of weights.safetensors is U8 [124], expected U8 [137506062336]"),
    "a shape of no file": (shape([10**3000, 10**3000]), "expected 2 to 32 numbers above 0, of a file's size"),
    "a weight twice": (lambda index: index["plain"].update({"head.kernel": "0"}), "'head.kernel' is in shapes and"),
    "no blocks": (lambda index: index.update(blocks=[]), "blocks: none is of "),
    "blocks of text": (lambda index: index.update(blocks=["a"]), "is damaged"),
    "a block less": (lambda index: index["blocks"].pop(), "is in weights.safetensors only"),
    "a block more": (
        lambda index: index["blocks"].append({**index["blocks"][-1], "level": 8}), "is not in weights.safetensors"
    ),
    "an unknown weight": (first("weight", "nose"), "blocks: number 0 is of 'nose', which shapes does not have"),
    "another level": (first("level", 1), "blocks: number 0 is level 1 of "),
    "a level of text": (first("level", "0"), "is damaged"),
    "no hash": (lambda index: index["blocks"][0].pop("sha256"), "is damaged"),
    "another order": (lambda index: index["blocks"].insert(1, index["blocks"].pop(8)), "expected one of every"),
    "another plain weight": (lambda index: index["plain"].update(nose="0"), "'plain.nose' is not in weights"),
    "fewer plain bytes": (lambda index: index.update(plain_bytes=-(10**12)), "plain_bytes: -1000000000000, expected "),
    "plain bytes of text": (lambda index: index.update(plain_bytes="1"), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("alter", "message"), ALTERED.values(), ids=ALTERED)
def test_an_index_that_is_altered_is_one_line(
    supernest: Any, here: Path, tmp_path: Path, alter: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = altered(tmp_path / "altered", alter)
    for size in ((), ("--size", "10kB")):
        code, _, err = supernest("evaluate", str(path), "--data", "run/config.yaml", *size)
        assert code == 2
        assert f"{path / 'nested.json'}: " in err
        assert message in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("block", [np.zeros(3, np.uint8), np.zeros(124, np.int8), np.zeros((4, 31), np.uint8)])
def test_blocks_of_another_form_than_the_index_says_are_one_line(here: Path, tmp_path: Path, block: np.ndarray) -> None:
    path = altered(tmp_path / "altered", lambda _: None)
    save_file({**load_file(path / "weights.safetensors"), "block.000000": block}, path / "weights.safetensors")
    write_manifest(path)
    with pytest.raises(
        sn.UserError, match=r"nested\.json: 'block\.000000' of weights\.safetensors is .*, expected U8 \["
    ):
        sn.load_subnet(path)


@pytest.mark.parametrize("size", [None, "1MB"])
def test_weights_are_read_from_no_other_directory(here: Path, tmp_path: Path, size: str | None) -> None:
    path = altered(tmp_path / "altered", lambda _: None)
    shutil.move(path / "weights.safetensors", tmp_path / "elsewhere")
    (path / "weights.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(sn.UserError, match=r"weights\.safetensors: (missing, or )?not a regular file"):
        sn.load_subnet(path, size=size)


def test_outputs_that_are_not_finite_have_no_figure(
    supernest: Any, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree("run", tmp_path / "run", ignore=shutil.ignore_patterns("nested"))
    monkeypatch.setattr(Judge, "figure", lambda *_: None)
    code, out, _ = supernest("export", str(tmp_path / "run"), "--format", "nested", "--bits", "1")
    assert code == 0
    assert [line.endswith(" has failed") for line in out.splitlines()] == [True, True]


def test_the_benchmark_compares_at_equal_bytes(here: Path) -> None:
    config = load_config("run/config.yaml")
    found = dict(compared(Path("run/subnets/full"), config.data.load(config.seed), 4))
    assert found.pop("float32")["bytes"] == json.loads((NESTED / "report.json").read_text())["float32_bytes"]
    assert found
    for row in found.values():
        assert 0 < row["bytes read of blocks"] <= row["bytes"]
        assert 0 < row["distance, rounded"] < 1
        assert 0 < row["distance, blocks"] < 1


def test_sizes_are_read() -> None:
    given = (12, "12", "12B", "1.5MB", "2 kB", "1.001kB", "1GB")
    assert [parse_size(one) for one in given] == [12, 12, 12, 1_500_000, 2000, 1001, 10**9]
    assert parse_size("9" * 400 + "B") == 10**18
