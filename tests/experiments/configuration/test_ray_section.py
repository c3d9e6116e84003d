"""The section `ray`: what it refuses, and that it decides nothing of the outcome."""

import sys
from pathlib import Path

import pytest

from experiments.configuration.experiment_config import config_of, load_config
from experiments.distributed.connect import _token
from experiments.pipeline import run as pipeline
from experiments.run_directory import RunDirectory
from experiments.training.ray_checkpoints import stored_name
from search_spaces import UserError

EXPERIMENT = "space: {family: vit, preset: small}\ntrain: {steps: 3}\n"


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "e.yaml"
    path.write_text(EXPERIMENT)
    return path


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("ray.address=here", "ray.address: 'here' is no address. Give local, auto, host:port or ray://host:port."),
        ("ray.workers=0", "ray.workers: 0 is out of range. Give at least 1."),
        ("ray.cpus_per_worker=0", "ray.cpus_per_worker: 0 is out of range. Give at least 0.001."),
        ("ray.cpus_per_worker=1.5", "ray.cpus_per_worker: 1.5 is neither a whole number nor less than 1. Give 2."),
        (
            "ray.accelerator_type=TPU-V4",
            "ray.accelerator_type: 'TPU-V4': workers would compute on its host's processor.",
        ),
        ("ray.max_failures=-2", "ray.max_failures: -2 is out of range. Give at least -1."),
        ("ray.elastic=[3, 2]", "ray.elastic: [3, 2] does not ascend. Give [2, 3]."),
        ("ray.parallel=model", "ray.parallel: 'model' is not known."),
        ("ray.worker=2", "ray.worker: no such setting. Did you mean 'workers'?"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(file, setting, message):
    with pytest.raises(UserError) as refused:
        load_config(file, [setting])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_addresses_and_paths(file, tmp_path):
    for address in ("local", "auto", "10.0.0.1:6379", "ray://head.example:10001", "[::1]:6379"):
        config = load_config(file, [f"ray.address={address!r}"])
        assert config.ray is not None
        assert config.ray.address == address
    stored = load_config(file, ["ray.storage=kept", "ray.elastic=[2, 4]"]).ray
    assert stored is not None
    assert (stored.storage, list(stored.sizes)) == (str(tmp_path / "kept"), [2, 3, 4])
    bucket = load_config(file, ["ray.storage=s3://bucket/kept"]).ray
    assert bucket is not None
    assert bucket.storage == "s3://bucket/kept"


def test_a_storage_whose_library_is_missing_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    refusal = r"^ray.storage: fsspec\+s3://kept: [^\n]*s3fs[^\n]* Install that on every node"
    with pytest.raises(UserError, match=refusal), _token("ray.storage", "fsspec+s3://kept"):
        pass


def test_runs_share_no_checkpoints_in_a_storage(file, tmp_path):
    config, other = load_config(file), load_config(file, ["seed=5"])
    names = {
        stored_name(config, tmp_path / "a"),
        stored_name(config, tmp_path / "b"),
        stored_name(other, tmp_path / "a"),
    }
    assert len(names) == 3
    assert stored_name(load_config(file, ["ray.workers=2"]), tmp_path / "a") in names  # goes on there


def test_a_run_goes_on_elsewhere(file, tmp_path):
    here, there = load_config(file), load_config(file, ["ray.workers=3"])
    assert here.identity == there.identity
    assert here.identity != load_config(file, ["train.path_batch=share"]).identity
    RunDirectory.create_or_resume(tmp_path / "run", here).close()
    with RunDirectory.create_or_resume(tmp_path / "run", there) as run:
        assert run.resumed
    with RunDirectory.create_or_resume(tmp_path / "run", here) as run:
        assert load_config(run.config).ray is None  # what the run began with


def test_gradient_search_says_what_it_does_not_use(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "gradient_search", lambda *_: None)
    for setting, said in (
        ("ray=null", ""),
        ("ray.workers=2", "warning: gradient search uses no workers; it runs in this process\n"),
        ("train.accumulate=2", "warning: gradient search does not accumulate; it takes its batches whole\n"),
    ):
        config = load_config(file, [setting])
        with RunDirectory.create_or_resume(tmp_path / setting, config) as run:
            pipeline.run(config, run, ("gradient",), quiet=True)
        assert capsys.readouterr().err == said


def test_a_configuration_comes_back_in_another_process(file, tmp_path):
    config = load_config(file, ["ray.elastic=[1, 2]", "data.augmentation={flip: true}"])
    assert config_of(config.as_dict(), tmp_path) == config
