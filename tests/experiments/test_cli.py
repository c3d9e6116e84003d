"""The command `supernest`: what it prints, its exit codes, and that bad input gets one line and writes nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.process.interrupt import Interrupted
from search_spaces import FAMILIES
from tests.experiments.parallel_text import write_pairs

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = """\
space: {family: vit, preset: small}
train: {steps: 12, batch_size: 32, checkpoint_every: 5, evaluate_every: 6}
search: {evaluations: 8, population: 4, parents: 2}
budgets: {full: {macs: 100%}, half: {macs: 50%}}
export: {stablehlo: false}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the experiment `small.yaml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    return tmp_path


def start(*arguments: str, directory: Path) -> subprocess.Popen[str]:
    """Starts a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files(path: Path) -> set[str]:
    """Returns the paths of everything below a directory."""
    return {str(p.relative_to(path)) for p in path.rglob("*")}


# ---------------------------------------------------------------- init, check, list, help


def test_help_and_version(supernest: Any) -> None:
    code, out, _ = supernest("--help")
    assert code == 0
    for command in ("init", "check", "run", "train", "search", "export", "evaluate", "list"):
        assert re.search(rf"^  {command} ", out, re.MULTILINE)
    code, out, _ = supernest("--version")
    assert (code, out.split()[0]) == (0, "supernest")
    code, _, err = supernest()
    assert code == 2
    assert "Commands:" in err


@pytest.mark.parametrize("family", ["vit", "mobilenet"])
def test_what_init_writes_passes_check(supernest: Any, here: Path, family: str) -> None:
    code, out, _ = supernest("init", "my first.yaml", "--family", family)
    assert code == 0
    assert "supernest check" in out
    code, out, err = supernest("check", "my first.yaml", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["name"] == "my-first"
    assert found["space"]["family"] == family
    assert found["space"]["subnets"] > 10**6
    assert found["space"]["smallest"]["macs"] < found["space"]["largest"]["macs"] == found["budgets"]["full"]["macs"]
    assert found["data"] == {
        "source": "digits", "train": 1154, "validation": 288, "test": 355, "image_shape": [8, 8, 1], "classes": 10,
        "examples": "images of 8x8x1, 10 classes",
    }  # fmt: skip


def test_what_init_writes_for_text_passes_check(supernest: Any, here: Path) -> None:
    (here / "corpus.txt").write_text("To be, or not to be: that is the question. " * 200)
    assert supernest("init", "text.yaml", "--family", "language")[0] == 0
    code, out, err = supernest("check", "text.yaml", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["data"]["context"] == 128


def test_what_init_writes_for_translation_passes_check(supernest: Any, here: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'supernest[text]'")
    write_pairs(here / "corpus")
    assert supernest("init", "pairs.yaml", "--family", "translation")[0] == 0
    for vocabulary in (8000, 300):
        code, out, err = supernest("check", "pairs.yaml", "--json", "--set", f"data.vocabulary={vocabulary}")
        assert (code, err) == (0, "")
        assert json.loads(out)["data"]["languages"] == ["en", "de"]


def test_init_never_overwrites(supernest: Any, here: Path) -> None:
    before = (here / "small.yaml").read_bytes()
    code, _, err = supernest("init", "small.yaml")
    assert (code, err) == (2, "error: small.yaml: exists, and is left as it is. Name another file.\n")
    assert (here / "small.yaml").read_bytes() == before
    code, _, err = supernest("init", "no/where.yaml")
    assert code == 2
    assert "its directory does not exist" in err
    code, _, err = supernest("init", "other.yaml", "--family", "mobilnet")
    assert code == 2
    assert "Did you mean 'mobilenet'?" in err
    assert files(here) == {"small.yaml"}


def test_check_reads_well(supernest: Any) -> None:
    code, out, err = supernest("check", "small.yaml")
    assert (code, err) == (0, "")
    assert "1,793,340 subnets" in out
    assert re.search(r"^largest   params 252,490, macs 4,133,504", out, re.MULTILINE)
    assert re.search(r"^budget    half  macs 2,066,752", out, re.MULTILINE)


def test_list_shows_all_that_is_registered(supernest: Any) -> None:
    code, out, _ = supernest("list", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found["families"]) == set(FAMILIES)
    assert {"sandwich", "uniform"} <= set(found["samplers"])
    assert {"evolution", "random"} <= set(found["searchers"])
    assert {"digits", "idx", "cifar"} <= set(found["sources"])
    assert "entangled" in found["sharing"]
    assert "vit small" in found["presets"]
    for kind in found:
        code, out, _ = supernest("list", kind)
        assert code == 0
        assert [line.split("  ")[0] for line in out.splitlines()] == list(found[kind])
    code, _, err = supernest("list", "sampler")
    assert code == 2
    assert "Did you mean 'samplers'?" in err


# ---------------------------------------------------------------- mistakes

MISTAKES = [
    (["rnu", "small.yaml"], "error: 'rnu' is no command. Did you mean 'run'?"),
    (["run"], "error: Missing argument 'CONFIG'. See: supernest run --help"),
    (["run", "small.yaml", "--jsn"], "error: No such option"),
    (["run", "none.yaml"], "error: none.yaml: no such file."),
    (["run", "small.yaml", "--set", "train.stpes=3"], "error: --set: train.stpes: no such setting. Did you mean"),
    (["run", "small.yaml", "--set", "space.patch_size=3"], "error: small.yaml: space.patch_size: 3 does not divide"),
    (["run", "small.yaml", "--set", "space.classes=3"], "error: small.yaml: space.classes: 3 is not what the data"),
    (
        ["run", "small.yaml", "--set", "budgets.tiny=macs<=1%"],
        "error: small.yaml: budgets.tiny.macs: 'macs<=1%' is below the smallest subnet, which costs params 20458",
    ),
    (["run", "small.yaml", "--set", "sampler.random_paths=-1"], "error: small.yaml: sampler.random_paths: -1 is less"),
    (["run", "small.yaml", "--set", "search.population=0"], "error: small.yaml: search.population: 0 is less than 1."),
    (["run", "small.yaml", "--set", "data={source: idx, path: none}"], "none: no such directory."),
    (
        ["run", "small.yaml", "--set", "train={epochs: 1, optimizer: {warmup_steps: 500}}"],
        "error: small.yaml: train.optimizer.warmup_steps: 500 is not less than the 19 training steps.",
    ),
    (
        ["run", "small.yaml", "--set", "train.distillation.type=ensemble", "--set", "sampler={type: uniform}"],
        "error: small.yaml: train.distillation.type: 'ensemble', but the sampler draws no random path",
    ),
    (["search", "small.yaml"], "error: runs/small: holds no run. Train first: supernest train small.yaml"),
    (["export", "small.yaml", "--out", "here"], "error: here: holds no run."),
    (["run", "small.yaml", "--out", "small.yaml"], "error: small.yaml: is a file."),
    (["run", "small.yaml", "--out", "."], "error: .: is not empty, and is no run."),
    (["evaluate", "none", "--data", "digits"], "error: none/manifest.json: no such directory"),
    (["evaluate", "none", "--data", "digit"], "error: --data: data.source: 'digit' is not known. Did you mean"),
    (["evaluate", "none", "--data", "idx"], "error: --data: data.path: missing. Set it."),
    (["evaluate", "none", "--data", "idx", "--set", "path=none"], "none: no such directory."),
    (["evaluate", "none", "--data", "none.yaml"], "error: none.yaml: no such file."),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_gets_one_line_exit_code_2_and_writes_nothing(
    supernest: Any, here: Path, arguments: list[str], expected: str
) -> None:
    code, out, err = supernest(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert expected in err
    assert len(err.splitlines()) == 1
    assert files(here) == {"small.yaml"}


def test_a_full_disk_and_a_refused_write_are_one_line(supernest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, text in ((28, "no space left on the disk"), (13, "no permission")):

        def broken(*arguments: Any, number: int = number) -> None:
            raise OSError(number, os.strerror(number), "runs/x/file")

        monkeypatch.setattr("experiments.pipeline.check.validate", broken)
        code, _, err = supernest("run", "small.yaml")
        assert code == 2
        assert err.startswith(f"error: runs/x/file: {text}")


def test_our_own_mistakes_keep_their_traceback(supernest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr("experiments.pipeline.check.validate", broken)
    with pytest.raises(ValueError, match="a defect"):
        supernest("run", "small.yaml")


def test_an_interruption_says_how_to_go_on(supernest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: Any, **options: Any) -> None:
        raise Interrupted("stopped at step 3. The same command resumes it.")

    monkeypatch.setattr("experiments.pipeline.run.run", stopped)
    code, _, err = supernest("run", "small.yaml")
    assert (code, err) == (130, "stopped at step 3. The same command resumes it.\n")


# ---------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A directory with a finished run of the small experiment in `out`, and the JSON that the command printed."""
    directory = tmp_path_factory.mktemp("finished")
    (directory / "small.yaml").write_text(SMALL, encoding="utf-8")
    process = start("run", "small.yaml", "--out", "out", "--json", directory=directory)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert all(re.match(r"(train|search|export|warning)\b", line) for line in err.splitlines()), "progress and warnings"
    return directory, json.loads(out)


@pytest.mark.slow
def test_a_run_ends_in_subnets_for_all_budgets(finished: tuple[Path, dict[str, Any]]) -> None:
    directory, summary = finished
    assert [row["budget"] for row in summary["subnets"]] == ["full", "half"]
    assert json.loads((directory / "out" / "summary.json").read_text("utf-8")) == summary
    full, half = summary["subnets"]
    assert half["macs"] <= half["limits"]["macs"] == 2066752
    assert full["parity_error"] <= 1e-4
    names = {path.name for path in (directory / "out").iterdir()}
    assert names >= {"config.yaml", "run.json", "checkpoints", "tensorboard", "search", "subnets", "summary.json"}
    assert (directory / "out" / "search" / "archive.jsonl").read_text("utf-8").count("\n") >= 8


@pytest.mark.slow
def test_the_same_command_on_a_finished_run_repeats_its_figures(
    finished: tuple[Path, dict[str, Any]], supernest: Any
) -> None:
    directory, summary = finished
    code, out, err = supernest("run", str(directory / "small.yaml"), "--out", str(directory / "out"), "--json")
    assert (code, err) == (0, "")
    again = json.loads(out)
    assert [row["test_accuracy"] for row in again["subnets"]] == [row["test_accuracy"] for row in summary["subnets"]]
    code, out, _ = supernest("export", str(directory / "small.yaml"), "--out", str(directory / "out"))
    assert code == 0
    assert re.match(r"budget +params +MACs", out)
    code, _, err = supernest("run", str(directory / "small.yaml"), "--out", str(directory / "out"), "--set", "seed=1")
    assert code == 2
    assert "seed: 0 → 1" in err


@pytest.mark.slow
def test_a_subnet_is_evaluated_without_its_run(finished: tuple[Path, dict[str, Any]], supernest: Any) -> None:
    directory, summary = finished
    subnet = str(directory / "out" / "subnets" / "half")
    code, out, _ = supernest("evaluate", subnet, "--data", "digits", "--json")
    assert code == 0
    assert json.loads(out)["accuracy"] == pytest.approx(summary["subnets"][1]["test_accuracy"])
    code, out, _ = supernest("evaluate", subnet, "--data", str(directory / "small.yaml"), "--split", "validation")
    assert code == 0
    assert f"accuracy {summary['subnets'][1]['validation_accuracy']:.2%} on 288 validation images" in out


@pytest.mark.slow
def test_images_of_another_size_are_refused(
    finished: tuple[Path, dict[str, Any]], supernest: Any, data_dir: Path
) -> None:
    subnet = str(finished[0] / "out" / "subnets" / "half")
    code, _, err = supernest("evaluate", subnet, "--data", "idx", "--set", f"path={data_dir / 'fashion_mnist'}")
    assert code == 2
    assert "(28, 28, 1)" in err
    assert "(8, 8, 1)" in err


@pytest.mark.slow
def test_tampered_and_truncated_subnets_are_refused(
    finished: tuple[Path, dict[str, Any]], supernest: Any, tmp_path: Path
) -> None:
    subnet = tmp_path / "subnet"
    shutil.copytree(finished[0] / "out" / "subnets" / "half", subnet)
    weights = subnet / "weights.safetensors"
    whole = weights.read_bytes()
    for broken in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        weights.write_bytes(broken)
        code, out, err = supernest("evaluate", str(subnet), "--data", "digits")
        assert (code, out) == (2, "")
        assert re.fullmatch(rf"error: {re.escape(str(weights))}: .*Export it again from its run\.\n", err)
    weights.unlink()
    assert supernest("evaluate", str(subnet), "--data", "digits")[0] == 2


@pytest.mark.slow
def test_tampered_checkpoints_are_refused(
    finished: tuple[Path, dict[str, Any]], supernest: Any, tmp_path: Path
) -> None:
    run = tmp_path / "out"
    shutil.copytree(finished[0] / "out", run)
    for path in (run / "checkpoints").rglob("*"):
        if path.is_file() and path.name != "manifest.json" and path.stat().st_size:
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, _, err = supernest("search", "small.yaml", "--out", str(run))
    assert code == 2
    assert err.startswith(f"error: {run / 'checkpoints'}")
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_with_step_and_path(supernest: Any) -> None:
    wild = "train.optimizer={type: sgd, learning_rate: 1000.0, clip_norm: null}"
    code, out, err = supernest("train", "small.yaml", "--out", "out", "--set", wild)
    assert (code, out) == (2, "")
    assert re.search(r"step \d+", err)
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_finishes(here: Path) -> None:
    longer = ("train.steps=100", "train.checkpoint_every=20", "train.evaluate_every=100")
    arguments = ("train", "small.yaml", "--out", "out", "--json", *(a for each in longer for a in ("--set", each)))
    process = start(*arguments, directory=here)
    end = time.monotonic() + 300
    while not list((here / "out" / "checkpoints").glob("*")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == ""
    assert re.search(r"\nstopping: [^\n]+\n", err)
    assert err.endswith("The same command resumes it.\n")
    process = start(*arguments, directory=here)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["train"]["steps"] == 100
