"""An encoder without a task that gets one: imitation, search by relation loss, finetuning on labelled texts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from supernet.export.subnet import flatten, load_subnet
from tests.experiments.small_checkpoint import TEXT, write_checkpoint_of

SPACE = {
    "family": "encoder", "width": [16], "depth": [1, 2], "heads": [2], "mlp_ratio": [2.0], "head_size": 8,
    "layers": 4, "max_positions": 16,
}  # fmt: skip
TRAIN = {"steps": 2, "batch_size": 4, "diagnose_every": None, "ema": None}
BESIDES = {
    "train": TRAIN,
    "search": {"type": "random", "evaluations": 3},
    "evaluation": {"calibration_batches": 1, "calibration_batch_size": 1},
    "export": {"stablehlo": False},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an import `teacher`, and the experiments `imitate` and `classify`."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint_of("bert", tmp_path / "bert")
    (tmp_path / "text.txt").write_text(TEXT)
    rows = "".join(f"{word} {i}\t{label}\n" for i in range(9) for word, label in (("good", "yes"), ("bad", "no")))
    (tmp_path / "labelled.tsv").write_text("sentence\tlabel\n" + rows)
    relations = {
        "source": "relations", "path": "text.txt", "teacher": "teacher", "context": 8, "relation_heads": 4,
        "held_out": 4,
    }  # fmt: skip
    imitate = {"start": "teacher", "data": relations, "space": SPACE, "budgets": {"half": {"macs": "60%"}}}
    labelled = {"source": "labelled_text", "path": "labelled.tsv", "context": 10, "validation_fraction": 0.3}
    for name, tree in (("imitate", imitate), ("classify", {"data": labelled, "space": SPACE})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**BESIDES, **tree}))
    return tmp_path


def test_an_encoder_without_a_task_is_searched_and_then_gets_one(supernest: Any, here: Path) -> None:
    assert supernest("import", "bert", "--out", "teacher")[0] == 0
    assert supernest("run", "imitate.yaml", "--out", "run", "--quiet")[::2] == (0, "")
    found = json.loads((here / "run" / "summary.json").read_text())
    assert found["objective"] == "relation_loss"
    assert 0 < found["subnets"][0]["test_relation_loss"] < 2
    own = here / "run" / "subnets" / "half"
    code, _, err = supernest("predict", str(own), "text.txt")
    assert (code, err.count("\n")) == (2, 1)
    assert "has no task yet" in err

    arguments = ("finetune", str(own), "--data", "classify.yaml", "--steps", "1", "--learning-rate", "1e-9", "--quiet")
    code, out, err = supernest(*arguments, "--out", "tuned", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert Path(report["source"]) == own
    assert set(report["test"]) >= {"before", "after", "gain"}
    tuned, before = load_subnet(here / "tuned"), flatten(load_subnet(own).weights)
    assert tuned.config["labels"] == ["no", "yes"]
    after = flatten(tuned.weights)
    assert after.keys() - before.keys() == {"head.kernel", "head.bias"}
    for name, leaf in before.items():
        np.testing.assert_allclose(after[name], leaf, atol=1e-6, err_msg=name)
    assert supernest("evaluate", "tuned", "--data", "classify.yaml")[0] == 0
    assert not list(here.glob(".tuned*"))
    assert json.loads(supernest(*arguments, "--out", "tuned", "--json")[1]) == report  # found there

    code, _, err = supernest("evaluate", str(own), "--data", "classify.yaml")
    assert (code, err) == (2, "error: --data: has classes, and the network has none. Give data of its task.\n")
    text = (here / "labelled.tsv").read_text()
    (here / "renamed.tsv").write_text(text.replace("yes", "fine").replace("no\n", "poor\n"))
    taught = ("train.distillation.type=external", "train.distillation.teachers=[tuned]", "data.path=renamed.tsv")
    code, _, err = supernest("check", "classify.yaml", *(part for one in taught for part in ("--set", one)))
    assert (code, "teachers: data: the teacher" in err, "tuned has no class 'fine'" in err) == (2, True, True), err

    code, _, err = supernest(
        "run", "classify.yaml", "--out", "wide", "--set", "start=teacher", "--set", "space.width=[64]"
    )
    assert (code, "space.width: 64, more than the 32 of" in err, (here / "wide").exists()) == (2, True, False), err

    for setting, expected in (
        ("space.head_size=16", "space: is not that of"),
        ("space.width=[32]", "width"),
    ):
        code, _, err = supernest(*arguments, "--out", "other", "--set", setting)
        assert (code, err.count("\n"), expected in err) == (2, 1, True), err
        assert not (here / "other").exists()
