"""Checkpoints come back bit for bit, survive SIGKILL whole, are pruned as asked, and name what is damaged."""

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from experiments.storage.checkpoints import Checkpoints
from search_spaces.errors import UserError


class Position(NamedTuple):
    epoch: int
    order: np.ndarray


def _state(seed=0):
    key = jax.random.key(seed)
    params = {"blocks": {"w": jax.random.normal(key, (3, 5, 7)), "b": jnp.full((7,), -0.0)}, "empty": {}}
    params["half"] = jax.random.normal(key, (4, 3)).astype(jnp.bfloat16)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 10)))
    _, optimiser_state = optimiser.update(params, optimiser.init(params), params)
    ema = optax.ema(0.99)
    return {
        "params": params,
        "optimiser": optimiser_state,
        "ema": ema.update(params, ema.init(params))[1],
        "key": key,
        "keys": jax.random.split(key, (2, 3)),
        "position": Position(epoch=seed, order=np.random.default_rng(seed).permutation(11)),
        "sampler": {"generator": 2**127 + 12345, "temperature": 0.1 + 0.2, "on": True, "name": "sandwich"},
        "odd": [
            np.array([np.nan, np.inf, -0.0]),
            np.array([1, -2], ml_dtypes.int4),
            np.float64(1e-310),
            jnp.zeros((0, 4), jnp.int32),
            np.array(2**63 + 1, np.uint64),
            None,
        ],
    }


def _bits(leaf):
    if type(leaf) in (bool, int, float, str):
        return type(leaf), leaf
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), _bits(jax.random.key_data(leaf))
    kind = jax.Array if isinstance(leaf, jax.Array) else type(leaf)
    return kind, leaf.dtype.name, leaf.shape, np.asarray(leaf).tobytes()


def _assert_same_bits(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(got)[0], jax.tree.leaves(wanted), strict=True):
        assert _bits(a) == _bits(b), jax.tree_util.keystr(path)


@pytest.fixture
def three(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", keep_last=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"w": jax.random.normal(jax.random.key(step), (64, 64))})
    return tmp_path / "checkpoints"


LIKE = {"w": jnp.zeros((64, 64))}


def test_round_trip_is_exact(tmp_path):
    state = _state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 7
        step, restored = checkpoints.restore(_state(seed=1))
    assert step == 7
    _assert_same_bits(restored, state)


def test_round_trip_into_an_abstract_tree_on_the_sharding_it_names(tmp_path):
    state = {"w": jnp.arange(6.0), "key": jax.random.key(3)}
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[-1])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state)
        like = jax.eval_shape(lambda: state)
        like["w"] = jax.ShapeDtypeStruct((6,), jnp.float32, sharding=sharding)
        restored = checkpoints.restore(like)[1]
    _assert_same_bits(restored, state)
    assert restored["w"].sharding == sharding


def test_training_may_donate_and_overwrite_at_once(tmp_path):
    advance = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    for trial in range(5):
        state, counts = {"w": jnp.arange(1_000_000.0) + trial}, np.arange(1000)
        with Checkpoints(tmp_path / str(trial)) as checkpoints:
            checkpoints.save(1, {"jax": state, "numpy": counts})
            jax.block_until_ready(advance(state))
            counts[:] = -1
            restored = checkpoints.restore({"jax": {"w": jnp.zeros(1_000_000)}, "numpy": counts})[1]
        np.testing.assert_array_equal(restored["jax"]["w"], np.arange(1_000_000, dtype=np.float32) + trial)
        np.testing.assert_array_equal(restored["numpy"], np.arange(1000))


def test_a_restored_state_can_be_donated(three):
    with Checkpoints(three) as checkpoints:
        state = checkpoints.restore(LIKE)[1]
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(state)
    assert state["w"].is_deleted()


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "metrics", "left"),
    [
        (2, 1, [0.5, 0.1, 0.4, 0.3, 0.2], [2, 4, 5]),
        (1, 0, [0.5, 0.1, 0.4, 0.3, 0.2], [5]),
        (1, 2, [0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 5]),
        (2, 1, [None, float("nan"), None, None, None], [4, 5]),
        (1, 1, [0.3, 0.3, 0.4, None, None], [2, 5]),
    ],
)
def test_the_newest_and_the_best_survive(tmp_path, keep_last, keep_best, metrics, left):
    with Checkpoints(tmp_path, keep_last, keep_best) as checkpoints:
        for step, metric in enumerate(metrics, 1):
            checkpoints.save(step, {"step": step}, metric)
    assert checkpoints.steps() == left
    assert sorted(os.listdir(tmp_path)) == [f"step_{step:08d}" for step in left]
    assert [checkpoints.restore({"step": 0}, step) for step in left] == [(step, {"step": step}) for step in left]


