"""Several nodes, each with processes of its own on this machine: what happens when one is lost, joins, or differs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import jax
import numpy as np
import pytest

from experiments.benchmarks.faults import cluster
from experiments.training.on_ray import _Waiting
from tests.experiments.distributed.runs import finish, last_step, said, start, state_of, wait_until

# Adding a node forks this process, of which JAX warns; the child becomes another program at once.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

EXPERIMENT = """\
seed: 3
data: {train_limit: 120}
space: {family: vit, preset: small, width: [16], depth: [1, 2], heads: [1, 2], mlp_ratio: [1.0], head_dim: 8}
train:
  steps: %d
  batch_size: 24
  checkpoint_every: 20
  evaluate_every: 2000
  diagnose_every: null
  optimizer: {type: sgd, learning_rate: 0.1}
plugins: [tests.experiments.distributed.unhurried]
sampler: {type: unhurried, paths: 2}
"""


@pytest.fixture(scope="module")
def nodes():
    with cluster() as made:
        yield made


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "e.yaml"
    path.write_text(EXPERIMENT % 350)
    return path


def test_an_elastic_training_goes_on_with_fewer_and_takes_new_ones_in(nodes, config, tmp_path):
    finish(start("train", config, tmp_path / "alone", "sampler.seconds=0"))
    out = tmp_path / "run"
    ray = f"ray={{address: '{nodes.address}', elastic: [1, 2], max_failures: 9}}"
    run = start("train", config, out, ray, "sampler.seconds=0.1")
    wait_until(lambda: last_step(out) >= 40, run)
    nodes.remove_one()
    seen = last_step(out)
    wait_until(lambda: last_step(out) > seen + 20, run)
    nodes.add()
    error = finish(run)
    assert "started again at step" in error
    assert "with 1 of 2 workers" in error
    figures = json.loads((out / "summary.json").read_text())["train"]
    assert (figures["steps"], figures["fewest_workers"]) == (350, 1)
    assert (figures["workers"], "with 2 of 2 workers" in error) == (2, True)
    (_, one), (_, other) = state_of(config, tmp_path / "alone"), state_of(config, out)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), one.train.params, other.train.params)


HOLD = """
import sys, ray
ray.init(sys.argv[1], configure_logging=False, log_to_driver=False)
assert ray.util.placement_group([{"CPU": 1}] * 2).wait(60)
print(file=sys.stderr, flush=True)
sys.stdin.read()
"""


def test_a_full_cluster_is_said_and_waited_for(nodes, config, tmp_path):
    plugins = "plugins=[tests.experiments.distributed.unhurried, tests.experiments.distributed.leaving]"
    settings = ("train.steps=2", "sampler.seconds=0", plugins, f"ray={{address: '{nodes.address}', workers: 2}}")
    other = subprocess.Popen([sys.executable, "-c", HOLD, nodes.address], stdin=PIPE, stderr=PIPE, text=True)
    said(other)
    run = start("train", config, tmp_path / "run", *settings)
    expected = "warning: training waits, as no room was found for 2 workers of 1 CPU each; free are 0 CPU\n"
    assert said(run) == expected
    run.send_signal(signal.SIGINT)
    error = finish(run, 130)
    assert "stopped while training waited for room" in error
    assert "still in Ray" not in error
    run = start("train", config, tmp_path / "run", *settings)
    assert said(run) == expected
    other.communicate()
    assert "warning" not in finish(run)


def test_waiting_is_counted_from_when_there_was_room_and_said_once():
    waiting = _Waiting()
    assert [waiting.seconds(placed, now) for placed, now in ((False, 5), (False, 9), (True, 10), (False, 12))] == [
        0, 4, 0, 0,
    ]  # fmt: skip
    assert [waiting.first(), waiting.first()] == [True, False]
    waiting.seconds(True, 20)
    assert waiting.first()


def test_a_node_with_another_version_is_refused_before_training(nodes, config, tmp_path):
    other = tmp_path / "site" / "optax-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: optax\nVersion: 0.0.1\n")
    path = os.pathsep.join([str(other.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    began = time.monotonic()
    with nodes.another(env_vars={"PYTHONPATH": path}):
        error = finish(start("train", config, tmp_path / "run", f"ray={{address: '{nodes.address}', workers: 2}}"), 2)
    assert "has other versions: optax 0.0.1 (here " in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "run").glob("checkpoints/step_*"))
    assert time.monotonic() - began < 60


@pytest.fixture
def hidden(tmp_path):
    """A directory of the driver's own: other processes have nothing, or something else, of this name."""
    (tmp_path / "kept").mkdir()
    opened = os.open(tmp_path / "kept", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(opened, True)
    yield opened, f"/proc/self/fd/{opened}"
    os.close(opened)


def test_a_storage_that_nodes_do_not_see_is_refused_before_training(nodes, config, tmp_path, hidden):
    opened, place = hidden
    ray = f"ray={{address: '{nodes.address}', workers: 2, storage: '{place}'}}"
    error = finish(start("train", config, tmp_path / "run", ray, inherited=(opened,)), 2)
    assert f"ray.storage: {place} is not visible on node 127.0.0.1." in error
    assert error.count("\n") == 1


def test_a_panel_that_nodes_do_not_see_is_refused_before_training(nodes, config, tmp_path, hidden):
    opened, place = hidden
    settings = ("train.steps=2", "sampler.seconds=0", f"rank={{panel: 3, steps: 2, cache: '{place}'}}")
    finish(start("train", config, tmp_path / "run", *settings))
    ray = f"ray={{address: '{nodes.address}', workers: 2, storage: '{tmp_path / 'seen'}'}}"
    error = finish(start("rank", config, tmp_path / "run", *settings, ray, inherited=(opened,)), 2)
    assert f"rank.cache: {place} is not visible on node 127.0.0.1." in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "kept").glob("*/result.json"))
