"""Tests of the sources that decode pictures when asked: folders, and the Hugging Face `datasets` library."""

import io
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data.class_names import renumbered
from experiments.data.folder import Folder
from experiments.data.huggingface import HuggingFace
from experiments.data.pictures import check_pictures, decode
from search_spaces.errors import UserError

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def refused(action, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def write_folder(root: Path, splits=("train", "test"), each: int = 4) -> Folder:
    """Writes one-coloured pictures of several sizes; every class of its own colour."""
    for split in splits:
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                Image.new("RGB", (10 + i, 14 - i), colour).save(root / split / name / f"{i}.{'PNG' if i else 'png'}")
    (root / "train" / "red" / "notes.txt").write_text("not a picture")
    (root / "train" / "README.txt").write_text("not a class")
    return Folder(str(root), image_size=6)


def test_folder_gives_each_picture_its_class(tmp_path):
    data = write_folder(tmp_path).load(0, 0.5)
    assert data.class_names == ("blue", "green", "red")
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 6, 12)
    for split in (data.train, data.validation, data.test):
        order = np.random.default_rng(0).permutation(len(split))
        images = split.images(order)
        assert images.shape == (len(split), 6, 6, 3)
        expected = np.array(list(COLOURS.values()))[split.labels[order]]
        assert (images == expected[:, None, None, :]).all()
    assert data.mean == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert data.train.images(np.zeros(0, np.int64)).shape == (0, 6, 6, 3)


def test_folder_keeps_its_own_validation_and_can_be_grey(tmp_path):
    write_folder(tmp_path, ("train", "test", "validation"), each=1)
    data = Folder(str(tmp_path), image_size=5, grey=True).load(0, 0.5)
    assert (len(data.train), len(data.validation), data.image_shape) == (3, 3, (5, 5, 1))


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_a_validation_folder_is_used_whatever_it_is_called(tmp_path, name):
    source = write_folder(tmp_path, ("train", "test", name), each=2)
    data = source.load(0, 0.5)
    assert (len(data.train), len(data.validation), data.notes) == (6, 6, ())
    held_out = source.load(0, 0.5, hold_out=True)
    assert (len(held_out.train), len(held_out.validation), held_out.notes) == (3, 3, ())


def test_folders_that_no_split_is_made_of_are_named(tmp_path):
    source = write_folder(tmp_path, ("train", "test", "holdout"))
    (tmp_path / ".cache").mkdir()
    assert source.load(0, 0.5).notes == (
        f"{tmp_path}: 'holdout/' not used. The splits are train, test and validation (validation, valid, val, dev).",
    )
    for name in ("val", "dev"):
        (tmp_path / name).mkdir()
    refused(source.read, str(tmp_path), "holds 'val' and 'dev'", "Keep one.")


def test_a_validation_folder_that_lacks_a_class_says_so(tmp_path):
    source = write_folder(tmp_path, ("train", "test", "val"))
    shutil.rmtree(tmp_path / "val" / "green")
    (note,) = source.load(0, 0.5).notes
    assert "the validation split has no example of class 'green', so its figures say nothing of it" in note


def test_a_folder_with_a_test_split_only_has_one(tmp_path):
    source = write_folder(tmp_path, ("train", "test"))
    with_train, names = source.read_test()
    shutil.rmtree(tmp_path / "train")
    shutil.rmtree(tmp_path / "test" / "blue")
    alone, few = source.read_test()
    assert (names, few) == (("blue", "green", "red"), ("green", "red"))
    assert renumbered("here", alone, few, names).labels.tolist() == [1] * 4 + [2] * 4
    assert with_train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    refused(lambda: renumbered("here", alone, few, ("blue", "green")), "here: the network has no class 'red'")
    assert renumbered("here", alone, ("0", "1"), names) is alone
    refused(lambda: renumbered("here", alone, ("0", "1", "2"), ("a", "b")), "3 classes, but the network has 2")


def test_folder_fingerprint_follows_names_and_sizes(tmp_path):
    source = write_folder(tmp_path)
    first = source.load(0, 0.5).fingerprint
    assert source.load(1, 0.5).fingerprint == first
    path = tmp_path / "train" / "red" / "0.png"
    path.write_bytes(path.read_bytes() + b"\0")
    second = source.load(0, 0.5).fingerprint
    path.rename(path.with_name("9.png"))
    assert len({first, second, source.load(0, 0.5).fingerprint}) == 3


