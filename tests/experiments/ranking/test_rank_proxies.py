"""`supernest rank --proxies`: its table and files without a trained supernet, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, rankdata, spearmanr

from experiments.benchmarks.proxies import FILE, published, spearman
from search_spaces import UserError
from tests.experiments.ranking.test_truth_table import CONFIG, every, write


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an experiment on cells and a table of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells.yaml").write_text(CONFIG, "utf-8")
    write(tmp_path / "table", every())
    return tmp_path


def test_proxies_are_ranked_without_a_supernet(supernest: Any, here: Path) -> None:
    code, out, err = supernest("rank", "cells.yaml", "--out", "out", "--proxies", "params,nwot,l2")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "8 architectures, by accuracy; a batch of 32 examples"
    assert lines[1].startswith("proxy ")
    assert [line.split()[0] for line in lines[2:5]] == ["params", "nwot", "l2"]
    assert lines[5].startswith("by parameters: tau-b ")
    assert lines[6].startswith("by training for 12 epochs (c10_val_12ep): tau-b ")
    found = json.loads((here / "out" / "rank" / "proxies.json").read_text("utf-8"))
    truth = [50 + 3 * row[0] + row[4] / 10 for row in _table_genes(found["genes"])]
    assert found["truth"] == pytest.approx(np.array(truth) / 100)
    for name, figures in found["proxies"].items():
        assert figures["kendall_tau"]["value"] == pytest.approx(kendalltau(truth, found["scores"][name])[0])
        assert figures["spearman"]["value"] == pytest.approx(spearmanr(truth, found["scores"][name])[0])
        assert figures["seconds"] > 0
    summary = json.loads((here / "out" / "summary.json").read_text("utf-8"))
    assert set(summary["proxies"]["proxies"]) == {"params", "nwot", "l2"}
    assert supernest("status", "out")[0] == 0


def test_what_proxies_agree_on_is_a_line_of_its_own(supernest: Any, here: Path) -> None:
    names = ["transmission", "synflow", "progressivity", "expressivity"]
    code, out, err = supernest("rank", "cells.yaml", "--out", "out", "--proxies", ",".join(names))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[2:7]] == [*names, "consensus"]
    assert lines[7] == (
        "consensus: sum of the logarithms of the ranks by synflow, expressivity, progressivity, transmission"
    )
    found = json.loads((here / "out" / "rank" / "proxies.json").read_text("utf-8"))
    ranks = [rankdata(found["scores"][name]) for name in names]
    assert found["scores"]["consensus"] == pytest.approx(sum(np.log(of / 8) for of in ranks))
    taken = [found["proxies"][name]["seconds"] for name in names]
    assert found["proxies"]["consensus"]["seconds"] == pytest.approx(sum(taken))


def test_predictors_are_cross_validated_on_the_panel(supernest: Any, here: Path) -> None:
    names = "rank.predictors=[ridge, proxy_forest]"
    code, out, err = supernest("rank", "cells.yaml", "--out", "out", "--proxies", "params", "--set", names)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    at = lines.index("cross-validated tau-b of predictors, 5 folds:")
    found = json.loads((here / "out" / "rank" / "proxies.json").read_text("utf-8"))["predictors"]
    assert list(found) == ["ridge", "proxy_forest"]
    for line, (name, tau) in zip(lines[at + 1 : at + 3], found.items(), strict=True):
        assert line == f"  {name}: {tau:.3f}"
    code, _, err = supernest(
        "rank", "cells.yaml", "--out", "other", "--proxies", "params", "--set", "rank.predictors=[parzc]"
    )
    assert code == 2
    assert "parzc learns from at least 10 networks, and 5 folds of a panel of 8 leave 6" in err
    assert not (here / "other").exists()


def _table_genes(rows: list[list[int]]) -> list[list[int]]:
    """Operations by number; edges 1 and later have one or two each in this space."""
    return [[row[0], 1, 0, 1, row[4], 1] for row in rows]


def test_what_networks_cannot_have_is_refused_before_anything_runs(supernest: Any, here: Path) -> None:
    vit = "data: {source: digits, train_limit: 300}\nspace: {family: vit, preset: small}\ntrain: {steps: 2}\n"
    (here / "vit.yaml").write_text(vit, "utf-8")
    for arguments, message in (
        (("vit.yaml", "--proxies", "params,nwot"), "nwot needs ReLUs, and these networks have none. Leave it out."),
        (("vit.yaml", "--proxies", "zen"), "zen needs batch norms, and these networks have none. Leave it out."),
        (("cells.yaml", "--proxies", "nwott"), "rank.proxies: 'nwott' is not known. Did you mean 'nwot'?"),
        (
            ("cells.yaml", "--proxies", "l2", "--set", "rank.proxy_batch=1"),
            "rank.proxy_batch: 1 is out of range. Give at least 2.",
        ),
    ):
        code, _, err = supernest("rank", *arguments, "--out", "out")
        assert code == 2
        assert message in err
        assert err.count("\n") == 1
        assert not (here / "out").exists()


def test_the_published_scores(data_dir: Path) -> None:
    path = data_dir / "nas_bench_201" / FILE
    if not path.is_file():
        pytest.skip(f"no nas_bench_201/{FILE} under {data_dir}")
    genes, accuracy, scores = published(path, "cifar100")
    assert genes.shape == (725, 6)
    assert len(np.unique(genes, axis=0)) == 725
    expected = {
        "nwot": 0.814, "synflow": 0.762, "l2": 0.748, "params": 0.744, "jacov": 0.725, "flops": 0.722, "snip": 0.658,
        "grad_norm": 0.648, "fisher": 0.555, "grasp": 0.552,
    }  # fmt: skip
    assert {name: spearman(scores[name], accuracy) for name in expected} == expected


def test_a_damaged_file_of_scores_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        published(tmp_path / FILE, "cifar10")
    (tmp_path / FILE).write_bytes(b"no gzip")
    with pytest.raises(UserError, match="cannot be read"):
        published(tmp_path / FILE, "cifar10")
