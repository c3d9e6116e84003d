"""Damaged files of a run, an export, an import, a device: refused in one line or harmless, never another result."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks.damage import KINDS, Damage, sampled
from experiments.devices.device_file import read_device
from experiments.pretrained.directory import ImportedDirectory
from experiments.pretrained.import_command import import_to
from search_spaces import UserError, build_space
from search_spaces.sealed_json import sealed
from supernet.storage.manifest import write_manifest
from tests.experiments.device_files import write_device
from tests.experiments.small_checkpoint import write_checkpoint_of

CASES = 24


@pytest.fixture(scope="module")
def damage(tmp_path_factory: pytest.TempPathFactory) -> Damage:
    return Damage(tmp_path_factory.mktemp("damage"))


def test_a_damaged_run_never_gives_another_result(damage: Damage) -> None:
    which = random.Random(0)
    verdicts = [damage.judge(file, kind, which) for file, kind in sampled(damage, CASES, 0)]
    faults = [verdict for verdict in verdicts if verdict.fault]
    assert not faults, faults
    assert any(verdict.refused for verdict in verdicts)
    assert {verdict.kind for verdict in verdicts} == set(KINDS)


@pytest.mark.parametrize("file", ["summary.json", "config.yaml", "run.json", "search/archive.jsonl"])
def test_a_file_of_another_run_is_refused(damage: Damage, file: str) -> None:
    verdict = damage.judge(file, "exchange", random.Random(0), "report")
    assert verdict.fault is None
    assert verdict.refused


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("import")
    write_checkpoint_of("llama", home / "llama")
    import_to(str(home / "llama"), home / "ours", (), 1, None, None)
    return home / "ours"


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff", b"family: vit\n", b"family: language\nwidth: x\n"]
)
@pytest.mark.parametrize("name", ["space.yaml", "source.json"])
def test_a_damaged_import_is_one_line(imported: Path, name: str, content: bytes, refit: bool) -> None:
    path, manifest = imported / "supernet" / name, imported / "supernet" / "manifest.json"
    kept, listed = path.read_bytes(), manifest.read_bytes()
    try:
        path.write_bytes(content)
        if refit:
            write_manifest(path.parent)
        with pytest.raises(UserError, match=name):
            _ = getattr(ImportedDirectory(imported), path.stem)
    finally:
        path.write_bytes(kept)
        manifest.write_bytes(listed)
    assert ImportedDirectory(imported).space["family"] == "language"
    assert ImportedDirectory(imported).source["model_type"] == "llama"


def rewritten(content: dict[str, Any], *keys: str, value: Any) -> str:
    inner: Any = content
    for key in keys[:-1]:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    inner[keys[-1]] = value
    return json.dumps(content)


def test_a_damaged_device_file_is_one_line(tmp_path: Path) -> None:
    space = build_space("vit", "small")
    path = write_device(tmp_path / "device.json", space)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(sealed(content)))
    assert read_device(path).cost(space).batch_size == 1
    damaged = [
        path.read_text().replace('"constant": 50', '"constant": 51'),
        path.read_text()[:200],
        "[" * 5000,
        rewritten(json.loads(json.dumps(content)), "device", value=[]),
        rewritten(json.loads(json.dumps(content)), "software", value=None),
        rewritten(json.loads(json.dumps(content)), "tables", value=[]),
        rewritten(json.loads(json.dumps(content)), "tables", "0", "batch_size", value=0),
        rewritten(json.loads(json.dumps(content)), "tables", "0", "latency_ns", "constant", value=1e400),
        rewritten(json.loads(json.dumps(content)), "pieces", value=[[10**30, 1, 1]]),
    ]
    for text in damaged:
        path.write_text(text)
        with pytest.raises(UserError, match=r"device\.json: no device file of version 1, or damaged"):
            read_device(path)
    path.write_text(rewritten(json.loads(json.dumps(content)), "pieces", value=[[1, 1, 1]] * len(content["pieces"])))
    with pytest.raises(UserError, match="lacks pieces of the search space"):
        read_device(path).cost(space)
