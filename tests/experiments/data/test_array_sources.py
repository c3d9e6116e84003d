"""Float arrays in .npy files and tables in Parquet: what is read, and what is refused in one line."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.data import SOURCES
from search_spaces import UserError
from supernet.export.subnet import Subnet
from supernet.tasks.arrays import Standardised
from supernet.tasks.numbers import Numbers

X, Y = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2
TABLE = {"a": X[:, 0], "b": X[:, 1], "kind": np.array(["no", "yes"])[Y]}


def npy(path: Path, **arrays: Any) -> Any:
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array, allow_pickle=True)
    return SOURCES["arrays"](path=str(path))  # type: ignore[call-arg]


def parquet(path: Path, columns: dict[str, Any], target: str = "kind") -> Any:
    arrow, files = pytest.importorskip("pyarrow"), importlib.import_module("pyarrow.parquet")
    files.write_table(arrow.table(columns), path / "t.parquet")
    return SOURCES["table"](path=str(path / "t.parquet"), target=target)  # type: ignore[call-arg]


def refused(source: Any) -> str:
    with pytest.raises(UserError) as error:
        source.load(0, 0.2)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_arrays_of_a_directory_are_read(tmp_path: Path) -> None:
    data = npy(tmp_path, x=X.reshape(40, 1, 3), y=Y).load(0, 0.2)
    assert data.settings({"input_shape", "classes"}) == {"input_shape": (1, 3), "classes": 2}
    assert sum(map(len, (data.train, data.validation, data.test))) == 40


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no .npy file; expected x.npy and y.npy."),
        ({"x": X}, "no array 'y'; expected x and y, or train_x and train_y."),
        ({"x": X, "y": np.array([None] * 40)}, "y.npy: truncated, corrupt, or holds objects."),
        ({"x": X, "y": np.array(1)}, "x or y is a single number. Store an array of examples."),
        ({"x": X[:30], "y": Y}, "x: 30 examples and 40 labels. Give each example its label."),
        ({"x": X.astype("U8"), "y": Y}, "; expected numbers. Store them as float32."),
        ({"x": np.where(np.arange(40)[:, None] == 7, np.nan, X), "y": Y}, "row 7, feature '0': a value is missing"),
        ({"train_x": X, "train_y": Y, "test_x": X[:, :2], "test_y": Y}, "examples of shape [2], and training examples"),
        ({"x": X, "y": Y.astype(complex)}, "labels are complex128. Store whole numbers, texts, or floats."),
    ],
)
def test_wrong_arrays_are_one_line(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in refused(npy(tmp_path, **arrays))


def test_a_truncated_array_is_one_line(tmp_path: Path) -> None:
    source = npy(tmp_path, x=X, y=Y)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:200])
    assert "x.npy: truncated, corrupt, or holds objects. Save it again with numpy.save." in refused(source)


def test_a_parquet_table_is_read(tmp_path: Path) -> None:
    data = parquet(tmp_path, TABLE).load(0, 0.2)
    assert (data.class_names, data.settings({"features", "classes"})) == (("no", "yes"), {"features": 2, "classes": 2})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": TABLE["kind"], "kind": TABLE["kind"]}, "row 0: column 'a' holds 'no', no number."),
        ({"a": [1.0, None], "kind": ["no", "yes"]}, "row 1: column 'a' is missing. Fill it in"),
        ({"a": [1.0, 2.0], "kind": ["no", None]}, "row 1: column 'kind' is missing. Fill it in"),
        ({"a": [1.0, 2.0], "kinds": ["no", "yes"]}, "has no column 'kind'. Did you mean 'kinds'?"),
        ({"kind": ["no", "yes"]}, "no column is left to learn from."),
        ({"a": np.zeros(0), "kind": np.zeros(0)}, "holds no rows. Give some."),
    ],
)
def test_a_wrong_parquet_table_is_one_line(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in refused(parquet(tmp_path, columns))


def test_what_is_no_parquet_and_a_library_that_is_missing_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = parquet(tmp_path, TABLE)
    (tmp_path / "t.parquet").write_bytes(b"no table")
    assert "t.parquet: cannot be read as Parquet (" in refused(source)

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert "the library `pyarrow`, which reads Parquet, is not installed. Run: pip install" in refused(source)


def test_targets_are_matched_by_name(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 3},{10 * i}\n" for i in range(30))
    (tmp_path / "t.csv").write_text(f"x,b,a\n{rows}")
    outputs = Numbers(("a", "b"), (140.0, 1.0), (80.0, 0.8))
    subnet = Subnet(
        {"task": "arrays", "input": {"shape": [1]}, "labels": []}, {}, None, {},
        Standardised(("x",), (0.0,), (1.0,)), outputs,
    )  # fmt: skip
    data = SOURCES["table"](path=str(tmp_path / "t.csv"), target=["b", "a"]).load(0, 0.2)  # type: ignore[call-arg]
    found: Any = data.for_network("data", subnet)
    assert found.targets == ("a", "b")
    assert np.array_equal(found.train.labels[:, 0], 10 * found.train.x[:, 0])
    one = SOURCES["table"](path=str(tmp_path / "t.csv"), target="b", drop=["a"], labels="numbers").load(0, 0.2)  # type: ignore[call-arg]
    with pytest.raises(UserError, match=r"^data: no target 'a', which the network predicts\. Known: b\.$"):
        one.for_network("data", subnet)
