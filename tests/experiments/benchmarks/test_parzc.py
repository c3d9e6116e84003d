"""The benchmark of ParZC in small: all sides see the same networks, and what is wrong is told first."""

import gzip
import itertools
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from experiments.benchmarks import parzc
from supernet.parzc import Settings

CELLS = 75
SIDES = ("parzc", "best proxy", "ridge, genes", "forest, genes", "ridge, proxies", "forest, proxies")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file as published: params and one other proxy decide the accuracy; one score is missing."""
    rng = np.random.default_rng(0)
    names = list(itertools.islice(itertools.product(range(5), repeat=6), 0, 15000, 200))[:CELLS]
    cells = {}
    for name in names:
        params, snip = float(name.count(2) + 0.1 * rng.normal()), float(rng.normal())
        scores = {"params": params, "snip": snip, "grasp": float(rng.normal())}
        cells[str(name)] = {key: {"score": value} for key, value in scores.items()}
        cells[str(name)]["val_accuracy"] = 80 + 3 * params + snip
    del cells[str(names[0])]["grasp"]
    (tmp_path / "nas_bench_201").mkdir()
    with gzip.open(tmp_path / "nas_bench_201" / parzc.FILE, "wt") as file:
        json.dump({"cifar10": cells}, file)
    quick = partial(Settings, width=8, depth=1, steps=60, learning_rate=1e-2)
    monkeypatch.setattr(parzc, "Settings", quick)
    return tmp_path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(parzc.main, list(map(str, arguments)))
    return result.exit_code, result.output if result.exit_code else result.stdout


def test_every_side_orders_the_held_out_networks(data: Path) -> None:
    arguments = ("--directory", data, "--data-set", "cifar10", "--trained", 20, "--splits", 2, "--json")
    code, out = run(*arguments)
    assert code == 0, out
    figures = json.loads(out)["cifar10"]["20"]
    assert tuple(figures["tau"]) == SIDES
    assert figures["best proxies"] == ["params", "params"]
    assert figures["tau"]["ridge, proxies"]["mean"] > figures["tau"]["best proxy"]["mean"] > 0.5
    assert figures["tau"]["parzc"]["mean"] > figures["tau"]["best proxy"]["mean"]
    assert json.loads(run(*arguments)[1])["cifar10"]["20"]["tau"] == figures["tau"]


def test_our_scores_are_told_by_layer(data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = [json.dumps({"sizes": {}})]
    for row in range(70):
        layers = rng.normal(size=2 + row % 3).tolist()
        scores = {"snip": sum(layers), "params": float(row)}
        lines.append(json.dumps({"row": row, "scores": scores, "layers": {"snip": layers}}))
    kept = tmp_path / "scores.jsonl"
    kept.write_text("\n".join(lines))
    networks = parzc.of_ours(data / "nas_bench_201" / parzc.FILE, kept)
    assert networks.tokens["parzc"].shape == (70, 2, 4)
    assert networks.tokens["parzc, by layer alone"].shape == (70, 1, 4)
    np.testing.assert_array_equal(networks.tokens["parzc, sums"][:, :, 0], np.stack(list(networks.scores.values()), 1))
    np.testing.assert_allclose(networks.tokens["parzc"].sum(axis=2), networks.tokens["parzc, sums"][:, :, 0])
    np.testing.assert_array_equal(networks.tokens["parzc"][0, 1], [0, 0, 0, 0])


def test_what_is_wrong_is_one_line(data: Path, tmp_path: Path) -> None:
    (tmp_path / "no_layers.jsonl").write_text('{"sizes": {}}\n{"row": 0, "scores": {"snip": 1.0}}\n')
    for more, message in (
        (
            ("--trained", 30),
            "--trained: 30 of the 75 networks of cifar10 leave fewer than 50 to order. Give at most 25.",
        ),
        (("--trained", 20, "--temperature", 0), "parzc.temperature: 0.0 is out of range."),
        (("--scores", tmp_path / "none.jsonl"), "no such file. Write it with"),
        (("--scores", tmp_path / "no_layers.jsonl"), "has no scores by layer of these networks (KeyError: 'layers')."),
    ):
        code, out = run("--directory", data, "--data-set", "cifar10", *more)
        assert code == 2
        assert message in out
