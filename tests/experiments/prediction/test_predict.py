"""`supernest predict`: files are read as those of training were, and what cannot be read is one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import supernest as sn
from experiments.data.folder import Folder
from experiments.prediction.predict import predict_files
from experiments.prediction.reader import READERS
from search_spaces import UserError
from supernet.tasks.task import TASKS
from tests.experiments.prediction.networks import LABELS, export_images, of_rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a network, and pictures in the folders of a data set: one on its side, one wide, one grey."""
    directory = tmp_path_factory.mktemp("predict")
    export_images(directory / "net", "white")
    rng, turned = np.random.default_rng(0), Image.Exif()
    turned[0x0112] = 6
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = directory / "photos" / split / label
            folder.mkdir(parents=True)
            for name, size in (("a.png", (31, 20)), ("b.jpg", (16, 40)), ("c.png", (9, 9))):
                picture = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
                picture = picture.convert("L") if name == "c.png" else picture
                picture.save(folder / name, exif=turned if name == "b.jpg" else Image.Exif())
    (directory / "photos" / "test" / "dog" / "notes.txt").write_text("no picture")
    return directory


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def test_pictures_are_read_as_training_reads_them(supernest: Any, here: Path) -> None:
    code, out, err = supernest("predict", "net", "photos/test", "--json", "--batch-size", "4", "--top", "2")
    assert (code, err) == (0, "")
    found = json.loads(out)
    names = [f"photos/test/{label}/{name}" for label in ("cat", "dog") for name in ("a.png", "b.jpg", "c.png")]
    assert [row["file"] for row in found] == names
    images, _ = Folder("photos", 8).read().test.read(np.arange(6))
    logits = sn.load_subnet("net").predict(images)
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row, expected in zip(found, odds, strict=True):
        assert [one["label"] for one in row["top"]] == [LABELS[i] for i in np.argsort(-expected)[:2]]
        assert [one["probability"] for one in row["top"]] == pytest.approx(np.sort(expected)[:0:-1], rel=1e-4)
    code, out, _ = supernest("predict", "net", "photos/test/cat/a.png")
    assert out.startswith(f"photos/test/cat/a.png: {found[0]['top'][0]['label']} ")
    (again,) = sn.load_subnet("net").predict_files(["photos/test/cat/a.png"], top=1)
    assert again["top"][0]["label"] == found[0]["top"][0]["label"]


def test_one_size_of_batches_is_compiled_once(here: Path) -> None:
    subnet, shapes = sn.load_subnet("net"), []
    forward = subnet.from_raw
    vars(subnet)["from_raw"] = lambda x: (shapes.append(x.shape[0]), forward(x))[1]
    assert len(predict_files(subnet, ["photos"], batch_size=5)) == 12
    assert shapes == [5, 5, 5]


def test_plug_ins_of_the_run_are_imported_when_asked(
    supernest: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("experiments.subnets.loading.import_plugins_of_run", asked.append)
    assert supernest("predict", "net", "photos/test/cat/a.png")[0] == 0
    sn.load_subnet("net")
    assert not asked
    sn.load_subnet("net", plugins=True)
    assert asked == [here.parent]


def test_transparent_pixels_lie_on_the_background_of_training(here: Path, tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (8, 8), "white").save(tmp_path / "white.png")
    clear, white = predict_files(sn.load_subnet("net"), [tmp_path])
    assert clear.answer == white.answer


def test_rows_of_tables_and_arrays_are_predicted(tmp_path: Path) -> None:
    subnet = of_rows()
    (tmp_path / "rows.csv").write_text("year,note,area\n1990,old,30\n\n2000,new,40.5\n")
    np.savez(tmp_path / "rows.npz", x=np.array([[30, 1990], [40.5, 2000]]), y=np.zeros(2))
    np.save(tmp_path / "rows.npy", np.array([[30, 1990], [40.5, 2000]], np.float32))
    found = predict_files(subnet, [tmp_path], batch_size=1)
    assert [row.row for row in found] == ["line 2", "line 4", "row 0", "row 1", "row 0", "row 1"]
    assert [(row.answer.values or {})["price"] for row in found] == pytest.approx([300, 405] * 3)


def test_every_task_has_a_reader_or_a_word(here: Path) -> None:
    assert set(READERS) == set(TASKS)
    with pytest.raises(UserError, match="Use supernest generate"):
        READERS["tokens"](sn.load_subnet("net"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.png",), "missing.png: no such file or folder. Name what is there."),
        (("net/orbax",), "net/orbax: holds no file that the network takes (.bmp, .gif"),
        (("net/config.json", "photos"), "net/config.json: cannot be decoded (cannot identify image file"),
        (("photos", "--top", "0"), "Invalid value for '--top': 0 is not in the range x>=1."),
    ],
)
def test_what_cannot_be_read_is_one_line(supernest: Any, here: Path, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = supernest("predict", "net", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"area,yaer\n1,2\n", "no column 'year'. Did you mean 'yaer'?"),
        ("rows.csv", b"area,year\n1,\n", "line 2: column 'year' is missing"),
        ("rows.csv", b"area,year\n1e300,2\n", "example 0, feature 'area': inf is no number"),
        ("rows.npy", b"no array", "rows.npy: truncated, corrupt"),
    ],
)
def test_rows_that_do_not_fit_are_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        predict_files(of_rows(), [tmp_path / name])
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
