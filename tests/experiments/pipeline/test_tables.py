"""Tables: numbers and classes to predict, from a CSV through check, run, rank and report to an exported network."""

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces import FAMILIES
from supernet.engine.supernet import SUPERNETS
from supernet.export.subnet import load_subnet
from supernet.standalone import MODULES
from tests.experiments.residual_mlp import MODULE, PLUGIN

ROWS = 240
YAML = f"""\
plugins: [{MODULE}]
data: {{source: table, path: houses.csv, target: price}}
space: {{family: residual_mlp}}
train:
  steps: 120
  batch_size: 32
  optimizer: {{learning_rate: 0.01, warmup_steps: 0}}
  distillation: {{type: largest, weight: 0.5}}
  evaluate_every: 60
  checkpoint_every: 60
  diagnose_every: null
  log_every: 20
search: {{type: random, evaluations: 6}}
budgets: {{full: macs<=100%}}
rank: {{panel: 3, bins: 1, steps: 5, bootstrap: 100}}
"""


def houses() -> list[dict[str, Any]]:
    """Rows whose price follows from three columns, on scales as in life."""
    rng = np.random.default_rng(0)
    area, year, garden = rng.uniform(30, 240, ROWS), rng.integers(1890, 2024, ROWS), rng.integers(0, 2, ROWS)
    price = 2800 * area + 900 * (year - 1890) + 40000 * garden + rng.normal(0, 4000, ROWS)
    kind = np.where(price < 350_000, "cheap", np.where(price < 500_000, "fair", "dear"))
    columns = {"area": area.round(1), "year": year, "garden": garden, "price": price.round(2), "kind": kind}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write(path: Path, rows: list[dict[str, Any]], without: str = "kind") -> None:
    names = [name for name in rows[0] if name != without]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the plug-in, the experiment and the tables; the plug-in is forgotten at the end."""
    directory = tmp_path_factory.mktemp("tables")
    (directory / f"{MODULE}.py").write_text(PLUGIN)
    (directory / "houses.yaml").write_text(YAML)
    write(directory / "houses.csv", houses())
    write(directory / "kinds.csv", houses(), "price")
    yield directory
    sys.modules.pop(MODULE, None)
    for registry in (FAMILIES, SUPERNETS, MODULES):
        registry._entries.pop("residual_mlp", None)


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return home


def test_numbers_are_predicted_from_a_table(supernest: Any, here: Path) -> None:
    code, out, err = supernest("check", "houses.yaml")
    assert (code, err) == (0, ""), err
    assert "test arrays of 3, to predict price" in out
    code, out, err = supernest("run", "houses.yaml", "--out", "numbers", "--quiet", "--json")
    assert (code, err) == (0, ""), err
    summary = json.loads(out)
    row = summary["subnets"][0]
    price = np.array([house["price"] for house in houses()])
    assert summary["objective"] == "rmse"
    assert 0.5 * price.std() < summary["chance"] < 2 * price.std()
    assert row["test_rmse"] < 0.4 * price.std()
    assert row["test_r2"] > 0.8
    assert row["test_mae"] < row["test_rmse"]
    assert supernest("report", "numbers")[0] == 0
    page = (here / "numbers" / "report.html").read_text()
    assert f"test rmse {row['test_rmse']:.5g}" in " ".join(page.split()) or f"{row['test_rmse']:.5g}" in page
    assert "accuracy" not in page.partition("<script")[0]

    # The exported network runs on its own, on raw rows, and answers in the unit of the column.
    subnet = load_subnet(here / "numbers" / "subnets" / "full")
    x = np.array([[house["area"], house["year"], house["garden"]] for house in houses()], np.float32)
    found = subnet.predict(x)
    assert found.shape == (ROWS, 1)
    assert np.sqrt(np.mean((found[:, 0] - price) ** 2)) < 0.4 * price.std()
    assert subnet.predict(x[:0]).shape == (0, 1)
    assert subnet.config["outputs"]["names"] == ["price"]
    code, out, _ = supernest("evaluate", "numbers/subnets/full", "--data", "houses.yaml", "--json")
    measured = json.loads(out)
    assert measured["rmse"] == pytest.approx(row["test_rmse"], rel=1e-6)
    code, out, _ = supernest("evaluate", "numbers/subnets/full", "--data", "houses.yaml")
    assert f"rmse {measured['rmse']:.5g}, mae {measured['mae']:.5g}, r2 {measured['r2']:.4f} on 48 test arrays" in out

    # Another budget is answered in the same unit.
    code, out, _ = supernest("export", "numbers", "--budget", "macs<=100%", "--show")
    assert f"best: validation rmse {summary_best(here):.5g}" in out


def summary_best(here: Path) -> float:
    """The lowest error of the search."""
    found = json.loads((here / "numbers" / "search" / "pareto.json").read_text())
    return found["budgets"]["full"]["best"]["objectives"]["error"]


def test_a_ranking_of_numbers_is_by_their_error(supernest: Any, here: Path) -> None:
    assert supernest("train", "houses.yaml", "--out", "numbers", "--quiet")[0] == 0  # where the run is not there yet
    code, out, err = supernest("rank", "houses.yaml", "--out", "numbers", "--quiet")
    assert (code, err) == (0, ""), err
    assert "3 architectures, by rmse on 38 arrays" in out
    found = json.loads((here / "numbers" / "rank" / "rank.json").read_text())
    assert found["figure"] == "rmse"
    assert all(one["alone"]["rmse"] > 0 for one in found["networks"])


def test_a_teacher_that_was_trained_on_other_features_is_refused(supernest: Any, here: Path) -> None:
    assert supernest("run", "houses.yaml", "--out", "numbers", "--quiet")[0] == 0  # where the run is not there yet
    teacher = "train.distillation={type: external, teachers: [numbers/subnets/full]}"
    code, _, err = supernest("check", "houses.yaml", "--set", teacher)
    assert (code, err) == (0, ""), err
    code, _, err = supernest("check", "houses.yaml", "--set", teacher, "--set", "data.drop=[garden]")
    assert code == 2
    assert "numbers/subnets/full: was trained on other features, statistics" in err


def test_classes_are_predicted_from_a_table(supernest: Any, here: Path) -> None:
    sets = [
        part
        for setting in ("data.path=kinds.csv", "data.target=kind", "train.label_smoothing=0.05", "data.drop=[garden]")
        for part in ("--set", setting)
    ]
    code, out, err = supernest("run", "houses.yaml", "--out", "classes", "--quiet", "--json", *sets)
    assert (code, err) == (0, ""), err
    row = json.loads(out)["subnets"][0]
    assert row["test_accuracy"] > 0.7
    assert sorted(row["test_by_class"]) == ["cheap", "dear", "fair"]
    subnet = load_subnet(here / "classes" / "subnets" / "full")
    assert subnet.config["preprocessing"]["names"] == ["area", "year"]
    # A table whose columns stand in another order is read by name.
    rows = [{name: house[name] for name in ("kind", "year", "garden", "area")} for house in houses()]
    (here / "other").mkdir(exist_ok=True)
    for name in ("train", "test"):
        write(here / "other" / f"{name}.csv", rows, "price")
    sets = [*sets[2:], "--set", "data.path=other"]
    code, out, _ = supernest("evaluate", "classes/subnets/full", "--data", "houses.yaml", "--json", *sets)
    assert json.loads(out)["accuracy"] > 0.7


def test_gradient_search_takes_numbers(supernest: Any, here: Path) -> None:
    settings = (
        "train.distillation={type: none}",
        "train.steps=8",
        "train.evaluate_every=8",
        "train.checkpoint_every=8",
    )
    sets = [part for setting in settings for part in ("--set", setting)]
    code, _, err = supernest("gradient", "houses.yaml", "--out", "gradient", "--quiet", "--json", *sets)
    assert (code, err) == (0, ""), err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.target=prise", "data.target: {home}/houses.csv has no column 'prise'. Did you mean 'price'?"),
        ("train.label_smoothing=0.1", "train.label_smoothing: 0.1, but the labels are numbers"),
        ("train.distillation.temperature=2.0", "train.distillation.temperature: 2.0 is for classes"),
        ("data.augmentation.flip=true", "data.augmentation: changes images"),
        ("rank.objective=accuracy", "rank.objective: 'accuracy' is no figure of these data. Set rmse or loss."),
        ("space.family=vit", "space.family: vit takes images, and the data are arrays. Choose one of residual_mlp"),
    ],
)
def test_what_does_not_fit_numbers_is_one_line(supernest: Any, here: Path, setting: str, message: str) -> None:
    code, out, err = supernest("check", "houses.yaml", "--set", setting)
    assert (code, out) == (2, "")
    assert message.format(home=here) in err
    assert len(err.splitlines()) == 1


def test_an_experiment_file_comes_from_the_family(supernest: Any, here: Path) -> None:
    plugin = str(here / f"{MODULE}.py")
    assert supernest("init", "new.yaml", "--family", "residual_mlp", "--plugin", plugin)[::2] == (0, "")
    text = (here / "new.yaml").read_text()
    assert MODULE in text.partition("seed:")[0].partition("plugins:")[2]
    assert "source: table" in text
    (here / "table.csv").unlink(missing_ok=True)
    shutil.copy(here / "houses.csv", here / "table.csv")
    code, _, err = supernest("check", "new.yaml")
    assert (code, err) == (0, ""), err
