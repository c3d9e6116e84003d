"""Class names: a class is its name wherever both sides have names, in evaluation, splits and teachers."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.configuration.experiment_config import load_data_section
from experiments.data import ImageDataset
from experiments.data.class_names import class_numbers
from experiments.data.huggingface import HuggingFace
from experiments.data.npz import Npz
from experiments.training.teachers import load_teachers
from search_spaces import UserError, build_space
from supernet.engine.supernet import build_supernet
from supernet.export.export import export_subnet
from supernet.export.subnet import compiled, load_subnet
from supernet.tasks.images import Preprocessing

NAMES = ("ant", "bee", "cat")
SPACE = {"image_size": 8, "channels": 1, "width": [16], "depth": [1], "head_dim": 8, "patch_size": 4}
IMAGES = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where the command `supernest` runs."""
    return tmp_path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that knows `NAMES`, and gives each of them to some of `IMAGES`."""
    net = build_supernet(build_space("vit", "small", {**SPACE, "classes": 3}))
    params = net.init(jax.random.key(0))
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), (16, 3))
    preprocessing = Preprocessing((8, 8), (0.5,), (0.25,))
    module, _ = net.extract(params, net.space.smallest)
    params["head"]["bias"] = -jnp.median(compiled(module)(preprocessing(jnp.asarray(IMAGES))), axis=0)
    directory = tmp_path_factory.mktemp("run") / "net"
    export_subnet(
        net, params, net.space.smallest, directory, statistics=None, preprocessing=preprocessing,
        input_shape=(8, 8, 1), labels=NAMES, probe=IMAGES[:4],
        measure=lambda subnet: {}, stablehlo=False,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def classes(exported: Path) -> np.ndarray:
    """The class that the network gives to each image."""
    found = load_subnet(exported).predict(IMAGES).argmax(axis=-1)
    assert (np.bincount(found, minlength=3) > 5).all()
    return found


def data_of(path: Path, classes: np.ndarray, names: tuple[str, ...], own: tuple[str, ...] | None = None) -> Path:
    """Writes a .npz of the images of some classes, numbered as `names` are; it holds `own` as the names, if any."""
    there = np.flatnonzero(np.isin(np.array(NAMES)[classes], names))
    labels = np.array([names.index(NAMES[number]) for number in classes[there]])
    arrays: dict[str, Any] = {
        f"{split}_{kind}": x
        for split in ("train", "test")
        for kind, x in (("images", IMAGES[there]), ("labels", labels))
    }
    if own is not None:
        arrays["class_names"] = np.array(own)
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("names", "missing"),
    [(NAMES, []), (("cat", "ant", "bee"), []), (("cat", "bee"), ["ant"])],
    ids=["same", "another order", "some"],
)
def test_evaluation_matches_classes_by_name(
    supernest: Any, tmp_path: Path, exported: Path, classes: np.ndarray, names: tuple[str, ...], missing: list[str]
) -> None:
    path = data_of(tmp_path / "data.npz", classes, names, names)
    arguments = ("evaluate", str(exported), "--data", "npz", "--set", f"path={path}")
    code, out, err = supernest(*arguments, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["accuracy"] == 1
    assert [name for name, (_, count) in found["by_class"].items() if not count] == missing
    code, out, _ = supernest(*arguments)
    assert "accuracy 100.00%" in out
    assert ("; none of class ant" in out) == bool(missing)


def test_numbers_stay_numbers_and_contradicting_names_are_refused(
    supernest: Any, tmp_path: Path, exported: Path, classes: np.ndarray
) -> None:
    plain = data_of(tmp_path / "plain.npz", classes, NAMES)
    other = data_of(tmp_path / "other.npz", classes, NAMES, ("ant", "bee", "dog"))
    code, out, _ = supernest("evaluate", str(exported), "--data", "npz", "--set", f"path={plain}", "--json")
    assert (code, json.loads(out)["accuracy"]) == (0, 1)
    code, _, err = supernest("evaluate", str(exported), "--data", "npz", "--set", f"path={other}")
    assert code == 2
    assert "the network has no class 'dog'; it knows ant, bee, cat" in err
    assert err.count("\n") == 1


def test_numbers_that_are_names_are_matched() -> None:
    digits = tuple("0123456789")
    assert class_numbers("here", ("3", "7"), digits).tolist() == [3, 7]  # folders of two digits
    assert class_numbers("here", ("0", "1", "10", "2"), tuple(map(str, range(11)))).tolist() == [0, 1, 10, 2]
    assert class_numbers("here", ("cat", "dog"), digits).tolist() == [0, 1]
    with pytest.raises(UserError, match="has no class '11'"):
        class_numbers("here", ("7", "11"), digits)


def test_names_in_a_file_and_in_the_settings_agree(tmp_path: Path, classes: np.ndarray) -> None:
    path = str(data_of(tmp_path / "data.npz", classes, NAMES, NAMES))
    assert Npz(path).read().class_names == Npz(path, NAMES).read().class_names == NAMES
    assert Npz(path).read().unused == ()
    with pytest.raises(UserError, match=r"data\.class_names: cat, bee, ant are not the class_names in"):
        Npz(path, NAMES[::-1]).read()


def loaded(path: Path) -> ImageDataset:
    data = load_data_section([f"path={path}"], "npz").load(0)
    assert isinstance(data, ImageDataset)
    return data


def test_a_teacher_gives_its_logits_in_the_order_of_the_data(
    tmp_path: Path, exported: Path, classes: np.ndarray
) -> None:
    for names in (("cat", "ant", "bee"), ("cat", "bee")):
        data = loaded(data_of(tmp_path / f"{len(names)}.npz", classes, names, names))
        student = build_supernet(build_space("vit", "small", {**SPACE, "classes": len(names)}))
        teacher = load_teachers([str(exported)], data, student, 1.0)
        assert teacher is not None
        images, labels = data.test.read(np.arange(20))
        np.testing.assert_array_equal(np.asarray(teacher(data.prepared(images))).argmax(axis=-1), labels)
    other = loaded(data_of(tmp_path / "other.npz", classes, NAMES, ("ant", "bee", "dog")))
    with pytest.raises(UserError, match=r"teachers: data: the teacher .* has no class 'dog'"):
        load_teachers([str(exported)], other, student, 1.0)
    few = loaded(data_of(tmp_path / "few.npz", classes, ("ant", "bee")))  # two numbers are no names of three
    with pytest.raises(UserError, match=r"gives shape \(2, 3\) for 2 images, expected \(2, 2\)"):
        load_teachers([str(exported)], few, student, 1.0)


def test_splits_of_the_hub_keep_their_own_order_of_classes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs supernest[huggingface]")

    def split(names: tuple[str, ...], labels: list[int]) -> Any:
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
        pictures = [Image.new("L", (8, 8)) for _ in labels]
        return datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)

    splits = {"train": split(NAMES, [0, 1, 2]), "test": split(("cat", "ant"), [0, 1, 1])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    source = HuggingFace(str(tmp_path / "saved"), 8)
    assert source.read().test.labels.tolist() == [2, 0, 0]
    assert source.read_test()[0].labels.tolist() == [2, 0, 0]
    datasets.DatasetDict({**splits, "test": split(("ant", "dog"), [0, 1])}).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(UserError, match="other: test: the split 'train' has no class 'dog'; it knows ant, bee, cat"):
        HuggingFace(str(tmp_path / "other"), 8).read()
