"""What `supernest init --data` makes of data: settings that fit, splits that are offered, faults that are named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from experiments.configuration.proposals import patch_of
from tests.experiments.parallel_text import write_pairs


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(folder: Path, count: int, side: int, mode: str = "RGB") -> None:
    """Writes pictures of random pixels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (side, side + i) + (() if mode == "L" else (len(mode),)), np.uint8)
        Image.fromarray(pixels, mode).save(folder / f"{i}.png")


def proposed(supernest: Any, data: str, file: str = "e.yaml") -> dict[str, Any]:
    """Returns the experiment that is written for data; it passes check."""
    code, out, err = supernest("init", file, "--data", data)
    assert (code, err) == (0, "")
    assert out.endswith(f"{file}: written. Next: supernest check {file} --time\n")
    code, _, err = supernest("check", file)
    assert (code, err) == (0, "")
    return yaml.safe_load(Path(file).read_text("utf-8"))


def test_class_folders_get_a_split_a_size_and_patches(supernest: Any, here: Path) -> None:
    for name, count in (("cat", 9), ("dog", 7)):
        draw(here / "photos" / name, count, 45)
    (here / "plans").mkdir()
    tree = proposed(supernest, "folder=photos", "plans/e.yaml")
    assert tree["data"] == {
        "source": "folder", "path": "../photos", "image_size": 40, "test_fraction": 0.2,
        "augmentation": {"crop": 5, "flip": True},
    }  # fmt: skip
    assert tree["space"] == {"family": "vit", "preset": "small", "patch_size": 5}
    assert tree["train"]["batch_size"] == 8
    text = (here / "plans" / "e.yaml").read_text("utf-8")
    assert "# 10 training, 3 validation, 3 test pictures of 2 classes; 40 x 40 pixels, 3 channels" in text


def test_grey_and_transparent_pictures_are_seen(supernest: Any, here: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            draw(here / "grey" / split / name, 4, 16, "L")
            draw(here / "clear" / split / name, 4, 16, "RGBA")
    tree = proposed(supernest, "folder=grey")
    assert (tree["data"]["grey"], "test_fraction" in tree["data"], "flip" in tree["data"]["augmentation"]) == (
        True, False, False,
    )  # fmt: skip
    assert proposed(supernest, "folder=clear", "c.yaml")["data"]["background"] == "white"


def test_all_bad_pictures_are_told(supernest: Any, here: Path) -> None:
    for name in ("cat", "dog"):
        draw(here / "photos" / name, 6, 16)
    for bad in ("cat/1.png", "dog/2.png", "dog/3.png"):
        (here / "photos" / bad).write_bytes(b"no picture")
    code, _, err = supernest("init", "e.yaml", "--data", "folder=photos")
    assert (code, len(err.splitlines())) == (2, 3)
    assert all("cannot be decoded" in line for line in err.splitlines())
    assert not (here / "e.yaml").exists()


def test_arrays_of_images_get_patches_that_divide_them(supernest: Any, here: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        f"{split}_{kind}": rng.integers(0, 256, (40, 28, 28), np.uint8) if kind == "images" else np.arange(40) % 4
        for split in ("train", "test")
        for kind in ("images", "labels")
    }
    np.savez(here / "x.npz", **arrays)
    tree = proposed(supernest, "npz=x.npz")
    assert (tree["data"]["path"], tree["space"]["patch_size"]) == ("x.npz", 4)
    arrays |= {f"{split}_images": arrays[f"{split}_images"][:, :, :20] for split in ("train", "test")}
    np.savez(here / "flat.npz", **arrays)
    code, _, err = supernest("init", "flat.yaml", "--data", "npz=flat.npz")
    assert (code, err.count("\n")) == (2, 1)
    assert "28 x 20 pixels, and networks take squares" in err
    arrays = {key: value[:, :23, :23] if key.endswith("images") else value for key, value in arrays.items()}
    arrays |= {f"{split}_images": rng.integers(0, 256, (40, 23, 23), np.uint8) for split in ("train", "test")}
    np.savez(here / "prime.npz", **arrays)
    assert proposed(supernest, "npz=prime.npz", "p.yaml")["space"]["family"] == "mobilenet"


def test_text_gets_a_small_language_model(supernest: Any, here: Path) -> None:
    (here / "corpus.txt").write_text("To be, or not to be, that is the question. " * 600, "utf-8")
    tree = proposed(supernest, "text=corpus.txt")
    assert (tree["space"]["family"], tree["data"]["context"]) == ("language", 64)


def test_parallel_text_gets_a_small_translation_model(supernest: Any, here: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'supernest[text]'")
    write_pairs(here / "corpus", longest=80)
    tree = proposed(supernest, "pairs=corpus")
    assert (tree["space"]["family"], tree["data"]["languages"]) == ("translation", ["en", "de"])
    assert 80 < tree["data"]["length"] < 200
    assert tree["train"]["batch_size"] == 32


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("photos", "is not SOURCE=PATH"), ("foldr=x", "Did you mean 'folder'?"), ("folder=none", "no such directory"),
        ("npz=none.npz", "no such file"), ("text=none.txt", "none.txt"), ("table=x.csv", "which no family"),
        ("huggingface=x", "needs more settings"), ("folder=.", "holds no picture"),
        ("pairs=none", "no such directory"), ("pairs=.", "holds no file train.LANGUAGE, and parallel text is two"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_looked_at_are_one_line(supernest: Any, here: Path, data: str, said: str) -> None:
    code, _, err = supernest("init", "e.yaml", "--data", data)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert not (here / "e.yaml").exists()


def test_patches_divide_and_make_few_tokens() -> None:
    for side in range(1, 129):
        patch = patch_of(side)
        assert patch == 0 or (side % patch == 0 and (side // patch) ** 2 <= 64)
    assert [patch_of(side) for side in (8, 16, 28, 32, 64, 23)] == [2, 2, 4, 4, 8, 0]
