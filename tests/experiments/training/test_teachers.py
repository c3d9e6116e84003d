"""External teachers: an exported subnet, a user's function, their mean, and what is refused."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configuration.experiment_config import load_config, load_data_section
from experiments.data.augment import normalise
from experiments.training.teachers import load_teachers
from search_spaces import UserError, build_space
from supernet.engine.supernet import build_supernet
from supernet.export.export import export_subnet
from supernet.export.subnet import load_subnet
from supernet.tasks.images import Preprocessing

NET = build_supernet(build_space("vit", "small", {"width": [16, 24], "depth": [1, 2], "head_dim": 8}))


@pytest.fixture(scope="module")
def data():
    return load_data_section((), "digits").load(0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("run") / "teacher"
    # Another normalisation than the data's: the teacher must still see what it was trained on.
    preprocessing = Preprocessing((8, 8), (0.5,), (0.25,))
    export_subnet(
        NET, NET.init(jax.random.key(0)), NET.space.smallest, directory, statistics=None, preprocessing=preprocessing,
        input_shape=(8, 8, 1), labels=data.class_names, probe=data.train.images(np.arange(4)),
        measure=lambda subnet: {"test_accuracy": 0.5},
    )  # fmt: skip
    return directory


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("their_teachers")
    monkeypatch.setitem(sys.modules, "their_teachers", made)
    return made


def test_a_subnet_teaches_what_it_computes_on_raw_images(exported, data):
    images = data.train.images(np.arange(6))
    x = normalise(jnp.asarray(images), data.mean, data.std)
    teacher = load_teachers([str(exported)], data, NET, 2.0)
    assert teacher is not None
    expected = jax.nn.softmax(load_subnet(exported).predict(images) / 2.0)
    np.testing.assert_allclose(teacher(x), expected, atol=1e-5)


def test_several_teachers_are_averaged_after_softening(module, data):
    module.ones = lambda x: jnp.zeros((len(x), 10))
    module.first = lambda x: 8.0 * jax.nn.one_hot(jnp.zeros(len(x), jnp.int32), 10)
    teacher = load_teachers(["their_teachers:ones", "their_teachers:first"], data, NET, 4.0)
    assert teacher is not None
    expected = (0.1 + jax.nn.softmax(2.0 * jax.nn.one_hot(jnp.zeros(3, jnp.int32), 10))) / 2
    np.testing.assert_allclose(teacher(jnp.zeros((3, 8, 8, 1))), expected, rtol=1e-6)


def test_no_teacher_is_none(data):
    assert load_teachers([], data, NET, 1.0) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "'nowhere' is no directory of an exported subnet, and no module:function"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("their_teachers:missing", "has no function 'missing'"),
        ("their_teachers:wrong", r"gives shape \(2, 7\) for 2 images, expected \(2, 10\)"),
        ("their_teachers:broken", "fails on images"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(name, message, module, data):
    module.wrong = lambda x: jnp.zeros((len(x), 7))
    module.broken = lambda x: x @ jnp.zeros((3, 3))
    with pytest.raises(UserError, match=message):
        load_teachers([name], data, NET, 1.0)


def test_teachers_of_a_file_are_relative_to_it(exported, tmp_path):
    (tmp_path / "teacher").symlink_to(exported)
    file = tmp_path / "experiment.yaml"
    file.write_text(
        "space: {family: vit, preset: small}\n"
        "train: {steps: 4, distillation: {type: external, teachers: [teacher, a.module:function]}}\n"
    )
    names = load_config(file).train.distillation.teachers
    assert names == (str(exported.resolve()), "a.module:function")
