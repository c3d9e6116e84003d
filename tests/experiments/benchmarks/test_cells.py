"""The benchmark of orders of cells: what it judges by, what it keeps, and a run of proxies and supernets in small."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks.cells import Cells, FromList, Kept, Order, Run, figures
from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment
from experiments.ranking.fidelity import kendall_tau
from experiments.truth_tables import read_table
from search_spaces import UserError
from supernet.proxies import CONSENSUS, consensus
from tests.experiments.ranking.test_truth_table import write

CONFIG = """\
data: {source: digits, train_limit: 200}
space: {family: nas_bench_201, preset: small, width: 2, stages: 1}
train: {steps: 2, batch_size: 8}
rank: {proxy_batch: 4}
"""
ROWS = [(1, 0, 0, 0, 1, 0), (0, 0, 0, 1, 0, 0), (2, 0, 0, 0, 1, 0), (3, 1, 2, 1, 2, 3), (3, 3, 3, 1, 3, 3), (0,) * 6]
"""The first two cells both give their input; the last gives nothing."""
NAMES = (*CONSENSUS, "nwot", "flops")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return Cells(read_table("nas_bench_201", write(tmp_path_factory.mktemp("table"), ROWS)))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("cells") / "cells.yaml"
    path.write_text(CONFIG, "utf-8")
    return build_experiment(load_config(path))


def test_cells_that_compute_the_same_are_scored_once(cells: Cells) -> None:
    assert len(cells.genes) == 5
    assert cells.of_row[0] == cells.of_row[1]
    score = np.array([3.0, 3.0, 2.0, 5.0, np.nan, -np.inf])
    found = cells.judged(score)
    last = np.array([3.0, 3.0, 2.0, 5.0, -1e300, -1e300])
    assert found["tau"] == pytest.approx(kendall_tau(cells.truth, last))
    mean = (cells.truth[0] + cells.truth[1]) / 2
    assert found["once"] == pytest.approx(kendall_tau(np.array([mean, *cells.truth[2:]]), last[1:]))
    assert found["first pick"] == cells.truth[3]


def test_pieces_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "pieces.jsonl"
    made = Kept(path, {"a": 1}).get("piece", lambda: {"scores": [1.5]})
    assert made["scores"] == [1.5]
    again = Kept(path, {"a": 1}).get("piece", lambda: pytest.fail("made twice"))
    assert again == made
    assert len(path.read_text().splitlines()) == 2
    with pytest.raises(UserError, match="is of other settings"):
        Kept(path, {"a": 2})


def test_paths_come_from_the_list_alone(experiment) -> None:
    sampler = FromList(experiment.space, 0, networks=((1, 0, 0, 0, 1, 0), (0,) * 6), paths=3)
    drawn = np.concatenate([sampler.sample({}, step).genes for step in range(20)])
    assert {tuple(row) for row in drawn.tolist()} == {(1, 0, 0, 0, 1, 0), (0,) * 6}
    assert (sampler.sample({}, 7).genes == sampler.sample({}, 7).genes).all()


def test_proxies_and_supernets_order_all_cells_and_go_on(cells: Cells, experiment, tmp_path: Path) -> None:
    path = tmp_path / "pieces.jsonl"
    found = Run(experiment, cells, Kept(path, {}), NAMES).orders([1.0, 0.5])
    assert len({len(order.scores) for order in found.values()}) == 1
    expected = consensus([found[name].scores for name in CONSENSUS])
    np.testing.assert_array_equal(found["consensus"].scores, expected)
    nothing = next(i for i, row in enumerate(cells.genes.tolist()) if not any(row))
    assert found["transmission"].scores[nothing] == found["transmission"].scores.min()
    assert found["expressivity"].seconds == found["transmission"].seconds > 0
    assert found["consensus with supernet"].seconds > found["supernet, by loss"].seconds
    lines = path.read_text().splitlines()
    again = Run(experiment, cells, Kept(path, {}), NAMES).orders([1.0, 0.5])
    assert path.read_text().splitlines() == lines
    assert again.keys() == found.keys()
    shown = figures(cells, [found, again])
    assert shown["consensus"]["tau"][1] == 0
    assert shown["training for 12 epochs"]["tau"][0] == pytest.approx(1, abs=0.2)
    json.dumps(shown)
    assert isinstance(found["supernet of the best 50%, by accuracy"], Order)
