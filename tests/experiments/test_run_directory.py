"""Run directories: made whole, resumed by their own configuration only, written by one process at a time."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import run_directory
from experiments.configuration.experiment_config import ExperimentConfig, load_config
from experiments.run_directory import RunDirectory, check_run_directory
from experiments.storage.run_identity import run_identity
from experiments.user_input.yaml_files import dump_yaml, parse_yaml
from search_spaces import UserError
from search_spaces.sealed_json import sealed

REPOSITORY = Path(__file__).resolve().parents[2]


def config_with(tmp_path: Path, *overrides: str) -> ExperimentConfig:
    """Returns a small experiment."""
    path = tmp_path / "small.yaml"
    path.write_text("space: {family: vit, preset: small}\ntrain: {steps: 100}\n", encoding="utf-8")
    return load_config(path, overrides)


def tree(path: Path) -> dict[str, bytes | None]:
    """Returns everything below a directory, with its content."""
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in sorted(path.rglob("*"))}


def test_a_new_run_holds_its_configuration_versions_and_seed(tmp_path: Path) -> None:
    config = config_with(tmp_path, "seed=5")
    with RunDirectory.create_or_resume(tmp_path / "a" / "run", config) as run:
        assert not run.resumed
        assert load_config(run.config) == config
        about = json.loads((run.path / "run.json").read_text("utf-8"))
    assert about["seed"] == 5
    assert set(about["versions"]) >= {"python", "supernest", "jax", "flax", "optax", "orbax-checkpoint", "numpy"}


def test_the_same_configuration_resumes_and_leaves_the_files(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunDirectory.create_or_resume(path, config_with(tmp_path)).close()
    before = tree(path)
    with RunDirectory.create_or_resume(path, config_with(tmp_path)) as run:
        assert run.resumed
        assert run.changes == {}
    after = tree(path)
    assert {k: v for k, v in after.items() if k != ".lock"} == {k: v for k, v in before.items() if k != ".lock"}


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunDirectory.create_or_resume(path, config_with(tmp_path)).close()
    before = tree(path)
    other = config_with(tmp_path, "train.steps=200", "budgets.half=macs<=50%")
    for refuses in (RunDirectory.create_or_resume, check_run_directory):
        with pytest.raises(UserError) as caught:
            refuses(path, other)
        text = str(caught.value)
        assert len(text.splitlines()) == 1
        assert "train.steps: 100 → 200" in text
        assert "budgets.half: not set → 'macs<=50%'" in text
        assert "--out" in text
        assert "train.batch_size" not in text
    assert tree(path) == before


def test_a_run_of_a_build_that_knew_fewer_settings_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunDirectory.create_or_resume(path, config_with(tmp_path)).close()
    known = parse_yaml((path / "config.yaml").read_text("utf-8"), "config.yaml")
    del known["federation"], known["train"]["incubation"], known["supernet"]["splits"]
    text = dump_yaml(known)
    about = json.loads((path / "run.json").read_text("utf-8"))
    about["config_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    del about["sha256"]
    (path / "config.yaml").write_text(text, "utf-8")
    (path / "run.json").write_text(json.dumps(sealed(about)), "utf-8")
    config = config_with(tmp_path)
    with RunDirectory.create_or_resume(path, config) as run:
        assert run.resumed
    assert config.identity == run_identity(known) != run_identity(config.as_dict())
    assert check_run_directory(path, load_config(path / "config.yaml")) == []
    with pytest.raises(
        UserError,
        match=r"another configuration \(train.incubation: null → not set, train.incubation.modules: not set → 2",
    ):
        check_run_directory(
            path, config_with(tmp_path, "train.incubation={modules: 2, meta_steps: 1, module_steps: 1}")
        )


def test_settings_that_only_show_progress_may_differ(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunDirectory.create_or_resume(path, config_with(tmp_path)).close()
    with RunDirectory.create_or_resume(path, config_with(tmp_path, "train.log_every=1")) as run:
        assert run.resumed


def test_directories_of_something_else_are_refused_untouched(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work", encoding="utf-8")
    before = tree(mine)
    with pytest.raises(UserError, match=r"mine: is not empty, and is no run\. Choose a new directory"):
        RunDirectory.create_or_resume(mine, config)
    assert tree(mine) == before
    with pytest.raises(UserError, match=r"thesis\.tex: is a file"):
        RunDirectory.create_or_resume(mine / "thesis.tex", config)
    with pytest.raises(UserError, match="a part of the path is a file"):
        RunDirectory.create_or_resume(mine / "thesis.tex" / "run", config)
    (mine / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match="is a link to nothing"):
        RunDirectory.create_or_resume(mine / "link", config)


def test_an_empty_directory_becomes_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with RunDirectory.create_or_resume(tmp_path / "run", config_with(tmp_path)) as run:
        assert not run.resumed


@pytest.mark.parametrize("left", [[".lock"], [".lock", "run.json"], [".lock", "run.json", ".config.yaml.tmp-12345678"]])
def test_a_run_killed_while_it_was_made_is_made_again(tmp_path: Path, left: list[str]) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for name in left:
        (path / name).write_text("half", encoding="utf-8")
    config = config_with(tmp_path)
    with RunDirectory.create_or_resume(path, config) as run:
        assert not run.resumed
        assert load_config(run.config) == config
        assert sorted(p.name for p in path.iterdir()) == [".lock", "config.yaml", "run.json"]


def test_damaged_runs_are_refused(tmp_path: Path) -> None:
    path, config = tmp_path / "run", config_with(tmp_path)
    RunDirectory.create_or_resume(path, config).close()
    whole = (path / "config.yaml").read_bytes()
    (path / "config.yaml").write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"config\.yaml: was changed after the run began"):
        RunDirectory.create_or_resume(path, config)
    (path / "config.yaml").write_bytes(whole)
    (path / "run.json").write_text('{"versions": {}', encoding="utf-8")
    with pytest.raises(UserError, match=r"run\.json: is damaged"):
        RunDirectory.create_or_resume(path, config)
    (path / "run.json").unlink()
    with pytest.raises(UserError, match=r"has a config\.yaml but no run\.json"):
        RunDirectory.create_or_resume(path, config)


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    with (
        RunDirectory.create_or_resume(tmp_path / "run", config),
        pytest.raises(UserError, match=rf"process {os.getpid()} is writing to this run"),
    ):
        RunDirectory.create_or_resume(tmp_path / "run", config)
    RunDirectory.create_or_resume(tmp_path / "run", config).close()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = (
        "import os, signal, sys\n"
        "from experiments.configuration.experiment_config import load_config\n"
        "from experiments.run_directory import RunDirectory\n"
        "run = RunDirectory.create_or_resume(sys.argv[1], load_config(sys.argv[2]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    config = config_with(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "small.yaml")]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    with RunDirectory.create_or_resume(path, config) as run:
        assert run.resumed


def test_other_versions_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_with(tmp_path)
    monkeypatch.setattr(run_directory, "_versions", lambda: {"jax": "1"})
    RunDirectory.create_or_resume(tmp_path / "run", config).close()
    monkeypatch.setattr(run_directory, "_versions", lambda: {"jax": "2", "flax": "3"})
    with RunDirectory.create_or_resume(tmp_path / "run", config) as run:
        assert run.changes == {"jax": ("1", "2"), "flax": ("none", "3")}


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_with(tmp_path)

    def full(path: Path, text: str) -> None:
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(run_directory, "write_text_atomically", full)
    with pytest.raises(UserError, match=r"run\.json: no space left on the disk"):
        RunDirectory.create_or_resume(tmp_path / "a" / "run", config)
    assert not (tmp_path / "a").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="no space left on the disk"):
        RunDirectory.create_or_resume(tmp_path / "run", config)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_one_line(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="no permission"):
        RunDirectory.create_or_resume(tmp_path / "locked" / "run", config)
