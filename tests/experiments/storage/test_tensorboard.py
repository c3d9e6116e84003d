"""Events are read back by TensorBoard itself, also after a kill and a resume."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.storage.tensorboard import EventLog, markdown_table
from search_spaces.errors import UserError

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def _read(directory: Path):
    events = accumulator.EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0, "histograms": 0})
    return events.Reload()


def _curve(directory: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in _read(directory).Scalars(name)]


def test_scalars_come_back_in_order(tmp_path):
    with EventLog(tmp_path / "train") as log:
        for step in range(5):
            log.scalars(step, {"loss/largest": 0.5 / (step + 1), "images": np.float32(step)})
        log.scalars(5, {"loss/largest": float("nan")})
    curve = _curve(tmp_path / "train", "loss/largest")
    assert curve[:5] == [(step, pytest.approx(0.5 / (step + 1), rel=1e-6)) for step in range(5)]
    assert curve[5][0] == 5
    assert np.isnan(curve[5][1])
    assert _curve(tmp_path / "train", "images") == [(step, float(step)) for step in range(5)]


def test_histogram_keeps_count_range_and_sum(tmp_path):
    macs = np.array([[10_000_000_000, 20_000_000_000], [30_000_000_000, 30_000_000_000]])
    with EventLog(tmp_path) as log:
        log.histogram(3, "macs", macs)
        log.histogram(4, "macs", [7, 7, 7])
        log.histogram(5, "macs", [1.0, float("nan"), float("inf")])
    first, same, holes = _read(tmp_path).Histograms("macs")
    value = first.histogram_value
    assert first.step == 3
    assert (value.min, value.max, value.num, value.sum) == (1e10, 3e10, 4, 9e10)
    assert sum(value.bucket) == 4
    assert (same.histogram_value.num, same.histogram_value.min, same.histogram_value.max) == (3, 7, 7)
    assert holes.histogram_value.num == 1
    assert _curve(tmp_path, "macs/not_finite") == [(5, 2.0)]


def test_hparams_and_table_come_back(tmp_path):
    from tensorboard.plugins.hparams import plugin_data_pb2

    values = {"sampler": {"name": "sandwich", "paths": 2}, "ema": True, "lr": 0.25, "depths": [12, 14], "seed": None}
    with EventLog(tmp_path) as log:
        log.hparams(values, {"accuracy": 0.75})
        log.table(9, "front", ["macs", "accuracy", "name"], [(1_000_000, 0.98765, "a|b"), (np.int64(5), 0.5, "c")])
    events = _read(tmp_path)
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    parsed = getattr(plugin_data_pb2, "HParamsPluginData").FromString(content)  # noqa: B009  (made at import)
    got = parsed.session_start_info.hparams
    assert got["sampler.name"].string_value == "sandwich"
    assert got["sampler.paths"].number_value == 2
    assert got["ema"].bool_value is True
    assert got["lr"].number_value == 0.25
    assert json.loads(got["depths"].string_value) == [12, 14]
    assert got["seed"].string_value == "null"
    assert _curve(tmp_path, "accuracy") == [(0, 0.75)]
    (table,) = events.Tensors("front/text_summary")
    assert table.step == 9
    assert table.tensor_proto.string_val[0].decode().splitlines() == [
        "| macs | accuracy | name |",
        "| --- | --- | --- |",
        "| 1,000,000 | 0.9877 | a\\|b |",
        "| 5 | 0.5 | c |",
    ]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="zip"):
        markdown_table(["a", "b"], [(1,)])


@pytest.mark.parametrize(("resumed", "kept"), [(6, 6), (0, 0), (None, -1)])
def test_a_resumed_run_takes_back_what_came_after_its_checkpoint(tmp_path, resumed, kept):
    # Within one second of each other, as after a quick crash: the file names must differ all the same.
    with EventLog(tmp_path) as log:
        for step in range(10):
            log.scalars(step, {"loss": step})
            log.histogram(step, "macs", [step])
    first = kept + 1
    with EventLog(tmp_path, resumed_step=resumed) as log:
        log.scalars(first, {"loss": 100 + first})
    assert len(os.listdir(tmp_path)) == 2
    assert _curve(tmp_path, "loss") == [(step, float(step)) for step in range(first)] + [(first, 100.0 + first)]
    if first:
        assert [event.step for event in _read(tmp_path).Histograms("macs")] == list(range(first))


_KILLED = """
import os, signal, sys
from experiments.storage.tensorboard import EventLog
log = EventLog(sys.argv[1])
for step in range(10):
    log.scalars(step, {"loss": step})
    if step == 4:
        log.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_flushed_events_survive_a_kill_and_a_torn_record_is_passed_over(tmp_path):
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert [step for step, _ in _curve(tmp_path, "loss")][:5] == [0, 1, 2, 3, 4]
    (file,) = tmp_path.iterdir()
    os.truncate(file, file.stat().st_size - 3)
    with EventLog(tmp_path, resumed_step=3) as log:
        log.scalars(4, {"loss": 44})
    assert _curve(tmp_path, "loss") == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 44.0)]


def test_another_process_than_the_main_one_writes_nothing(tmp_path):
    with EventLog(tmp_path / "train", main_process=False) as log:
        log.scalars(1, {"loss": 1})
        log.histogram(1, "macs", [1])
        log.hparams({"a": 1}, {"b": 1})
        log.table(1, "front", ["a"], [(1,)])
        log.flush()
    assert not (tmp_path / "train").exists()


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"a part of the path is a file\. Choose another directory\."):
        EventLog(tmp_path / "file" / "train")


def test_a_full_disk_is_one_line_and_does_not_block(tmp_path, monkeypatch):
    log = EventLog(tmp_path)
    assert log._writer is not None
    records = log._writer._py_recordio_writer
    with open(records.path, "ab") as file, open("/dev/full", "wb", buffering=0) as full:
        records.close()
        monkeypatch.setattr(records, "_writer", full)
        with pytest.raises(UserError, match="no space left"):
            log.scalars(1, {"loss": 1.0})
        records._writer = file
        log.close()
