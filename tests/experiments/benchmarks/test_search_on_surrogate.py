"""Surrogate tables of sampled spaces: what is learned, the proven front, and what the benchmark counts."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from experiments.benchmarks.search import main
from experiments.benchmarks.search_on_surrogate import Found, Goal, budgets, figures, needed, objectives
from experiments.benchmarks.surrogate_tables import GPTSpace, Learned, LearnedCost, SurrogateTable, hw_gpt_bench, ofa
from search import NSGA2
from search_spaces import UserError


def cost_of(genes: np.ndarray) -> np.ndarray:
    """A sum over the active genes for each width."""
    layers = 10 + genes[:, 2]
    on = np.arange(12) < layers[:, None]
    return (1 + genes[:, 0]) * (5 + (on * (1 + genes[:, 3:15] + 0.5 * genes[:, 15:27])).sum(axis=1))


def error_of(genes: np.ndarray) -> np.ndarray:
    on = np.arange(12) < (10 + genes[:, 2])[:, None]
    weights = np.linspace(0.1, 1, 12)
    return 60 / (1 + genes[:, 0]) - (on * weights * (genes[:, 3:15] + genes[:, 15:27])).sum(axis=1)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return np.unique(GPTSpace().sample(np.random.default_rng(0), 3000), axis=0)


@pytest.fixture(scope="module")
def table(sample: np.ndarray) -> SurrogateTable:
    space = GPTSpace()
    error, cost = (Learned.fit(space, sample, of(sample), 0) for of in (error_of, cost_of))
    return SurrogateTable("made", space, error, "error", LearnedCost("ms", cost), "ms", len(sample), {})


def test_sums_of_each_width_are_learned(table: SurrogateTable, sample: np.ndarray) -> None:
    others = GPTSpace().sample(np.random.default_rng(1), 300)
    assert table.error(others) == pytest.approx(error_of(others), abs=0.2)
    assert table.cost(others)["ms"] == pytest.approx(cost_of(others), rel=0.02)


def test_tables_are_the_same_figure(table: SurrogateTable) -> None:
    """What the mixed integer program sees is what a look-up gives."""
    genes = GPTSpace().sample(np.random.default_rng(2), 100)
    assert isinstance(table.cost, LearnedCost)
    for learned in (table.error, table.cost.figure):
        tables = learned.tables
        summed = np.full(len(genes), float(tables.constant))
        for columns, values in tables.sums:
            summed += np.asarray(values)[tuple(genes[:, list(columns)].T)]
        assert summed == pytest.approx(learned(genes))


def test_the_front_grows_to_all_of_it(table: SurrogateTable) -> None:
    goal = Goal(np.zeros(2), np.ones(2), 1.1**2, 1)
    found = Found(goal)
    found.add(np.array([0.5, 0.5]))
    assert found.share == pytest.approx(0.6**2 / 1.1**2)
    found.add(np.array([0.6, 0.6]))
    assert found.share == pytest.approx(0.6**2 / 1.1**2)
    found.add(np.zeros(2))
    assert found.share == pytest.approx(1)


def read_gpt(path: Path, genes: np.ndarray) -> Path:
    """Writes a sample as the published file has it."""
    layers = 10 + genes[:, 2]
    on = np.arange(12) < layers[:, None]
    np.savez(
        path / "hwgpt_s.npz",
        embed_dim=np.array([192, 384, 768])[genes[:, 0]], bias=genes[:, 1], n_layer=layers,
        n_head=on * np.array([4, 8, 12])[genes[:, 3:15]], mlp_ratio=on * np.array([2, 3, 4])[genes[:, 15:27]],
        perplexity=error_of(genes), lat_ms__a100=cost_of(genes),
    )  # fmt: skip
    return path


def test_the_published_file_is_read_and_searched(tmp_path: Path, sample: np.ndarray, monkeypatch) -> None:
    monkeypatch.setattr("experiments.benchmarks.search_on_surrogate._LIMITS", 4)
    table = hw_gpt_bench(read_gpt(tmp_path, sample), None)
    assert (table.measured, table.metric) == (len(sample), "lat_ms__a100")
    assert min(table.taus.values()) > 0.97
    found = figures(table, ["nsga2", "random"], 1, 150)
    assert found["front"] >= 3
    goal = Goal.of(table)
    # No network of a random thousand dominates one of the proven front's ends.
    points = objectives(table, GPTSpace().sample(np.random.default_rng(3), 1000))
    assert (points >= goal.ideal - 1e-6).all()
    counts = needed(NSGA2(table.space, budgets(table), 0, table.cost), table, goal, 150)
    assert counts[0] <= counts[1]
    assert [found["nsga2/95%"]["median"], found["nsga2/99%"]["median"]] == [c if c < np.inf else None for c in counts]


def test_what_is_missing_or_damaged_is_one_line(tmp_path: Path, sample: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"hwgpt_s.npz: no such file"):
        hw_gpt_bench(tmp_path, None)
    with pytest.raises(UserError, match=r"no file mbnv3w10_\*.csv"):
        ofa(tmp_path, None)
    read_gpt(tmp_path, sample)
    with pytest.raises(UserError, match=r"'lat_ms__a10' is no figure of .* Did you mean 'lat_ms__a100'"):
        hw_gpt_bench(tmp_path, "lat_ms__a10")
    (tmp_path / "hwgpt_s.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be read"):
        hw_gpt_bench(tmp_path, None)
    (tmp_path / "mbnv3w10_one.csv").write_text("Sub-network,MACs\n{},3\n")
    with pytest.raises(UserError, match=r"mbnv3w10_one\.csv: cannot be read"):
        ofa(tmp_path, None)
    result = CliRunner().invoke(main, ["--table", "ofa", "--table-path", str(tmp_path), "--warm-start", "nwot"])
    assert result.exit_code == 2
    assert "--warm-start: proxies were published for cells of nas_bench_201" in result.output


def test_costs_of_the_published_subnets_are_those_of_the_space(data_dir: Path) -> None:
    directory = data_dir / "hw_latency" / "ofa_dynast"
    if not directory.is_dir():
        pytest.skip(f"no hw_latency/ofa_dynast under {data_dir}")
    table = ofa(directory, None)  # compares the costs of each row with the space's
    assert table.measured > 1500
    assert table.taus["top-1 error"] > 0.8