def test_a_loaded_folder_can_be_sent_to_another_process(tmp_path):
    data = write_folder(tmp_path).load(0, 0.5)
    data.train.images(np.arange(2))
    copy = pickle.loads(pickle.dumps(data))
    assert np.array_equal(copy.train.images(np.arange(6)), data.train.images(np.arange(6)))


def test_decode_crops_the_centre_and_turns_pictures_upright(tmp_path):
    picture = np.zeros((6, 12, 3), np.uint8)
    picture[:, 3:9] = np.arange(36, dtype=np.uint8).reshape(6, 6, 1) * 7
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    assert np.array_equal(decode("x", buffer.getvalue(), (6, 6, 3)), picture[:, 3:9])
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: upside down
    Image.fromarray(picture).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(decode("x", tmp_path / "x.png", (6, 6, 1)), picture[::-1, 3:9][:, ::-1, :1])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_eight_bit_mode_decodes_to_three_channels(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(path)
    assert (decode("x", path, (4, 4, 3)) == 255).all()


def test_transparent_pixels_get_a_background_or_a_word(tmp_path):
    source = write_folder(tmp_path)
    path = tmp_path / "test" / "red" / "1.PNG"
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 8, 4))
    clear.save(path)
    row = np.array([9])
    refused(lambda: source.load(0, 0.5).test.images(row), str(path), "transparent pixels", "data.background")
    for background, below in (("white", 255), ("black", 0)):
        image = Folder(str(tmp_path), 8, background=background).load(0, 0.5).test.images(row)[0]
        assert (image[:4] == (255, 0, 0)).all()
        assert (image[4:] == below).all()
    Image.new("RGBA", (8, 8), (255, 0, 0, 255)).save(path)  # nothing shows through
    assert (source.load(0, 0.5).test.images(row)[0] == (255, 0, 0)).all()
    refused(lambda: Folder(str(tmp_path), 8, background="pink"), "data.background: 'pink'", "white or black")


def test_unreadable_pictures_are_refused_by_name(tmp_path):
    source = write_folder(tmp_path)
    path = tmp_path / "test" / "red" / "0.png"
    row = np.array([8])
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    jpeg = io.BytesIO()
    Image.fromarray(noise).save(jpeg, "JPEG")
    for content in (whole[:-2000], whole[:20], b"", b"hello", jpeg.getvalue()[:-500], whole[:60] + b"zz" + whole[62:]):
        path.write_bytes(content)
        refused(lambda: source.load(0, 0.5).test.images(row), str(path), "cannot be decoded")
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path)
    refused(lambda: source.load(0, 0.5).test.images(row), str(path), "8 bits")
    data = source.load(0, 0.5)
    path.unlink()
    refused(lambda: data.test.images(row), str(path), "cannot be decoded")


def test_bad_folders_are_refused(tmp_path):
    refused(Folder(str(tmp_path), 6).read, "train: no such directory")
    (tmp_path / "train").mkdir()
    refused(Folder(str(tmp_path), 6).read, "no class folder")
    source = write_folder(tmp_path / "whole")
    (tmp_path / "whole" / "train" / "violet").mkdir()
    refused(source.read, "violet: holds no picture", ".png")
    (tmp_path / "whole" / "train" / "violet").rmdir()
    (tmp_path / "whole" / "test" / "gren").mkdir()
    refused(source.read, "gren: not a class of train/", "Did you mean 'green'?")
    for size in (0, -3, 2.5, True):
        refused(lambda size=size: Folder(str(tmp_path), size), "data.image_size")  # type: ignore[arg-type]


def test_class_folders_alone_are_split_by_a_share(tmp_path):
    write_folder(tmp_path / "whole")
    refused(Folder(str(tmp_path / "whole"), 6, test_fraction=0.2).read, "data.test_fraction: 0.2", "Leave it out")
    root = str(tmp_path / "whole" / "test")
    refused(Folder(root, 6).read, "pictures of 3 classes (blue, green, red)", "data.test_fraction: 0.2")
    data = Folder(root, 6, test_fraction=0.25).load(0, 1 / 3)
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 3, 3)
    assert sorted(data.test.labels) == [0, 1, 2]
    assert not set(data.test.rows) & {*data.train.rows, *data.validation.rows}
    again = Folder(root, 6, test_fraction=0.25)
    np.testing.assert_array_equal(again.load(7, 1 / 3).test.rows, data.test.rows)
    np.testing.assert_array_equal(again.read_test()[0].rows, data.test.rows)
    refused(Folder(root, 6, test_fraction=0.01).read, "test_fraction 0.01 leaves class 'blue' (4 examples)")
    refused(lambda: Folder(root, 6, test_fraction=1.0), "data.test_fraction: 1.0")


