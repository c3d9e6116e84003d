"""Training by real Ray workers: the same weights as in one process, whatever dies, and nothing is left behind."""

import json
import os
import re
import signal
import socket
import socketserver
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.process.interrupt import StopRequest
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.stage import train
from tests.experiments.distributed.runs import (
    finish,
    kill_driver,
    last_step,
    listening,
    start,
    state_of,
    titled,
    wait_until,
)

pytestmark = pytest.mark.ray

EXPERIMENT = """\
seed: 3
data: {train_limit: 120, augmentation: {mixup: 0.2}}
space: {family: vit, preset: small, width: [16], depth: [1, 2], heads: [1, 2], mlp_ratio: [1.0], head_dim: 8}
train:
  steps: 20
  batch_size: 24
  checkpoint_every: 10
  evaluate_every: 20
  log_every: 5
  diagnose_every: 20
  ema: 0.9
  optimizer: {type: sgd, learning_rate: 0.1, weight_decay: 0.01}
  distillation: {type: largest, weight: 0.5}
sampler: {type: sandwich, random_paths: 1}
ray: {workers: 2}
"""


def alone(config: Path, out: Path, *settings: str) -> None:
    """Trains in this process."""
    experiment = build_experiment(load_config(config, (*settings, "ray=null")))
    with Checkpoints(out / "checkpoints") as checkpoints:
        train(experiment, checkpoints, lambda at: EventLog(out / "log", at), StopRequest(), True)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ray") / "e.yaml"
    path.write_text(EXPERIMENT)
    return path


@pytest.mark.parametrize(
    "settings",
    [
        (),  # three paths on two workers
        ("ray.parallel=data", "sampler.random_paths=0"),
        ("train.path_batch=share", "sampler.random_paths=2"),
        ("sampler={type: pada, paths: 1}", "train.distillation.type=none"),
        (
            "sampler={type: performance_aware, levels: 3, slack: 0.3, bank: 4}",
            "train.distillation.type=none",
            "space.heads=[1,2,3]",
            "space.mlp_ratio=[1.0,2.0]",
        ),
        (  # a scheme with weights of its own
            "space={family: mobilenet, preset: small, resolution: [8], depth: [1], kernel: [3, 5], expand: [1], "
            "widths: [8], strides: [2], squeeze_excite: [false], activations: [relu], stem_width: 8, first_width: 8, "
            "final_width: 8, feature_width: 8}",
            "supernet.sharing=kernel_transform",
            "sampler.random_paths=0",
            "train.optimizer.learning_rate=0.01",
        ),
    ],
    ids=["paths", "data", "share", "pada", "performance_aware", "kernel_transform"],
)
def test_two_workers_compute_what_one_process_does(config, tmp_path, settings):
    run = start("train", config, tmp_path / "two", *settings)
    alone(config, tmp_path / "one", *settings)
    assert "warning" not in finish(run)
    (steps, one), (_, two) = (state_of(config, tmp_path / name, *settings) for name in ("one", "two"))
    assert steps == 20
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), one.train.params, two.train.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), one.sampler, two.sampler)


# The first worker is killed below too, where checkpoints go through a storage.
RANKS = [0, 1] if int(os.environ.get("SUPERNEST_KILLS", "1")) > 1 else [1]
LONG = ("train.steps=300", "train.evaluate_every=300", "train.diagnose_every=300")


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """The last state of a longer training that nobody disturbs."""
    out = tmp_path_factory.mktemp("undisturbed")
    finish(start("train", config, out / "run", *LONG))
    return state_of(config, out / "run", *LONG)


@pytest.mark.parametrize("rank", RANKS)
def test_a_killed_worker_changes_no_bit(config, tmp_path, undisturbed, rank):
    run = start("train", config, tmp_path / "run", *LONG)
    wait_until(lambda: last_step(tmp_path / "run") >= 20, run)
    titled("TrainWorker", run)[rank].kill()
    assert "warning: training has started again at step" in finish(run)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["train"]
    assert (summary["steps"], summary["workers"], summary["fewest_workers"], summary["restarts"]) == (300, 2, 2, 1)
    jax.tree.map(np.testing.assert_array_equal, state_of(config, tmp_path / "run", *LONG), undisturbed)


def test_stopped_or_killed_the_same_command_goes_on(config, tmp_path, undisturbed):
    out = tmp_path / "run"
    run = start("train", config, out, *LONG)
    wait_until(lambda: last_step(out) >= 10, run)
    assert listening(run) == {"127.0.0.1"}
    run.send_signal(signal.SIGINT)
    assert "a checkpoint of it is saved. The same command resumes it." in finish(run, code=130)
    first = state_of(config, out, *LONG)[0]
    assert 10 <= first < 300

    run = start("train", config, out, *LONG)
    wait_until(lambda: last_step(out) >= first + 10, run)
    kill_driver(run)
    finish(start("train", config, out, *LONG))
    jax.tree.map(np.testing.assert_array_equal, state_of(config, out, *LONG), undisturbed)


def test_checkpoints_go_through_a_storage_and_come_back(config, tmp_path, undisturbed):
    settings = (*LONG, f"ray.storage={tmp_path / 'kept'}", "train.checkpoint_every=100")
    run = start("train", config, tmp_path / "run", *settings)
    wait_until(lambda: list((tmp_path / "kept").glob("*/checkpoint_*")), run)
    titled("TrainWorker", run)[0].kill()
    assert "started again" in finish(run)
    jax.tree.map(np.testing.assert_array_equal, state_of(config, tmp_path / "run", *settings), undisturbed)
    assert list((tmp_path / "run" / "tensorboard" / "train").glob("events.*"))


@pytest.fixture(scope="module")
def ports():
    """Ports on which others than Ray listen: one that never answers, a web server, and one that speaks HTTP/2."""

    class Web(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(999)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    class Http2(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(999)
            self.request.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))

    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Web) as web,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Http2) as http2,
    ):
        for server in (web, http2):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"mute": mute.getsockname()[1], "web": web.server_address[1], "http2": http2.server_address[1]}
        for server in (web, http2):
            server.shutdown()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("ray.address=127.0.0.1:9",), "ray.address: 127.0.0.1:9 cannot be reached: "),
        (("ray.address=mute",), " cannot be reached: timed out. Start the cluster, or mend the address"),
        (("ray.address=web",), " answers, but not as Ray does. Start the cluster, or mend the address"),
        (("ray.address=ray://web",), " answers, but not as Ray does. Start the cluster, or mend the address"),
        (("ray.address=http2",), ": no node of that cluster runs on this machine. Name the port of its client server"),
        (("ray.workers=999", "train.batch_size=999"), "room for"),
        (("train.batch_size=23",), "train.batch_size: 23 rows do not divide into 2 equal shares"),
    ],
)
def test_what_cannot_work_is_said_before_training(config, tmp_path, ports, settings, message):
    settings = [re.sub("|".join(ports), lambda name: f"127.0.0.1:{ports[name[0]]}", text) for text in settings]
    began = time.monotonic()
    error = finish(start("train", config, tmp_path / "run", *settings), code=2)
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert time.monotonic() - began < 30
