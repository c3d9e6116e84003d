"""Tests of the sources that read array files: idx, cifar and npz, whole and damaged."""

import gzip
import lzma
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from experiments.data.cifar import Cifar
from experiments.data.idx import Idx
from experiments.data.npz import Npz
from search_spaces.errors import UserError

DATA = Path(os.environ.get("SUPERNEST_DATA", Path(__file__).parents[3] / "../shared/data"))


def real(name: str) -> str:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is absent; set SUPERNEST_DATA to the directory that holds {name}/")
    return str(DATA / name)


def refused(source, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        source.load(0, 0.5)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# ---------------------------------------------------------------- idx


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, suffix: str = "") -> dict[str, np.ndarray]:
    pixels = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": pixels.integers(0, 256, (8, 5, 6), np.uint8),
        "train-labels-idx1-ubyte": np.array([0, 1, 2, 0, 1, 2, 0, 1], np.uint8),
        "t10k-images-idx3-ubyte": pixels.integers(0, 256, (2, 5, 6), np.uint8),
        "t10k-labels-idx1-ubyte": np.array([2, 1], np.uint8),
    }
    for name, array in arrays.items():
        content = idx_bytes(array)
        (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    return arrays


def test_idx_with_test_files_only_has_a_test_split(tmp_path):
    arrays = write_idx(tmp_path)
    for path in tmp_path.glob("train-*"):
        path.unlink()
    for given, names in (((), ("0", "1", "2")), (("a", "b", "c"), ("a", "b", "c"))):
        test, found = Idx(str(tmp_path), class_names=given).read_test()
        assert found == names
        np.testing.assert_array_equal(test.labels, arrays["t10k-labels-idx1-ubyte"])
        np.testing.assert_array_equal(test.images(np.arange(2)).reshape(2, 5, 6), arrays["t10k-images-idx3-ubyte"])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_reads_what_was_written(tmp_path, suffix):
    arrays = write_idx(tmp_path, suffix)
    splits = Idx(str(tmp_path), class_names=("a", "b", "c")).read()
    images = splits.train.images(np.array([7, 0]))
    assert np.array_equal(images[..., 0], arrays["train-images-idx3-ubyte"][[7, 0]])
    assert splits.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert splits.test.labels.tolist() == [2, 1]
    assert splits.class_names == ("a", "b", "c")
    assert splits.train.image_shape == (5, 6, 1)


def test_fashion_mnist_has_its_published_size_and_statistics():
    splits = Idx(real("fashion_mnist")).read()
    assert (len(splits.train), len(splits.test), splits.train.image_shape) == (60_000, 10_000, (28, 28, 1))
    assert np.bincount(splits.train.labels).tolist() == [6000] * 10
    (mean,), (std,) = splits.train.statistics
    assert mean == pytest.approx(0.28604, abs=5e-6)
    assert std == pytest.approx(0.35302, abs=5e-6)


def test_fashion_mnist_keeps_each_class_in_both_splits():
    data = Idx(real("fashion_mnist")).load(0, 0.1)
    assert np.bincount(data.validation.labels).tolist() == [600] * 10
    assert len(np.intersect1d(data.train.rows, data.validation.rows)) == 0
    assert len(data.train) == 54_000


TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
WHOLE = idx_bytes(np.zeros((8, 5, 6), np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        (TRAIN_IMAGES, WHOLE[:-1], "its header promises [8, 5, 6]"),
        (TRAIN_IMAGES, WHOLE + b"x", "257 bytes"),
        (TRAIN_IMAGES, WHOLE[:10], "ends within its header"),
        (TRAIN_IMAGES, b"\x89PNG" + WHOLE, "starts with 89504e47; expected 00000803"),
        (TRAIN_IMAGES, b"", "empty"),
        (TRAIN_IMAGES, idx_bytes(np.zeros((8, 30), np.uint8)), "3 dimension"),
        (TRAIN_IMAGES, idx_bytes(np.zeros((8, 0, 6), np.uint8)), "shape [8, 0, 6]"),
        (TRAIN_LABELS, idx_bytes(np.zeros(7, np.uint8)), "8 images but 7 labels"),
        (TRAIN_LABELS, idx_bytes(np.array([0, 3] * 4, np.uint8)), "without a gap"),
        (TRAIN_LABELS, idx_bytes(np.array([0, 1] * 4, np.uint8)), "t10k-labels-idx1-ubyte: label 2"),
        ("t10k-images-idx3-ubyte", idx_bytes(np.zeros((2, 5, 7), np.uint8)), "(5, 7, 1)"),
    ],
)
def test_damaged_idx_files_are_refused_by_name(tmp_path, name, content, part):
    write_idx(tmp_path)
    (tmp_path / name).write_bytes(content)
    refused(Idx(str(tmp_path)), str(tmp_path), part)


def test_damaged_gz_files_are_refused_by_name(tmp_path):
    write_idx(tmp_path, ".gz")
    path = tmp_path / f"{TRAIN_IMAGES}.gz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 0xFF
    for content in (whole[:-20], whole[:-1], bytes(flipped), b"not gz", whole + b"tail"):
        path.write_bytes(content)
        refused(Idx(str(tmp_path)), path.name, "truncated or corrupt")
    path.write_bytes(gzip.compress(b""))
    refused(Idx(str(tmp_path)), path.name, "no data")


def test_missing_idx_files_and_directories_are_refused(tmp_path):
    write_idx(tmp_path)
    (tmp_path / TRAIN_LABELS).unlink()
    refused(Idx(str(tmp_path)), f"{TRAIN_LABELS}: no such file", f"{TRAIN_LABELS}.gz")
    refused(Idx(str(tmp_path / "nowhere")), "nowhere: no such directory")
    refused(Idx(str(tmp_path / TRAIN_IMAGES)), "is a file, not a directory")
    (tmp_path / TRAIN_LABELS).mkdir()
    refused(Idx(str(tmp_path)), f"{TRAIN_LABELS}: no such file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_refused(tmp_path):
    write_idx(tmp_path)
    (tmp_path / TRAIN_IMAGES).chmod(0)
    refused(Idx(str(tmp_path)), TRAIN_IMAGES, "cannot be read")


# ---------------------------------------------------------------- cifar


def records(labels: list[int], label_bytes: int = 1, seed: int = 0) -> tuple[bytes, np.ndarray]:
    """Returns the bytes of a binary batch, and its images as [n, 32, 32, 3]."""
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
    planes = images.transpose(0, 3, 1, 2).reshape(len(labels), -1)
    columns = [np.full((len(labels), label_bytes - 1), 19, np.uint8), np.array(labels, np.uint8)[:, None], planes]
    return np.concatenate(columns, axis=1).tobytes(), images


def test_cifar10_joins_the_batches_that_are_there_in_order(tmp_path):
    first, first_images = records(list(range(10)), seed=1)
    third, third_images = records(list(range(9, -1, -1)), seed=3)
    (tmp_path / "data_batch_3.bin.xz").write_bytes(lzma.compress(third))
    (tmp_path / "data_batch_1.bin").write_bytes(first)
    (tmp_path / "data_batch_1.bin.xz").write_bytes(lzma.compress(first))  # a second copy must not count twice
    (tmp_path / "test_batch.bin").write_bytes(third)
    splits = Cifar(str(tmp_path)).read()
    assert splits.train.labels.tolist() == [*range(10), *range(9, -1, -1)]
    images = splits.train.images(np.arange(20))
    assert np.array_equal(images, np.concatenate([first_images, third_images]))
    assert splits.class_names[8] == "ship"


@pytest.mark.parametrize(("name", "label_bytes", "classes"), [("test_batch.bin", 1, 10), ("test.bin", 2, 100)])
def test_cifar_with_a_test_file_only_has_a_test_split(tmp_path, name, label_bytes, classes):
    content, images = records([3, 9, 0], label_bytes)
    (tmp_path / name).write_bytes(content)
    test, names = Cifar(str(tmp_path)).read_test()
    assert len(names) == classes
    assert test.labels.tolist() == [3, 9, 0]
    np.testing.assert_array_equal(test.images(np.arange(3)), images)
    refused(Cifar(str(tmp_path)))  # nothing to train on


def test_cifar100_takes_the_fine_label(tmp_path):
    content, images = records(list(range(100)), label_bytes=2)
    (tmp_path / "train.bin").write_bytes(content)
    (tmp_path / "test.bin.gz").write_bytes(gzip.compress(content))
    splits = Cifar(str(tmp_path)).read()
    assert splits.train.labels.tolist() == list(range(100))
    assert np.array_equal(splits.test.images(np.array([42]))[0], images[42])
    assert splits.class_names[99] == "99"
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"thing{i}" for i in range(100)))
    assert Cifar(str(tmp_path)).read().class_names[99] == "thing99"
    (tmp_path / "fine_label_names.txt").write_text("apple\n")
    refused(Cifar(str(tmp_path)), "fine_label_names.txt", "1 names; expected 100")


