"""`supernest check --time`: every program is timed, and nothing is left behind."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.pipeline.timing import Timing, report_lines, untimed_steps

YAML = """\
space: {family: vit, preset: small, depth: [1, 2], width: [16, 32], heads: [1], mlp_ratio: [1.0]}
train: {steps: 600, batch_size: 8, distillation: {type: TYPE}}
search: {type: random, evaluations: 60}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("distillation", ["largest", "ensemble"])
def test_each_program_is_timed_and_minutes_follow(supernest: Any, here: Path, distillation: str) -> None:
    (here / "e.yaml").write_text(YAML.replace("TYPE", distillation), "utf-8")
    code, out, err = supernest("check", "e.yaml", "--time", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)["timing"]
    assert len(found["programs"]) == 2
    once = sum(program["first_step_s"] for program in found["programs"])
    assert all(1e3 * program["first_step_s"] > program["path_ms"] > 0 for program in found["programs"])
    assert found["train_minutes"] == pytest.approx((once + 600 * found["step_ms"] / 1e3) / 60, abs=0.01)
    assert found["search_minutes"] >= 0
    assert found["memory_bytes"] > 10**7
    assert found["warnings"] == []
    assert sorted(path.name for path in here.iterdir()) == ["e.yaml"]
    if distillation == "largest":
        code, out, _ = supernest("check", "e.yaml", "--time")
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()][-4:] == ["program", "program", "minutes", "memory"]


def test_steps_of_an_incubation_are_named_as_not_timed() -> None:
    found = Timing([], 1.0, 2.0, 3.0, 10**9, [], untimed_steps=1300)
    assert report_lines(found)[1] == "          and 1,300 steps of incubation, not timed"
    assert "incubation" not in "\n".join(report_lines(dataclasses.replace(found, untimed_steps=0)))
    parts = "{modules: 2, meta_steps: 500, module_steps: 400}"
    config = ExperimentConfig.model_validate(yaml.safe_load(YAML.replace("TYPE", "none")) | {"train": {
        "steps": 600, "incubation": yaml.safe_load(parts)}})  # fmt: skip
    assert untimed_steps(config) == 1300
