"""New budgets for a finished run: answers from its archive, refinement, and what cannot be answered."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import cli
from experiments.configuration.experiment_config import load_config
from experiments.devices.measure import this_device
from experiments.run_directory import RunDirectory
from experiments.searching import new_budget as answers
from search import Archive, Budget, run_search
from search.archive import times_path
from search.random_search import RandomSearch
from search_spaces import Genes, SearchSpace, build_space
from supernet.export.subnet import load_subnet
from tests.experiments.device_files import write_device

REPOSITORY = Path(__file__).resolve().parents[3]
SMALL = {"depth": [1, 2], "width": [16, 32], "heads": [1, 2]}
YAML = f"""\
space: {{family: vit, preset: small, {", ".join(f"{k}: {v}" for k, v in SMALL.items())}}}
train: {{steps: 4, batch_size: 16, checkpoint_every: 4, evaluate_every: 4, diagnose_every: null}}
search: {{type: random, evaluations: 12}}
export: {{stablehlo: false}}
"""


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return build_space("vit", "small", SMALL)


def errors_of(genes: Genes) -> np.ndarray:
    """Larger is better, and one architecture in seven fails, the smallest too."""
    errors = 0.9 - np.asarray(genes).sum(axis=1) / 50
    return np.where(np.asarray(genes).sum(axis=1) % 7 == 0, np.nan, errors)


@pytest.fixture
def finished(tmp_path: Path, space: SearchSpace) -> Path:
    """A run directory in which 40 architectures seem to have been evaluated."""
    return searched(tmp_path / "run", space, YAML)


def searched(run: Path, space: SearchSpace, text: str) -> Path:
    """A run directory of an experiment in which 40 architectures seem to have been evaluated."""
    file = run.with_suffix(".yaml")
    file.write_text(text, encoding="utf-8")
    config = load_config(file)
    with RunDirectory.create_or_resume(run, config) as directory:
        answers.write_space(run, space, "error")
        searcher = RandomSearch(space, (Budget.parse("full", "macs<=100%").resolve(space),), 0)
        archive = Archive.open(directory.archive, searcher, {"config": config.identity, "weights": "feed"})
        run_search(searcher, errors_of, archive, 40)
    return run


def stopped_after(archive: Path, content: bytes) -> None:
    """Leaves an archive as a kill leaves it, after this content."""
    archive.write_bytes(content)
    times_path(archive).unlink()


@pytest.fixture
def supernest(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in this process; returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def files(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}


def test_the_answer_is_the_best_of_the_archive(finished, space, supernest):
    before = files(finished)
    code, out, err = supernest("export", str(finished), "--budget", "params<=90%, macs<=40%", "--show", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    archive = Archive.read(finished / "search" / "archive.jsonl", space)
    largest = {metric: values[0] for metric, values in space.cost(np.array([space.largest.genes])).items()}
    meets = (archive.costs["macs"] <= 0.4 * largest["macs"]) & (archive.costs["params"] <= 0.9 * largest["params"])
    meets &= np.isfinite(archive.errors)
    assert found["within"] == meets.sum() > 3
    assert found["evaluated"] == 40
    assert found["best"]["validation_error"] == archive.errors[meets].min()
    assert found["best"]["costs"] == {
        metric: values[0] for metric, values in space.cost(np.array([found["best"]["genes"]])).items()
    }
    assert found["best"]["uses"]["macs"] == pytest.approx(found["best"]["costs"]["macs"] / (0.4 * largest["macs"]))
    assert found["nearest"] is None
    assert found["name"] == "macs40%_params90%"
    code, out, _ = supernest("export", str(finished), "--budget", "macs<=40%", "--show")
    assert code == 0
    assert "of 40 evaluated subnets meet it\nbest: validation accuracy " in out
    assert "% of the limit)" in out
    assert files(finished) == before


def test_it_takes_less_than_two_seconds_and_no_jax(finished):
    code = (
        "import sys; from experiments.cli import main\n"
        f"code = main(['export', {str(finished)!r}, '--budget', 'macs<=40%', '--show'])\n"
        "assert not {'jax', 'flax', 'pydantic', 'sklearn', 'scipy'} & sys.modules.keys(); sys.exit(code)"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 2


def test_a_device_file_answers_for_a_run_that_knew_none(finished, space, supernest, tmp_path):
    code, _, err = supernest("export", str(finished), "--budget", "latency_ms<=1", "--show")
    assert code == 2
    assert err == (
        "error: --budget: latency_ms is known with a device file only. Measure one with supernest profile, and give it "
        "with --device.\n"
    )
    device = write_device(tmp_path / "d.json", space)
    code, out, _ = supernest(
        "export", str(finished), "--budget", "latency_ms<=50%", "--device", str(device), "--show", "--json"
    )
    assert code == 0
    found = json.loads(out)
    costs = found["best"]["costs"]
    assert costs["latency_ms"] == (50 + costs["macs"]) / 1e6 <= found["limits"]["latency_ms"]
    assert found["name"].startswith("latency_ms50%_")  # not that of the same limit on the run's own device
    other = write_device(tmp_path / "other.json", build_space("vit", "small"))
    code, _, err = supernest("export", str(finished), "--budget", "macs<=50%", "--device", str(other), "--show")
    assert code == 2
    assert "measured for another search space" in err


def test_a_device_file_that_orders_badly_answers_where_its_tau_is_accepted(finished, space, supernest, tmp_path):
    device = write_device(tmp_path / "d.json", space, tau=0.42)
    arguments = ("export", str(finished), "--budget", "latency_ms<=50%", "--device", str(device), "--show")
    code, out, err = supernest(*arguments)
    assert (code, out) == (2, "")
    assert "is 0.42, less than 0.7" in err
    assert err.endswith("--min-tau of supernest export.\n")
    assert supernest(*arguments, "--min-tau", "0.4")[0] == 0
    code, _, err = supernest("export", str(finished), "--min-tau", "0.4")
    assert (code, err) == (2, "error: --min-tau: goes with --budget only. Give one, such as --budget 'macs<=40%'.\n")


def test_the_batch_size_is_the_runs_or_the_one_that_is_asked_for(finished, space, supernest, tmp_path):
    device = write_device(tmp_path / "d.json", space, batch_sizes=(1, 8))
    arguments = ("export", str(finished), "--budget", "latency_ms<=50%", "--device", str(device), "--show", "--json")
    one, eight = (json.loads(supernest(*arguments, *more)[1]) for more in ((), ("--batch-size", "8")))
    assert (one["device"]["batch_size"], eight["device"]["batch_size"]) == (1, 8)
    assert eight["name"] == one["name"] + "_b8"  # another refinement, another directory
    assert eight["best"]["costs"]["latency_ms"] == (50 + 8 * eight["best"]["costs"]["macs"]) / 1e6
    assert "predicted on cpu Abacus, 2 cores, batches of 1\n" in supernest(*arguments[:-1])[1]
    code, _, err = supernest(*arguments, "--batch-size", "3")
    assert code == 2
    assert "3 was not measured in" in err
    assert err.endswith("--batch-size 1.\n")
    code, _, err = supernest("export", str(finished), "--budget", "macs<=50%", "--batch-size", "8", "--show")
    assert code == 2
    assert "knows no device" in err
    code, _, err = supernest(*arguments, "--set", "device.batch_size=8")
    assert code == 2
    assert "depends on no setting" in err


def test_where_nothing_meets_it_the_nearest_is_told(finished, space, supernest):
    archive = Archive.read(finished / "search" / "archive.jsonl", space)
    cheapest = int(archive.costs["macs"][np.isfinite(archive.errors)].min())
    smallest = int(space.cost(np.array([space.smallest.genes]))["macs"][0])
    assert smallest < cheapest
    code, _, err = supernest("export", str(finished), "--budget", f"macs<={smallest}", "--show")
    assert code == 2
    share = f"{cheapest / smallest:.0%}"
    assert "none of the 40 evaluated subnets meets" in err
    assert f"macs {cheapest:,} ({share} of the limit)" in err
    assert "--refine 100" in err
    code, out, _ = supernest("export", str(finished), "--budget", f"macs<={smallest}", "--show", "--json")
    assert code == 2
    assert json.loads(out)["nearest"]["uses"]["macs"] == pytest.approx(cheapest / smallest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "macs<=1%"], "--budget: 'macs<=1%' is below the smallest subnet, which costs params "),
        (["--budget", "mac<=50%"], "--budget: 'mac' is no metric. Did you mean 'macs'?"),
        (["--budget", "macs<=50%, macs<=40%"], "--budget: 'macs<=50%' and 'macs<=40%' limit macs twice."),
        (["--budget", "macs<=0"], "--budget: '0' is not positive."),
        (["--refine", "5"], "--refine: goes with --budget only."),
        (["--show"], "--show: goes with --budget only."),
        (["--budget", "macs<=50%", "--out", "elsewhere"], "--out: elsewhere is not the run directory"),
        (["--budget", "macs<=50%", "--device", "no.json"], "no.json: no such device file."),
    ],
)
def test_bad_requests_get_one_line(finished, supernest, arguments, message):
    code, _, err = supernest("export", str(finished), *arguments)
    assert code == 2
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1


def test_what_is_no_finished_run_is_refused(finished, supernest, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = supernest("export", str(tmp_path / "empty"), "--budget", "macs<=50%")
    assert code == 2
    assert "is no run directory" in err
    code, _, err = supernest("export", str(tmp_path / "run.yaml"), "--budget", "macs<=50%")
    assert code == 2
    assert "--budget: of which run?" in err
    path = finished / "search" / "archive.jsonl"
    header, _, rest = path.read_text().partition("\n")
    path.write_text(json.dumps({**json.loads(header), "space": "feed"}) + "\n" + rest)
    code, _, err = supernest("export", str(finished), "--budget", "macs<=50%")
    assert code == 2
    assert "the archive is of another search space" in err
    path.unlink()
    code, _, err = supernest("export", str(finished), "--budget", "macs<=50%")
    assert code == 2
    assert "nothing was searched yet" in err


def test_a_run_without_the_note_of_its_space_is_answered_too(finished, supernest):
    arguments = ("export", str(finished), "--budget", "macs<=40%", "--show", "--json")
    found = supernest(*arguments)
    (finished / "search" / "space.json").unlink()
    assert supernest(*arguments) == found


def test_archives_of_refinements_count_once(finished, space):
    main = Archive.read(finished / "search" / "archive.jsonl", space)
    searcher = RandomSearch(space, (Budget.parse("x", "macs<=30%").resolve(space),), 1)
    path = answers.refined_archive(finished, "x", len(main))
    run_search(searcher, lambda genes: np.full(len(genes), 0.01), Archive.open(path, searcher, main.run), 20)
    more = Archive.read(path, space)
    merged = answers.open_finished(finished).archive
    rows = {row.tobytes() for row in np.concatenate([main.genes, more.genes])}
    assert len(merged) == len(rows) < len(main) + len(more)
    error = {row.tobytes(): value for row, value in zip(merged.genes, merged.errors, strict=True)}
    assert all(np.isfinite(error[row.tobytes()]) for row in more.genes)  # also where the first evaluation failed


def test_another_device_file_in_the_place_of_the_runs_is_refused(space, supernest, tmp_path):
    write_device(tmp_path / "d.json", space)
    run = searched(tmp_path / "other", space, YAML + "device: d.json\n")
    arguments = ("export", str(run), "--budget", "latency_ms<=50%", "--show")
    assert supernest(*arguments)[0] == 0
    write_device(run / "device.json", space, batch_sizes=(8,))
    code, _, err = supernest(*arguments)
    assert code == 2
    assert f"{run / 'device.json'}: not the device file that this run began with" in err


def test_a_network_that_takes_more_memory_than_predicted_is_told_of(supernest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = build_space("vit", "small", {**SMALL, "width": [16]})
    device = write_device(tmp_path / "machine.json", space)
    content = json.loads(device.read_text())
    for table in content["tables"]:  # a byte a parameter is left, which the compiler does not confirm
        table["temporary_bytes"]["pieces"] = [0] * len(content["pieces"])
    device.write_text(json.dumps(content))
    text = YAML.replace("[16, 32]", "[16]") + "device: machine.json\nbudgets: {full: {memory_bytes: 100%}}\n"
    (tmp_path / "e.yaml").write_text(text, encoding="utf-8")
    code, out, err = supernest("run", "e.yaml", "--out", "run", "--json", "--quiet")
    assert code == 0
    (row,) = json.loads(out)["subnets"]
    assert row["over_limit"] in err
    assert f"counts {row['memory']['bytes']:,} bytes for the exported network, more than memory_bytes<=" in err
    pareto = json.loads((tmp_path / "run" / "search" / "pareto.json").read_text())
    assert pareto["fronts"].keys() == {"macs", "params", "memory_bytes"}
    assert 0 < pareto["hypervolumes"]["memory_bytes"] <= 1


def test_a_new_budget_is_refined_and_exported(supernest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = build_space("vit", "small", {**SMALL, "width": [16]})
    write_device(tmp_path / "machine.json", space, device=this_device().as_json())
    text = YAML.replace("[16, 32]", "[16]") + "device: machine.json\nbudgets: {full: {latency_ms: 100%}}\n"
    (tmp_path / "e.yaml").write_text(text, encoding="utf-8")
    code, out, err = supernest("run", "e.yaml", "--out", "run", "--json", "--quiet")
    assert code == 0, err
    (row,) = json.loads(out)["subnets"]
    assert row["predicted"]["latency_ms"] == (50 + row["macs"]) / 1e6
    assert 0 < row["measured"]["latency_ms"] < 1000
    # The compiler's figure is of the exported network: all of its weights, the image, the logits, and more.
    assert 4 * (row["params"] + 8 * 8 + 10) < row["memory"]["bytes"] < 20 * row["params"]
    code, out, err = supernest(
        "export", "run", "--budget", "macs<=60%,latency_ms<=1", "--refine", "6", "--json", "--quiet"
    )
    assert code == 0, err
    found = json.loads(out)
    directory = tmp_path / "run" / "search" / "refine"
    (archive,) = directory.glob("*.jsonl")
    assert archive.name == "latency_ms1_macs60%_after_12.jsonl"
    content = archive.read_bytes()
    assert content.count(b"\n") == 7
    assert found["evaluated"] == 18
    subnet = load_subnet(found["subnet"]["directory"])
    assert found["subnet"]["macs"] == found["best"]["costs"]["macs"]
    assert dict(subnet.architecture) == found["best"]["architecture"]
    assert found["subnet"]["validation_accuracy"] == pytest.approx(1 - found["best"]["validation_error"], abs=1e-6)
    # Killed in the middle, the same command goes on to the same bytes; answered again, nothing is evaluated.
    stopped_after(archive, content[: len(content) // 2])
    code, out, err = supernest(
        "export", "run", "--budget", "latency_ms<=1, macs<=60%", "--refine", "6", "--show", "--quiet"
    )
    assert code == 0, err
    assert archive.read_bytes() == content
    assert f"{found['within']} of 18 evaluated subnets meet it" in out
    # A search that was stopped is refined, goes on, and is refined again, which is another refinement.
    main = tmp_path / "run" / "search" / "archive.jsonl"
    evaluated = main.read_bytes()
    stopped_after(main, b"".join(evaluated.splitlines(keepends=True)[:9]))
    refine = ("export", "run", "--budget", "latency_ms<=1, macs<=60%", "--refine", "6", "--show", "--quiet")
    assert supernest(*refine)[::2] == (0, "")
    assert (directory / "latency_ms1_macs60%_after_8.jsonl").exists()
    assert supernest("search", "e.yaml", "--out", "run", "--quiet")[::2] == (0, "")
    assert supernest(*refine)[::2] == (0, "")
    assert (main.read_bytes(), archive.read_bytes()) == (evaluated, content)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["new_budgets"]["latency_ms1_macs60%"]["best"] == found["best"]
    code, out, err = supernest("export", "run")  # its own budgets, by its own configuration
    assert code == 0, err
    assert "full" in out
    assert "ms" in out
