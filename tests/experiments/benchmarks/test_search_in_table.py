"""The benchmark of searchers on a truth table: what it counts, and that all of them get to the best network."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from experiments.benchmarks.search import main
from experiments.benchmarks.search_in_table import LOOPS, Counted, evolution, first_improvement, queries
from experiments.truth_tables import read_table
from search import SEARCHERS
from tests.experiments.ranking.test_truth_table import every, write


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory):
    """All cells; the best are those of the largest first gene and the largest fifth one."""
    return read_table("nas_bench_201", write(tmp_path_factory.mktemp("table"), every()))


def test_each_network_counts_once_until_the_best_is_found(table) -> None:
    look_up = Counted(table, table.measure("c10_val_200ep"))
    assert look_up(np.array([[0] * 6, [0] * 6, [1] * 6], np.int32)).tolist() == [50.0, 50.0, 53.1]
    assert (look_up.queries, look_up.found) == (2, None)
    look_up(np.array([[1] * 6, [4] * 6, [0, 0, 0, 0, 0, 1]], np.int32))
    assert (look_up.queries, look_up.found) == (3, 3)


@pytest.mark.parametrize("loop", [*LOOPS.values()])
def test_a_published_loop_climbs_a_slope(table, loop) -> None:
    for seed in range(3):
        look_up = Counted(table, table.measure("c10_val_200ep"))
        loop(look_up, np.random.default_rng(seed))
        assert look_up.found is not None
        assert look_up.found < 1000


def test_the_registered_searchers_find_it_too(table) -> None:
    names = sorted(SEARCHERS.keys() - {"linas"})  # which fits predictors, seconds a generation
    found = queries(table, "c10_val_200ep", names, 1)
    assert found["different"] == 6_466
    assert found["networks_that_reach_it"] == 5**4
    assert all(found[name]["reached"] == 1 for name in names), found


def test_local_search_needs_as_many_look_ups_as_published(data_dir: Path) -> None:
    """About 105 to the best of CIFAR-100's validation; means of 40 runs, so within a third."""
    if not (data_dir / "nas_bench_201" / "nb201_accuracy.csv.gz").is_file():
        pytest.skip(f"no nas_bench_201/nb201_accuracy.csv.gz under {data_dir}")
    real = read_table("nas_bench_201", data_dir / "nas_bench_201")
    values = real.measure("c100_val_200ep")

    def mean(loop, runs: int) -> float:
        found = []
        for seed in range(runs):
            look_up = Counted(real, values)
            loop(look_up, np.random.default_rng(seed))
            found.append(look_up.found)
        return float(np.mean(found))

    first, bred = mean(first_improvement, 40), mean(evolution, 10)
    assert 70 < first < 140
    assert bred > 1.3 * first


def test_an_unknown_table_is_one_line() -> None:
    result = CliRunner().invoke(main, ["--table", "nas_bench_301"])
    assert result.exit_code == 2
    assert "'nas_bench_301' is not known. Did you mean 'nas_bench_201'?" in result.output