def test_the_best_is_remembered_after_a_restart(tmp_path):
    assert Checkpoints(tmp_path).best() is None
    for step, metric in enumerate((0.1, 0.5, 0.4), 1):
        with Checkpoints(tmp_path, keep_last=1) as checkpoints:
            checkpoints.save(step, {"step": step}, metric)
    assert Checkpoints(tmp_path).steps() == [1, 3]
    assert Checkpoints(tmp_path).best() == 1


def test_saving_a_step_again_replaces_it(three):
    with Checkpoints(three, keep_last=3) as checkpoints:
        checkpoints.save(3, {"w": jnp.full((64, 64), 33.0)})
        assert float(checkpoints.restore(LIKE)[1]["w"][0, 0]) == 33.0
    assert sorted(os.listdir(three)) == ["step_00000001", "step_00000002", "step_00000003"]


def test_a_step_without_a_manifest_does_not_count_and_the_next_save_removes_it(three):
    (three / "step_00000003" / "manifest.json").unlink()
    (three / ".step_00000009.tmp-0123").mkdir()
    with Checkpoints(three, keep_last=9) as checkpoints:
        assert checkpoints.latest() == 2
        assert checkpoints.restore(LIKE)[0] == 2
        assert len(os.listdir(three)) == 4
        checkpoints.save(4, LIKE)
    assert sorted(os.listdir(three)) == ["step_00000001", "step_00000002", "step_00000004"]


def _largest(step: Path) -> Path:
    return max((path for path in (step / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def _tamper(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "word"),
    [(_tamper, "altered"), (lambda path: os.truncate(path, 10), "truncated"), (lambda path: path.unlink(), "missing")],
)
def test_damage_names_the_file_and_the_way_on(three, damage, word):
    path = _largest(three / "step_00000003")
    damage(path)
    with Checkpoints(three) as checkpoints:
        with pytest.raises(UserError) as error:
            checkpoints.restore(LIKE)
        text = str(error.value)
        assert text.startswith(f"{path}: {word}")
        assert text.endswith(f" Delete the directory {three / 'step_00000003'} to resume from step 2.")
        assert "\n" not in text
        _tamper(_largest(three / "step_00000002"))
        with pytest.raises(UserError, match=r"to resume from step 1\.$"):
            checkpoints.restore(LIKE)
        _tamper(_largest(three / "step_00000001"))
        with pytest.raises(UserError, match=r"to start again \(no earlier checkpoint is whole\)\.$"):
            checkpoints.restore(LIKE)


def test_an_additional_file_is_damage_too(three):
    (three / "step_00000003" / "state" / "more").write_text("")
    with pytest.raises(UserError, match=r"state/more: manifest\.json does not list"):
        Checkpoints(three).restore(LIKE)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": jnp.zeros((64, 65))}, "w: the checkpoint holds float32[64,64]; expected float32[64,65]."),
        ({"w": jnp.zeros((64, 64), jnp.bfloat16)}, "w: the checkpoint holds float32[64,64]; expected bfloat16[64,64]."),
        ({"w": 3}, "w: the checkpoint holds float32[64,64]; expected int."),
        ({"v": 3, "w": LIKE["w"]}, "v: not in this checkpoint; expected int."),
        ({"w": {"kernel": LIKE["w"]}}, "w/kernel: not in this checkpoint; expected float32[64,64]."),
        ({}, "w: the checkpoint holds float32[64,64], which nothing here expects."),
    ],
)
def test_another_tree_is_an_error_that_names_the_first_difference(three, like, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Checkpoints(three).restore(like)


def test_no_checkpoint_and_no_such_step(tmp_path, three):
    assert Checkpoints(tmp_path / "none").latest() is None
    assert Checkpoints(tmp_path / "none").last_good() == "no checkpoint was saved yet"
    assert Checkpoints(three).last_good() == "the last good checkpoint is of step 3"
    with pytest.raises(UserError, match="none: no checkpoint here"):
        Checkpoints(tmp_path / "none").restore(LIKE)
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match=r"no checkpoint of step 4\. Choose one of 1, 2, 3\."):
        Checkpoints(three).restore(LIKE, step=4)


