"""Whether training keeps what sublayers compute: as it is told, or as its device has room."""

import os
from types import SimpleNamespace

import jax
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.pipeline.check import describe, validate
from experiments.pipeline.description import report_lines
from experiments.training import rematerialization
from experiments.training.rematerialization import device_bytes, training_net
from search_spaces import UserError
from supernet.families.vit import ViTSupernet

EXPERIMENT = """\
data: {train_limit: 120}
space: {family: vit, preset: small, width: [16], depth: [1, 2], heads: [1, 2], mlp_ratio: [1.0], head_dim: 8}
train: {steps: 2, batch_size: 24}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(EXPERIMENT)
    return lambda *settings: load_config(path, settings)


def again(config) -> bool:
    return training_net(build_experiment(config)).passes.rematerialize


def test_more_than_half_of_the_memory_is_not_kept(config, monkeypatch):
    kept = training_net(build_experiment(config())).residual_bytes(24)
    for memory, expected in ((2 * kept, False), (2 * kept - 2, True)):
        monkeypatch.setattr(rematerialization, "device_bytes", lambda workers, memory=memory: memory)
        assert again(config()) is expected
        assert again(config("train.rematerialize=true"))
        assert not again(config("train.rematerialize=false"))
        assert describe(config()).train.rematerialize is expected
        assert any("computed again" in line for line in report_lines(describe(config()))) is expected


@pytest.mark.parametrize(
    "setting", ["train.accumulate=2", "train.path_batch=share", "ray={parallel: data, workers: 2}"]
)
def test_what_a_pass_does_not_see_takes_no_memory(config, monkeypatch, setting):
    kept = training_net(build_experiment(config())).residual_bytes(24)
    monkeypatch.setattr(rematerialization, "device_bytes", lambda workers: 1.1 * kept)
    settings = ["sampler={type: uniform, paths: 2}"]
    assert again(config(*settings))
    assert not again(config(*settings, setting))


def test_rows_that_do_not_divide_are_on_every_device(config, monkeypatch):
    seen = []
    monkeypatch.setattr(ViTSupernet, "residual_bytes", lambda self, rows: seen.append(rows) or 1)
    for devices in (1, 5, 8):
        monkeypatch.setattr(jax, "local_device_count", lambda devices=devices: devices)
        again(config())
    assert seen == [24, 24, 3]


@pytest.mark.parametrize(("settings", "expected"), [("cpus_per_worker: 3", 2), ("cpus_per_worker: 1", 4)])
def test_memory_is_that_of_the_workers_on_the_machine(config, monkeypatch, settings, expected):
    seen = []
    monkeypatch.setattr(rematerialization, "allowed_cores", lambda: 8)
    monkeypatch.setattr(rematerialization, "device_bytes", lambda workers: seen.append(workers) or 1e12)
    again(config(f"ray={{workers: 4, {settings}}}"))
    assert seen == [expected]


def test_the_device_tells_its_memory_and_a_machine_divides_its(monkeypatch, tmp_path):
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "max").write_text("max\n")
    monkeypatch.setattr(rematerialization, "_LIMITS", (tmp_path / "none", tmp_path / "max"))
    assert device_bytes(4) == physical / 4
    (tmp_path / "max").write_text(f"{physical // 3}\n")
    assert device_bytes(2) == physical // 3 / 2
    accelerator = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 12345})
    monkeypatch.setattr(jax, "local_devices", lambda: [accelerator])
    assert device_bytes(2) == 12345


def test_a_family_whose_sublayers_are_no_stages_cannot_compute_them_again(config, monkeypatch):
    monkeypatch.setattr(ViTSupernet, "residual_bytes", lambda self, rows: 0)
    assert not again(config())
    with pytest.raises(UserError, match=r"^train\.rematerialize: true is not for family vit"):
        again(config("train.rematerialize=true"))


def test_gradient_search_keeps_all_and_says_so(config):
    with pytest.raises(UserError, match=r"^train\.rematerialize: true is not for gradient search"):
        validate(config("train.rematerialize=true"), ["gradient"])