def test_all_bad_pictures_are_named_at_once(tmp_path):
    data = write_folder(tmp_path).load(0, 0.5)
    check_pictures((data.train, data.validation, data.test))
    bad = [tmp_path / "train" / "red" / "1.PNG", tmp_path / "test" / "blue" / "2.PNG"]
    for path in bad:
        path.write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        check_pictures((data.train, data.validation, data.test))
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"{path}: cannot be decoded")


# ---------------------------------------------------------------- Hugging Face


@pytest.fixture
def saved(tmp_path):
    """A directory written by `DatasetDict.save_to_disk`: splits train (8) and test (2) of red and blue pictures."""
    datasets = pytest.importorskip("datasets", reason="needs supernest[huggingface]")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["blue", "red"]),
            "number": datasets.Value("int64"),
        }
    )

    def rows(count: int):
        return datasets.Dataset.from_dict(
            {
                "image": [Image.new("RGB", (9, 7 + i), (COLOURS["blue"], COLOURS["red"])[i % 2]) for i in range(count)],
                "label": [i % 2 for i in range(count)],
                "number": [3 + i % 2 for i in range(count)],
            },
            features=features,
        )

    datasets.DatasetDict({"train": rows(8), "test": rows(2)}).save_to_disk(str(tmp_path / "saved"))
    return str(tmp_path / "saved")


def test_huggingface_reads_a_saved_data_set(saved):
    data = HuggingFace(saved, image_size=5).load(0, 0.25)
    assert (data.class_names, data.image_shape) == (("blue", "red"), (5, 5, 3))
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 2, 2)
    expected = np.array([COLOURS["blue"], COLOURS["red"]])[data.train.labels]
    assert (data.train.images(np.arange(6)) == expected[:, None, None, :]).all()
    assert HuggingFace(saved, image_size=5).load(1, 0.25).fingerprint == data.fingerprint
    own = HuggingFace(saved, image_size=5, validation="test").load(0, 0.25)
    assert (len(own.train), len(own.validation)) == (8, 2)


def test_huggingface_uses_its_validation_split_and_names_the_rest(saved):
    datasets = pytest.importorskip("datasets")
    whole = datasets.load_from_disk(saved)
    more = datasets.DatasetDict({**whole, "validation": whole["test"], "unsupervised": whole["test"]})
    more.save_to_disk(saved + "2")
    source = HuggingFace(saved + "2", image_size=5)
    data = source.load(0, 0.25)
    assert (len(data.train), len(data.validation)) == (8, 2)
    assert "'unsupervised' not used" in data.notes[0]
    assert len(source.load(0, 0.25, hold_out=True).train) == 6
    datasets.DatasetDict({"test": whole["test"]}).save_to_disk(saved + "3")
    alone, names = HuggingFace(saved + "3", image_size=5).read_test()
    assert (alone.labels.tolist(), names) == ([0, 1], ("blue", "red"))


def test_huggingface_settings_that_do_not_fit_are_refused(saved):
    refused(HuggingFace(saved, 5, train="trian").read, "no split 'trian'", "Did you mean 'train'?")
    refused(HuggingFace(saved, 5, label="lable").read, "no column 'lable'", "Did you mean 'label'?")
    refused(HuggingFace(saved, 5, image="label").read, "'label' is not an image column", "Known: image")
    refused(HuggingFace(saved, 5, label="number").read, "from 3 to 4")
    refused(lambda: HuggingFace(saved, 0), "data.image_size")


def test_a_data_set_that_cannot_be_loaded_is_refused(saved, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(HuggingFace(str(tmp_path / "empty"), 5).read, "cannot be loaded")
    for shard in Path(saved, "train").glob("*.arrow"):
        shard.unlink()
    refused(HuggingFace(saved, 5).read, saved, "cannot be loaded")


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(HuggingFace("anything", 5).read, "pip install 'supernest[huggingface]'")


def test_a_library_that_could_run_code_is_refused(monkeypatch):
    module = type(sys)("datasets")
    module.__version__ = "3.6.0"
    monkeypatch.setitem(sys.modules, "datasets", module)
    refused(HuggingFace("anything", 5).read, "3.6.0 is older than 4")