def test_leaves_that_cannot_be_stored_are_named_before_anything_is_written(tmp_path):
    for leaf in (object(), b"bytes", np.array(["text"]), np.array([None])):
        with pytest.raises(TypeError, match=r"checkpoint: a/b: cannot store"):
            Checkpoints(tmp_path / "c").save(1, {"a": {"b": leaf}})
    with pytest.raises(TypeError, match="both called 'a/b'"):
        Checkpoints(tmp_path / "c").save(1, {"a": {"b": 1}, "a/b": 2})
    assert not (tmp_path / "c").exists()


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"a part of the path is a file\. Choose another directory\."):
        Checkpoints(tmp_path / "file" / "checkpoints").save(1, LIKE)
    (tmp_path / "closed").mkdir(mode=0o500)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(UserError, match="no permission"):
            Checkpoints(tmp_path / "closed" / "checkpoints").save(1, LIKE)
    finally:
        os.seteuid(me)


_SMALL_FILES_ONLY = """
import resource, sys
import numpy as np
from experiments.storage.checkpoints import Checkpoints
from search_spaces.errors import UserError
noise = np.random.default_rng(0).normal(size=(512, 512))
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(1, {"w": noise})
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
checkpoints.save(2, {"w": noise})
try:
    getattr(checkpoints, sys.argv[2])(*([3, {"w": noise}] if sys.argv[2] == "save" else []))
except UserError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
np.testing.assert_array_equal(checkpoints.restore({"w": noise})[1]["w"], noise)
print(checkpoints.steps())
"""


@pytest.mark.parametrize("call", ["save", "wait", "close"])
def test_a_failed_background_write_surfaces_at_the_next_call_and_leaves_the_older_step(tmp_path, call):
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_FILES_ONLY, str(tmp_path), call], capture_output=True, text=True, check=True
    )
    line, steps = done.stdout.splitlines()
    assert line.startswith(f"{tmp_path / 'step_00000002'}: larger than the system lets a file grow.")
    assert steps == "[1]"
    assert os.listdir(tmp_path) == ["step_00000001"]
    assert "Traceback" not in done.stderr


# What a step must hold follows from its number, so that a mixture of two steps is seen.
_CONTENT = textwrap.dedent("""
    import numpy as np

    def content(step):
        rng = np.random.default_rng(step)
        return {"step": step, "w": {f"{i}": rng.normal(size=(64, 128)).astype(np.float32) for i in range(16)}}
""")
_SAVER = _CONTENT + textwrap.dedent("""
    import sys
    from experiments.storage.checkpoints import Checkpoints

    with Checkpoints(sys.argv[1]) as checkpoints:
        step = (checkpoints.latest() or 0) + 1
        while True:
            checkpoints.save(step, content(step), metric=1 / step)
            print(step, flush=True)
            step += 1
""")


@pytest.mark.parametrize("kills", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_sigkill_at_any_moment_leaves_the_newest_step_whole(tmp_path, kills):
    made: dict = {}
    exec(_CONTENT, made)
    rng = random.Random(kills)
    reached = 0
    for _ in range(kills):
        saver = subprocess.Popen([sys.executable, "-c", _SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert saver.stdout is not None
        # The second line: the save before it has been committed.
        first = int(saver.stdout.readline())
        saver.stdout.readline()
        time.sleep(rng.uniform(0, 0.3))
        saver.send_signal(signal.SIGKILL)
        printed = [int(line) for line in saver.stdout if line.endswith("\n")]
        saver.wait()
        saver.stdout.close()
        with Checkpoints(tmp_path) as checkpoints:
            assert first == reached + 1, "did not go on from the newest whole step"
            step, tree = checkpoints.restore(made["content"](0))
            assert step >= max([first + 1, *printed]) - 1, "a committed step was lost"
            _assert_same_bits(tree, made["content"](step))
            for older in checkpoints.steps():
                _assert_same_bits(checkpoints.restore(made["content"](0), older)[1], made["content"](older))
        reached = step
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(reached + 1, made["content"](reached + 1))
    assert sorted(os.listdir(tmp_path)) == [f"step_{step:08d}" for step in (reached, reached + 1)]
