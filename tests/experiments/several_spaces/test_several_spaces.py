"""Experiments of several spaces: a run for each, the best subnet of all for each budget, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supernet.export.subnet import flatten, load_subnet

SIZES = {"family": "encoder", "depth": [1], "heads": [1, 2], "mlp_ratio": [1.0], "head_size": 8}
SMALL, LARGE = {"name": "small", **SIZES, "width": [8]}, {"name": "large", **SIZES, "width": [32]}
EXPERIMENT: dict[str, Any] = {
    "name": "two",
    "data": {"source": "labelled_text", "path": "texts.tsv", "context": 12, "validation_fraction": 0.3},
    "spaces": [SMALL, LARGE],
    "train": {"steps": 2, "batch_size": 4, "diagnose_every": None, "ema": None},
    "search": {"type": "random", "evaluations": 2},
    "evaluation": {"calibration_batches": 1, "calibration_batch_size": 1},
    "export": {"stablehlo": False},
    "budgets": {"full": {"macs": "100%"}, "third": {"macs": "33%"}},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with texts and the experiment `two.yaml`."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{word} {i}\t{label}\n" for i in range(12) for word, label in (("good", "yes"), ("bad", "no")))
    (tmp_path / "texts.tsv").write_text("sentence\tlabel\n" + rows)
    (tmp_path / "two.yaml").write_text(json.dumps(EXPERIMENT))
    return tmp_path


def test_each_budget_gets_the_best_of_all_spaces_that_can_meet_it(supernest: Any, here: Path) -> None:
    code, out, _ = supernest("check", "two.yaml", "--json")
    found = json.loads(out)["spaces"]
    dearest = found["large"]["space"]["largest"]["macs"]
    assert (code, list(found)) == (0, ["small", "large"])
    assert found["small"]["budgets"] == {"full": {"macs": dearest}, "third": {"macs": pytest.approx(0.33 * dearest)}}
    assert list(found["large"]["budgets"]) == ["full"]  # a third of its largest is less than its smallest

    arguments = ("run", "two.yaml", "--out", "out", "--quiet", "--json")
    code, out, err = supernest(*arguments)
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert summary["spaces"] == {"small": 2, "large": 2}
    for row in summary["subnets"]:
        objectives = row["objectives"]
        assert objectives[row["space"]] == min(objectives.values())
        source = here / "out" / "spaces" / row["space"] / "subnets" / row["budget"]
        copied, own = (flatten(load_subnet(one).weights) for one in (here / row["directory"], source))
        for name, leaf in own.items():
            np.testing.assert_array_equal(copied[name], leaf)

    assert [list(row["objectives"]) for row in summary["subnets"]] == [["small", "large"], ["small"]]

    code, out, _ = supernest("status", "out")
    assert "chosen   full from" in out
    assert out.count("train    step 2 of 2, ended") == 2
    page = (here / "out" / "report.html").read_text()
    assert "third: from space small" in page
    assert "two-large" in page

    # What a kill before the end leaves out is made again, also from the directory alone.
    shutil.rmtree(here / "out" / "subnets" / "third")
    (here / "out" / "summary.json").unlink()
    assert json.loads(supernest("status", "out", "--json")[1])["chosen"] == {}
    shutil.move(here / "two.yaml", here / "other.yaml")
    code, again, _ = supernest("run", "out", "--quiet", "--json")
    assert (code, json.loads(again)) == (0, summary)
    assert (here / "out" / "subnets" / "third" / "manifest.json").is_file()

    left = ("run", "other.yaml", "--out", "out", "--set", f"spaces=[{json.dumps(SMALL)}]")
    assert supernest(*left)[::2] == (
        2,
        "error: out: holds runs of spaces small, large, and the experiment has small. Choose another directory with "
        "--out.\n",
    )


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"spaces": []}, "two.yaml: spaces: [] is no list of spaces. Give at least one: [{family: NAME, ...}]."),
    ({"space": SIZES}, "two.yaml: spaces: not beside space. Leave one of them out."),
    ({"spaces": [3]}, "two.yaml: spaces[0]: 3 is not a group of settings. Give settings as for space."),
    ({"spaces": [SIZES]}, "two.yaml: spaces[0].name: missing. Give each space a name, or a preset."),
    ({"spaces": [SMALL, SMALL]}, "two.yaml: spaces[1].name: 'small' is the name of another space, too. "),
    (
        {"spaces": [SMALL, {"family": "language", "preset": "language_step"}]},
        "two.yaml: spaces[1].family: language, and the first space has encoder. Give all of them one family.",
    ),
    ({"spaces": [SMALL, {**LARGE, "width": 3}]}, "two.yaml: spaces[1].width: 3 is not a list. "),
    ({"spaces": [SMALL, {**SMALL, "name": "twin"}]}, "two.yaml: spaces.twin: has the same networks as small. "),
    ({"spaces": [SMALL, {**LARGE, "vocabulary": 300}]}, "two.yaml: spaces.large.vocabulary: 300, and small has 25"),
    ({"spaces": [SMALL, {**LARGE, "layers": -1}]}, "two.yaml: spaces.large.layers: -1 is less than the depth 1. "),
    ({"device": "d.json"}, "two.yaml: device: not beside spaces, as a device file is measured for one space. "),
    ({"budgets": {"tiny": "macs<=10"}}, "two.yaml: budgets.tiny: no network of any space meets 'macs<=10'. Raise it."),
    (
        {"budgets": {"third": {"macs": "33%"}}},
        "two.yaml: spaces.large: none of its networks meets a budget. Leave it out, or raise a budget.",
    ),
]  # fmt: skip


def test_one_line_says_what_does_not_go_together(supernest: Any, here: Path) -> None:
    for changed, expected in REFUSALS:
        (here / "two.yaml").write_text(json.dumps({**EXPERIMENT, **changed}))
        code, _, err = supernest("run", "two.yaml", "--out", "out")
        assert (code, err.count("\n"), (here / "out").exists()) == (2, 1, False), err
        assert err.startswith(f"error: {expected}"), err
    (here / "two.yaml").write_text(json.dumps(EXPERIMENT))
    for command in ("train", "search", "rank"):
        code, _, err = supernest(command, "two.yaml", "--out", "out")
        assert (code, err) == (
            2,
            "error: two.yaml: spaces: several are for supernest run, check and status. Each of their runs is one of "
            "its own: RUN/spaces/NAME.\n",
        )
