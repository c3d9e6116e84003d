"""The benchmark of one and two workers, in small and with real ones."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks.members_on_ray import timed
from search_spaces import UserError

YAML = """\
data: {train_limit: 60}
space: {family: vit, preset: small, patch_size: 4, width: [16], depth: [1], heads: [2], mlp_ratio: [1], head_dim: 8}
sampler: {type: sandwich, random_paths: 0}
train:
  method: evolution_strategy
  evolution_strategy: {population: 16, chunk: 4}
  steps: 60
  batch_size: 8
"""


@pytest.mark.ray
def test_steps_of_one_and_two_workers_are_timed_with_the_part_of_the_members(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(YAML)
    # In a process of its own: Ray would keep the environment of this moment, before the tests of clusters set theirs.
    command = (sys.executable, "-m", "experiments.benchmarks.members_on_ray", str(tmp_path / "e.yaml"))
    made = subprocess.run((*command, "--steps", "2", "--rounds", "1", "--json"), stdout=subprocess.PIPE, check=True)
    found = json.loads(made.stdout)
    assert found["steps"] == 2
    assert all(0 < found[f"seconds_of_members_of_{n}"] < found[f"seconds_a_step_of_{n}"] for n in (1, 2))
    assert math.isclose(found["two_over_one"], found["seconds_a_step_of_1"] / found["seconds_a_step_of_2"])
    assert 0 < found["share_of_a_step_that_the_driver_does_alone"] < 1


def test_an_experiment_without_members_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(YAML.replace("  method: evolution_strategy\n", ""))
    with pytest.raises(UserError, match=r"train\.method: gradient has no members"):
        timed(tmp_path / "e.yaml", (), 1)
