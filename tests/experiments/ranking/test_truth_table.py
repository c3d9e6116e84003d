"""Ranking against a truth table: its reader, the figures of the published one, what is refused; nothing is trained."""

import csv
import gzip
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.ranking.baselines import baselines, counted_otherwise, tau_a
from experiments.ranking.fidelity import kendall_tau, top
from experiments.ranking.stage import panel_of
from experiments.truth_tables import read_table
from search_spaces import UserError, build_space

WORDS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = '"edge_2_0": [skip], "edge_2_1": [none], "edge_3_0": [skip], "edge_3_1": [none, skip], "edge_3_2": [skip]'
CONFIG = f"""\
data: {{source: digits, train_limit: 300}}
space: {{family: nas_bench_201, preset: small, width: 4, stages: 1, {EDGES.replace('"', "")}}}
train: {{steps: 2, batch_size: 8}}
rank: {{truth: nas_bench_201, truth_path: table, panel: 8, bootstrap: 100}}
"""


def text_of(genes: Sequence[int]) -> str:
    words = [f"{WORDS[gene]}~{source}" for gene, source in zip(genes, (0, 0, 1, 0, 1, 2), strict=True)]
    return f"|{words[0]}|+|{words[1]}|{words[2]}|+|{words[3]}|{words[4]}|{words[5]}|"


def accuracy(genes: Sequence[int]) -> float:
    return 50 + 3 * genes[0] + genes[4] / 10


def write(directory: Path, rows: Sequence[Sequence[int]]) -> Path:
    """Writes a table whose accuracies follow from the genes."""
    directory.mkdir(exist_ok=True)
    with gzip.open(directory / "nb201_accuracy.csv.gz", "wt", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["index", "arch_str", "c10_val_12ep", "c10_val_200ep"])
        table.writerows([i, text_of(row), accuracy(row) - 20 - row[0] % 2, accuracy(row)] for i, row in enumerate(rows))
    return directory


def every() -> list[tuple[int, ...]]:
    return list(itertools.product(range(5), repeat=6))


# ---------------------------------------------------------------- the published table


def test_the_published_figures(data_dir: Path) -> None:
    if not (data_dir / "nas_bench_201" / "nb201_accuracy.csv.gz").is_file():
        pytest.skip(f"no nas_bench_201/nb201_accuracy.csv.gz under {data_dir}")
    table = read_table("nas_bench_201", data_dir / "nas_bench_201")
    assert len(table.genes) == 15_625
    truth, params = table.measure("c10_val_200ep"), table.space.cost(table.genes)["params"].astype(float)
    assert table.cheap is not None
    found = baselines(truth, truth, params, (table.cheap[1], table.measure(table.cheap[0])))
    assert found["parameters"].kendall_tau == pytest.approx(0.538, abs=6e-4)
    assert found["parameters"].tau_top_10 == pytest.approx(0.00, abs=5e-3)
    assert found["12 epochs"].kendall_tau == pytest.approx(0.633, abs=5e-4)
    assert found["12 epochs"].tau_top_10 == pytest.approx(0.464, abs=5e-4)
    # 341 cells do not join input and output, and their accuracies are those of guesses.
    assert (truth <= 10.5).sum() >= 341
    counted = counted_otherwise(table.space, table.genes, truth, params)
    assert counted.networks == 6_466
    assert counted.tau_a == pytest.approx(0.5146, abs=5e-5)
    assert counted.isomorphic_once == pytest.approx(0.5466, abs=5e-5)


# ---------------------------------------------------------------- how ties count


def test_ties_count_in_two_ways_and_many_pairs_as_few() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 9, 700).astype(float) for _ in range(2))
    b += a // 2
    assert kendall_tau(a, b) == pytest.approx(kendalltau(a, b)[0])
    pairs = np.sign(a[:, None] - a) * np.sign(b[:, None] - b)
    assert tau_a(a, b) == pytest.approx(pairs.sum() / (700 * 699))
    few = top(a, 0.05)[:40]
    assert kendall_tau(a[:300], b[:300]) == pytest.approx(kendalltau(a[:300], b[:300])[0])
    assert np.isnan(tau_a(a[few], b[few]))  # all are as good as each other


