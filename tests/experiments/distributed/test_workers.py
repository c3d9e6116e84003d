"""Sums over real processes of `jax.distributed`, and a process that has two devices."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from experiments.distributed.workers import Workers

REPOSITORY = Path(__file__).resolve().parents[3]
SUMS = """
import sys, jax, numpy as np
jax.distributed.initialize("127.0.0.1:" + sys.argv[1], 2, int(sys.argv[2]))
import jax.numpy as jnp
from experiments.distributed.workers import Workers
workers = Workers()
assert (workers.rank, workers.count) == (int(sys.argv[2]), 2)
r = workers.rank
tree = {"a": jnp.full((3, 2), 1.0 + r), "b": [np.float32(r), jnp.arange(4) * r, jnp.zeros((0,))], "n": None}
found = workers.sum(tree)
np.testing.assert_array_equal(found["a"], np.full((3, 2), 3.0))
np.testing.assert_array_equal(found["b"][1], np.arange(4))
assert found["b"][0] == 1 and found["b"][2].shape == (0,) and found["n"] is None
rng = np.random.default_rng(r)
noisy = workers.sum(jnp.asarray(rng.normal(size=5001), jnp.float32))
assert np.isnan(workers.sum(jnp.array([np.nan if r else 1.0]))).all()
asked = []
squares = workers.shared(lambda items: asked.append(items) or items.astype(float) ** 2, np.arange(5))
np.testing.assert_array_equal(squares, [0, 1, 4, 9, 16])
np.testing.assert_array_equal(asked[0], [1, 3] if r else [0, 2, 4])
np.testing.assert_array_equal(workers.shared(lambda items: items + 0.5, np.arange(1)), [0.5])
assert workers.seconds > 0
print(np.asarray(noisy).tobytes().hex())
"""
DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from experiments.training.schedule import Schedule
from experiments.distributed.workers import Workers
from search_spaces import build_space
from supernet.tasks.distillation import Distillation
from supernet.training.optimizer import OptimizerSettings
from supernet.engine.supernet import build_supernet
from supernet.training.training import TrainStep
from supernet.training.work import Work

workers = Workers()
assert workers.count == 1 and len(jax.devices()) == 2
space = build_space("vit", "small", {"width": [16], "depth": [1, 2], "head_dim": 8})
net = build_supernet(space)
genes = np.array([space.largest.genes, space.smallest.genes], np.int32)
x, targets = jax.random.normal(jax.random.key(1), (12, 8, 8, 1)), jax.nn.one_hot(jnp.arange(12) % 10, 10)
shares = tuple(Schedule(1, 12).dealt(space.cost(genes)["macs"])[0])
found = []
for place, everywhere in ((workers.divided, workers.everywhere), (lambda rows: rows, lambda tree: tree)):
    step = TrainStep(net, OptimizerSettings(type="sgd").build(9), Distillation("largest"), 0.9, gene_norms=True)
    state = everywhere(step.init(net.init(jax.random.key(0))))
    for _ in range(2):
        state, result = step(state, genes, ("largest", "smallest"), np.ones(2, np.float32), x, targets,
                             work=Work(shares, place=place))
    leaf = jax.tree.leaves(state.params)[0]
    assert len(leaf.sharding.device_set) == (2 if place == workers.divided else 1)
    found.append((state, result.paths))
assert len(workers.divided(x).sharding.device_set) == 2
assert workers.divided(x).addressable_shards[0].data.shape[0] == 6
assert workers.divided(x[:5]).addressable_shards[0].data.shape[0] == 5
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *found)
"""


def python(code, *arguments, **environment):
    """A process that runs code."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process):
    """What a process printed; fails with its traceback where it failed."""
    out, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    return out.splitlines()[-1] if out else out  # Gloo prints too


def test_processes_read_the_same_bits():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first, second = [finished(process) for process in [python(SUMS, port, rank) for rank in range(2)]]
    assert first == second
    rngs = [np.random.default_rng(rank).normal(size=5001).astype(np.float32) for rank in range(2)]
    np.testing.assert_array_equal(np.frombuffer(bytes.fromhex(first), np.float32), rngs[0] + rngs[1])


def test_a_process_spreads_its_rows_over_its_devices():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    finished(python(DEVICES, XLA_FLAGS=flags))


def test_one_process_alone_sums_nothing():
    workers = Workers()
    tree = {"a": np.ones(2)}
    assert workers.sum(tree) is tree
    assert workers.divided(tree["a"]) is tree["a"]
    np.testing.assert_array_equal(workers.shared(lambda items: items * 2.0, np.arange(3)), [0, 2, 4])
    assert workers.seconds == 0