@pytest.mark.slow
def test_cifar10_has_its_published_size_and_classes():
    folder = real("cifar10")
    splits = Cifar(folder).read()
    batches = len(list(Path(folder).glob("data_batch_*")))
    assert (len(splits.train), len(splits.test)) == (10_000 * batches, 10_000)
    assert np.bincount(splits.test.labels).tolist() == [1000] * 10
    assert splits.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]  # frog, truck, truck, deer, …
    # Over all 50,000 the published means are 0.4914, 0.4822, 0.4465; 30,000 of them are within 1e-3 (σ 0.13/√30000).
    np.testing.assert_allclose(splits.train.statistics[0], (0.4914, 0.4822, 0.4465), atol=4 * 0.13 / 30_000**0.5)


@pytest.mark.parametrize("name", ["data_batch_1", "batches.meta", "train", "cifar10.pkl"])
def test_the_python_layout_is_refused_unread(tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    refused(Cifar(str(tmp_path)), name, "python version", "binary version")
    assert not (tmp_path / "exploded").exists()


def test_damaged_cifar_files_are_refused_by_name(tmp_path):
    refused(Cifar(str(tmp_path)), "data_batch_1.bin: no such file")
    whole, _ = records(list(range(10)))
    train, test = tmp_path / "data_batch_2.bin", tmp_path / "test_batch.bin.xz"
    train.write_bytes(whole)
    refused(Cifar(str(tmp_path)), "test_batch: no such file", "test_batch.bin.xz")
    packed = lzma.compress(whole)
    for content in (packed[:-9], packed[: len(packed) // 2], b"not xz"):
        test.write_bytes(content)
        refused(Cifar(str(tmp_path)), test.name, "truncated or corrupt")
    test.write_bytes(packed)
    train.write_bytes(whole[:-1])
    refused(Cifar(str(tmp_path)), train.name, "30729 bytes; expected a multiple of 3073")
    train.write_bytes(records([0, 10])[0])
    refused(Cifar(str(tmp_path)), train.name, "label 10 of example 1 is outside 0..9")


# ---------------------------------------------------------------- npz


def arrays() -> dict[str, np.ndarray]:
    pixels = np.random.default_rng(0)
    return {
        "train_images": pixels.integers(0, 256, (6, 4, 4, 3), np.uint8),
        "train_labels": np.array([[0], [1], [0], [1], [0], [1]], np.int64),
        "test_images": pixels.integers(0, 256, (2, 4, 4, 3), np.uint8),
        "test_labels": np.array([1, 0], np.uint8),
    }


def saved(folder: Path, **changed: np.ndarray) -> Npz:
    np.savez_compressed(folder / "data.npz", allow_pickle=True, **{**arrays(), **changed})
    return Npz(str(folder / "data.npz"))


def test_npz_reads_what_was_written(tmp_path):
    data = saved(tmp_path).load(0, 0.5)
    assert np.bincount(data.train.labels).sum() == 3
    assert np.array_equal(data.test.images(np.array([1, 0])), arrays()["test_images"][[1, 0]])
    own = saved(tmp_path, validation_images=np.full((2, 4, 4, 3), 7, np.uint8), validation_labels=np.array([0, 1]))
    data = own.load(0, 0.5)
    assert len(data.train) == 6
    assert (data.validation.images(np.array([0, 1])) == 7).all()


@pytest.mark.parametrize("name", ["valid", "val", "dev"])
def test_npz_uses_its_validation_arrays_and_names_the_rest(tmp_path, name):
    extra = {f"{name}_images": np.full((2, 4, 4, 3), 7, np.uint8), f"{name}_labels": np.array([0, 0])}
    data = saved(tmp_path, **extra, weights=np.zeros(3)).load(0, 0.5)
    assert (len(data.train), len(data.validation)) == (6, 2)
    assert "'weights' not used" in data.notes[0]
    assert "the validation split has no example of class '1'" in data.notes[1]
    assert len(Npz(str(tmp_path / "data.npz")).load(0, 0.5, hold_out=True).train) == 3
    refused(saved(tmp_path, **extra, validation_images=extra[f"{name}_images"]), "Keep one")


def test_npz_with_test_arrays_only_has_a_test_split(tmp_path):
    tests = {key: value for key, value in arrays().items() if key.startswith("test_")}
    np.savez(tmp_path / "test.npz", allow_pickle=True, **tests)
    examples, names = Npz(str(tmp_path / "test.npz")).read_test()
    assert (examples.labels.tolist(), names) == ([1, 0], ("0", "1"))
    assert saved(tmp_path).read_test()[1] == ("0", "1")


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"train_images": np.zeros((6, 4, 4, 3), np.float64)}, "train: images are float64"),
        ({"train_images": np.zeros((6, 48), np.uint8)}, "shape [6, 48]"),
        ({"train_images": np.zeros((5, 4, 4, 3), np.uint8)}, "5 images but 6 labels"),
        ({"test_images": np.zeros((2, 8, 8, 3), np.uint8)}, "(8, 8, 3)"),
        ({"test_labels": np.array([0, 2])}, "test: label 2 of example 1"),
        ({"test_labels": np.eye(2, dtype=np.int64)}, "int64[2, 2]"),
        ({"train_labels": np.array([0, 2] * 3)}, "without a gap"),
        ({"train_labels": np.array([0, None] * 3, object)}, "array 'train_labels' cannot be read"),
        ({"validation_images": np.zeros((2, 4, 4, 3), np.uint8)}, "no array 'validation_labels'"),
    ],
)
def test_bad_npz_arrays_are_refused_by_name(tmp_path, changed, part):
    refused(saved(tmp_path, **changed), "data.npz", part)


def test_damaged_npz_files_are_refused(tmp_path):
    source = saved(tmp_path)
    path = Path(source.path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 4] ^= 0xFF
    for content in (whole[:-30], whole[:100], b"", b"hello", pickle.dumps([1]), bytes(flipped)):
        path.write_bytes(content)
        refused(source, "data.npz")
    missing = arrays()
    missing["train_image"] = missing.pop("train_images")
    np.savez(path, allow_pickle=False, **missing)
    refused(source, "no array 'train_images'", "Did you mean 'train_image'?")
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    refused(source, "one unnamed array")
    refused(Npz(str(tmp_path)), "no such file")