# ---------------------------------------------------------------- the stage


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an experiment on cells."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells.yaml").write_text(CONFIG, "utf-8")
    return tmp_path


def test_a_supernet_is_ranked_without_training(supernest: Any, here: Path) -> None:
    write(here / "table", every())
    assert supernest("train", "cells.yaml", "--out", "out")[0] == 0
    code, out, err = supernest("rank", "cells.yaml", "--out", "out")
    assert (code, err) == (0, "")
    assert "by training for 12 epochs (c10_val_12ep): tau-b " in out
    assert not (here / "out" / "rank" / "panel").exists()
    found = json.loads((here / "out" / "rank" / "rank.json").read_text("utf-8"))
    assert len(found["networks"]) == 8
    space = build_space("nas_bench_201", "published")
    for network in found["networks"]:
        genes = space.encode(network["architecture"]).genes
        assert network["alone"] == {"accuracy": pytest.approx(accuracy(genes) / 100), "loss": None, "steps": 0}
    assert set(found["baselines"]) == {"parameters", "training for 12 epochs (c10_val_12ep)"}
    assert found["counted_otherwise"]["networks"] <= 8


# ---------------------------------------------------------------- what is refused


def test_what_does_not_fit_is_said_before_anything_runs(supernest: Any, here: Path) -> None:
    write(here / "table", every()[:30])
    for override, message in (
        ("space={family: vit, preset: small}", "rank.truth: nas_bench_201 is a table of family nas_bench_201, and"),
        ("rank.truth=nas_bench_202", "rank.truth: 'nas_bench_202' is not known. Did you mean 'nas_bench_201'?"),
        ("rank.truth_path=nowhere", "is no directory. Name the one that holds the table's files."),
        ("rank.truth_measure=c10_val_201ep", "'c10_val_201ep' is no measure. Did you mean 'c10_val_200ep'?"),
    ):
        code, _, err = supernest("rank", "cells.yaml", "--out", "out", "--set", override)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1
    assert not (here / "out").exists()


def test_a_panel_that_a_table_shrinks_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "table", every())
    experiment = build_experiment(load_config(here / "cells.yaml", ()))
    size = experiment.space.size
    for known, said in ((every(), ""), ([row for row in every() if row[0] < 2], "the panel holds 4 and not 8")):
        table = read_table("nas_bench_201", write(here / "table", known))
        assert len(panel_of(experiment, table)) == min(8, len(table.within(experiment.space)))
        err = capsys.readouterr().err
        assert (said in err) if said else err == ""
    assert size == 10


def test_an_architecture_that_a_table_lacks_is_named(tmp_path: Path) -> None:
    table = read_table("nas_bench_201", write(tmp_path, every()[:30]))
    space = build_space("nas_bench_201", "small", {"edge_3_2": ["none", "conv_1x1"]})
    inside = table.within(space)
    assert len(inside) == 12
    assert sorted(table.rows(space, inside)) == [i for i, row in enumerate(every()[:30]) if row[5] in (0, 2)]
    with pytest.raises(UserError, match=r"table nas_bench_201: it lacks \{'edge_1_0': 'pool_3x3', .*and 0 more of 1"):
        table.rows(space, np.array([[4, 0, 0, 0, 0, 0]], np.int32))


def _packed(text: bytes) -> bytes:
    return gzip.compress(text, mtime=0)  # names of tests hold it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "cannot be read"),
        (_packed(b"a,b\n1,2\n"), "no column arch_str"),
        (_packed(b"arch_str,c10_val_200ep\n|a~0|,1\n"), "row 2: '|a~0|' is no cell"),
        (_packed(f"arch_str,c10_val_200ep\n{text_of([0] * 6)},x\n".encode()), "could not convert"),
        (_packed(b"arch_str,c10_val_200ep\n" + f"{text_of([0] * 6)},1\n".encode() * 2), "two rows"),
        (_packed(b"arch_str,c10_val_200ep\n" * 50)[:-20], "cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "nb201_accuracy.csv.gz").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_table("nas_bench_201", tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
