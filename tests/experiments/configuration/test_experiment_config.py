"""Experiment files: what they mean, what they resolve to, and the line that each mistake gets."""

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.configuration.experiment_config import ExperimentConfig, load_config, load_data_section
from experiments.configuration.plugin_section import settings_of
from experiments.configuration.space_section import SpaceSection
from experiments.configuration.train_section import TrainSection
from experiments.data import ImageDataset
from experiments.data.arrays import array_examples
from experiments.user_input.problems import ProblemsError
from experiments.user_input.yaml_files import dump_yaml, parse_yaml, read_yaml
from search_spaces import UserError
from supernet.training.optimizer import OptimizerSettings

REPOSITORY = Path(__file__).resolve().parents[3]
BASE = "space: {family: vit, preset: small}\ntrain: {steps: 100}\n"


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Loads a YAML text from `tmp_path/my.yaml`."""

    def loaded(text: str, *overrides: str) -> ExperimentConfig:
        path = tmp_path / "my.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return load_config(path, overrides)

    return loaded


def test_defaults_fill_what_is_not_given(load: Any) -> None:
    config = load(BASE)
    assert config.name == "my"
    assert config.data.source == "digits"
    assert config.train.optimizer == OptimizerSettings()
    assert config.sampler.settings == {"random_paths": 2}
    assert [str(budget) for budget in config.budgets] == ["macs<=100%"]


# One that starts from what a user imports is read in test_start.py, where something is imported.
FOLDER = REPOSITORY / "experiments"
EXAMPLES = [
    path
    for path in (*sorted(FOLDER.glob("*.yaml")), FOLDER / "cluster" / "experiment.yaml")
    if "start" not in read_yaml(path)
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_a_resolved_experiment_reads_back_equal(path: Path, load: Any) -> None:
    config = load_config(path)
    again = load(config.dump())
    assert again == config
    assert again.dump() == config.dump()
    assert again.identity == config.identity


def test_every_section_survives_the_round_trip(load: Any) -> None:
    config = load(
        """
        name: all
        seed: 7
        data: {source: idx, path: files, class_names: [a, b], train_limit: 10, augmentation: {crop: 2, mixup: 0.5}}
        space: {family: vit, preset: small, width: [32, 64], mlp_ratio: [1, 2.5]}
        sampler: {type: uniform, paths: 3}
        train:
          epochs: 2
          optimizer: {type: sgd, learning_rate: 1.0e-05, betas: [0.5, 0.6], clip_norm: null, untouched: hold}
          distillation: {type: none}
          ema: null
        search: {type: random, evaluations: 3, batch: 2}
        budgets: {a: {macs: 50%, params: 1000000}, b: "activation_bytes<=1.5e6"}
        export: {stablehlo: false}
        """
    )
    assert load(config.dump()) == config
    assert config.data.settings["class_names"] == ("a", "b")
    assert config.train.optimizer.learning_rate == 1e-5
    assert config.identity != load(BASE).identity


def test_an_equal_python_object_needs_no_file(load: Any) -> None:
    made = ExperimentConfig(
        name="my",
        space=SpaceSection.model_validate({"family": "vit", "preset": "small"}),
        train=TrainSection(steps=100),
    )
    assert made == load(BASE)


def test_overrides_apply_in_order_and_are_yaml(load: Any) -> None:
    config = load(
        BASE,
        "train.steps=7",
        "train.steps=8",
        "train.optimizer.betas=[0.8, 0.9]",
        "sampler={type: uniform}",
        "budgets.half=macs<=50%",
    )
    assert config.train.steps == 8
    assert config.train.optimizer.betas == (0.8, 0.9)
    assert config.sampler.type == "uniform"
    assert config.budgets[0].name == "half"


def test_paths_are_relative_to_the_file_and_of_overrides_to_where_one_is(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(f"{BASE}data: {{source: idx, path: ../files}}").data.settings["path"] == str(tmp_path.parent / "files")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "here").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    config = load(f"{BASE}data: {{source: idx, path: files}}", "data.path=here")
    assert config.data.settings["path"] == str(elsewhere / "here")
    assert load_data_section(["path=here"], "idx").settings["path"] == str(elsewhere / "here")


def test_a_name_on_a_hub_is_no_path(load: Any, tmp_path: Path) -> None:
    text = f"{BASE}data: {{source: huggingface, path: someone/pictures, image_size: 8}}"
    assert load(text).data.settings["path"] == "someone/pictures"
    (tmp_path / "someone" / "pictures").mkdir(parents=True)
    assert load(text).data.settings["path"] == str(tmp_path / "someone" / "pictures")


def images(shape: tuple[int, int, int], classes: int) -> ImageDataset:
    """A data set with so many black images in each split."""
    split = array_examples("made", np.zeros((classes, *shape), np.uint8), np.arange(classes), classes)
    names = tuple(str(label) for label in range(classes))
    return ImageDataset(split, split, split, shape, classes, names, (0.0,), (1.0,), "")


def test_the_space_takes_sizes_from_the_data(load: Any) -> None:
    section = load("space: {family: vit, preset: small, patch_size: 7}\ntrain: {steps: 1}").space
    space: Any = section.build(images((28, 28, 3), 5))
    assert (space.image_size, space.channels, space.classes, space.patch_size) == (28, 3, 5, 7)
    with pytest.raises(UserError, match=r"28 by 14 pixels"):
        section.build(images((28, 14, 1), 5))
    section = load("space: {family: vit, preset: small, classes: 7}\ntrain: {steps: 1}").space
    with pytest.raises(UserError, match=r"space\.classes: 7 is not what the data have, 5"):
        section.build(images((8, 8, 1), 5))


PLUGIN = '''
"""A sampler of a user's own."""
from dataclasses import dataclass
from samplers import SAMPLERS, UniformSampler

@SAMPLERS.register("NAME")
@dataclass(frozen=True)
class Mine(UniformSampler):
    strength: float = 0.5
'''


def test_a_family_that_takes_no_images_is_refused() -> None:
    message = r"^space.family: language takes tokens, .*Choose one of darts, mobilenet, .*nas_bench_201, .*vit"
    with pytest.raises(UserError, match=message):
        SpaceSection.model_validate({"family": "language", "preset": "small"}).build(images((8, 8, 1), 10))


def test_plugins_beside_the_file_are_imported_first(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*os.sys.path])  # type: ignore[attr-defined]
    from samplers import SAMPLERS

    monkeypatch.setattr(SAMPLERS, "_entries", dict(SAMPLERS))
    (tmp_path / "my_sampler_of_test_config.py").write_text(PLUGIN.replace("NAME", "mine"), encoding="utf-8")
    config = load(f"{BASE}plugins: [my_sampler_of_test_config]\nsampler: {{type: mine, strength: 1}}")
    assert config.sampler.settings == {"paths": 1, "strength": 1.0}

    (tmp_path / "taken_of_test_config.py").write_text(PLUGIN.replace("NAME", "uniform"), encoding="utf-8")
    (tmp_path / "needy_of_test_config.py").write_text("import not_there_of_test_config\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"my\.yaml: plugins\[0\]: 'taken_of_test_config' .*the name is taken"):
        load(f"{BASE}plugins: [taken_of_test_config]")
    with pytest.raises(UserError, match=r"needs the module 'not_there_of_test_config', which is not installed"):
        load(f"{BASE}plugins: [needy_of_test_config]")


MISTAKES = [
    ("", "is empty. Write settings"),
    ("- a\n", "holds no settings by name"),
    ("space: {family: vit}\n", "train: missing. Set it."),
    ("train: {steps: 1}\n", "space: missing. Set it."),
    (BASE + "sampel: {type: uniform}", "sampel: no such setting. Did you mean 'sampler'?"),
    (BASE + "train: {steps: 2}", "line 3, column 1: the key 'train' is given twice"),
    (BASE + "1: 2", "line 3, column 1: the key '1' is no text"),
    (BASE + "name: [", "line 3, column 8: "),
    (BASE + "name: &a b", "line 3, column 7: anchors and aliases are not read"),
    (BASE + "name: !!python/name:os.system", "could not determine a constructor"),
    (BASE + "name: 2024-01-01", "name: 2024-01-01 is a date. Write it in quotes"),
    (BASE + "name: 12", "name: 12 is not a text. Write it in quotes: '12'."),
    (BASE + "name: a b", "name: 'a b' is no name"),
    (BASE + "seed: -1", "seed: -1 is out of range. Give at least 0."),
    (BASE + "seed: 1.0", "seed: 1.0 is not a whole number."),
    (BASE + "seed: true", "seed: true is not a whole number."),
    (BASE + "seed: '3'", "seed: '3' is not a whole number. Write it without quotes: 3."),
    (BASE + "evaluation: 3", "evaluation: 3 is not a group of settings."),
    (BASE + "evaluation: {batch_size: 0}", "evaluation.batch_size: 0 is out of range. Give at least 1."),
    (BASE + "export: {stablehlo: 'no'}", "export.stablehlo: 'no' is not true or false."),
    (BASE + "plugins: a", "plugins: 'a' is not a list. Give the values in brackets"),
    (BASE + "plugins: [not_there_of_test]", "plugins[0]: 'not_there_of_test' is no module here."),
    (BASE + "data: {source: digit}", "data.source: 'digit' is not known. Did you mean 'digits'?"),
    (BASE + "data: {source: 3}", "data.source: 3 is not a text."),
    (BASE + "data: {source: idx}", "data.path: missing. Set it."),
    (BASE + "data: {path: x}", "data.path: no such setting."),
    (BASE + "data: {settings: {}}", "data.settings: no such setting."),
    (BASE + "data: {validation_fraction: 1}", "data.validation_fraction: 1 is out of range. Give less than 1."),
    (BASE + "data: {validation_fraction: .inf}", "data.validation_fraction: inf is not finite."),
    (BASE + "data: {train_limit: 0}", "data.train_limit: 0 is out of range. Give at least 2."),
    (BASE + "data: {augmentation: {crop: -1}}", "data.augmentation.crop: -1 is not a number of pixels."),
    (BASE + "data: {augmentation: {corp: 1}}", "data.augmentation.corp: no such setting. Did you mean 'crop'?"),
    (BASE + "supernet: {sharing: entangle}", "supernet.sharing: 'entangle' is not known. Did you mean 'entangled'?"),
    (
        BASE + "supernet: {mixture: {experts: 4}}",
        "supernet.mixture: is for sharing mixture, and sharing is entangled. Set sharing: mixture, or leave it out.",
    ),
    (
        BASE + "supernet: {sharing: mixture, mixture: {experts: 0}}",
        "supernet.mixture.experts: 0 is out of range. Give 1 to 64.",
    ),
    (
        BASE + "supernet: {sharing: mixture, mixture: {router: neurons}}",
        "supernet.mixture.router: 'neurons' is not known. Did you mean 'neuron'?",
    ),
    (
        "space: {family: vit}\nsupernet: {sharing: mixture}\n"
        "train: {steps: 1, incubation: {modules: 2, meta_steps: 9, module_steps: 9}}",
        "supernet.mixture.start: independent experts would change the networks that train.incubation gives. Set equal.",
    ),
    (BASE + "sampler: {random_path: 1}", "sampler.random_path: no such setting. Did you mean 'random_paths'?"),
    (BASE + "sampler: {random_paths: two}", "sampler.random_paths: 'two' is not a whole number."),
    (BASE + "sampler: {seed: 1}", "sampler.seed: no such setting. Known: random_paths, type."),
    (BASE + "search: {type: evolutoin}", "search.type: 'evolutoin' is not known. Did you mean 'evolution'?"),
    (BASE + "search: {population: 1e3}", "search.population: '1e3' is not a whole number. Write 1000."),
    (BASE + "search: {cost: 1}", "search.cost: no such setting."),
    (BASE + "budgets: {}", "budgets: none. Give at least one"),
    (BASE + "budgets: [macs<=50%]", 'budgets: ["macs<=50%"] is not a group of budgets.'),
    (BASE + "budgets: {a: {mac: 50%}}", "budgets.a: 'mac' is no metric. Did you mean 'macs'?"),
    (BASE + "budgets: {a: {macs: 500%}}", "budgets.a.macs: '500%' is more than the dearest subnet costs."),
    (BASE + "budgets: {../a: {macs: 50%}}", "'../a' is no name."),
    ("space: {family: vti}\ntrain: {steps: 1}", "space.family: 'vti' is not known. Did you mean 'vit'?"),
    (
        "space: {family: vit, preset: smal}\ntrain: {steps: 1}",
        "space.preset: 'smal' is not known. Did you mean 'small'?",
    ),
    ("space: {family: vit, widht: [1]}\ntrain: {steps: 1}", "space.widht: no such setting. Did you mean 'width'?"),
    ("space: {family: vit, width: 32}\ntrain: {steps: 1}", "space.width: 32 is not a list."),
    ("space: {family: vit, width: [32, a]}\ntrain: {steps: 1}", "space.width[1]: 'a' is not a whole number."),
    ("space: {family: vit}\ntrain: {}", "train: neither steps nor epochs are given. Set exactly one of them."),
    ("space: {family: vit}\ntrain: {steps: 1, epochs: 1}", "train: both steps and epochs are given."),
    ("space: {family: vit}\ntrain: {stesp: 1}", "train.stesp: no such setting. Did you mean 'steps'?"),
    ("space: {family: vit}\ntrain: {steps: 1, ema: 1.0}", "train.ema: 1.0 is out of range. Give less than 1."),
    (
        "space: {family: vit}\ntrain: {steps: 1, optimizer: {learning_rate: 1e-3}}",
        "train.optimizer.learning_rate: '1e-3' is not a number. YAML reads a text; write 1.0e-3.",
    ),
    (
        "space: {family: vit}\ntrain: {steps: 1, optimizer: {type: adam}}",
        "train.optimizer.type: 'adam' is not known. Did you mean 'adamw'?",
    ),
    (
        "space: {family: vit}\ntrain: {steps: 1, optimizer: {learning_rate: -1}}",
        "train.optimizer.learning_rate: -1.0 is out of range.",
    ),
    (
        "space: {family: vit}\ntrain: {steps: 5, optimizer: {warmup_steps: 5}}",
        "train.optimizer.warmup_steps: 5 is not less than the 5 training steps.",
    ),
    (
        "space: {family: vit}\ntrain: {steps: 5, distillation: {weight: 2}}",
        "train.distillation.weight: 2.0 is not in 0..1.",
    ),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES, ids=[expected[:40] for _, expected in MISTAKES])
def test_a_mistake_gets_one_line_with_file_key_value_and_remedy(load: Any, text: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        load(text)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("/")
    assert first.partition("my.yaml: ")[2].startswith(expected) or expected in first
    assert not rest or text.startswith("space: {family: vit}\ntrain: {stesp")


def test_several_mistakes_get_a_line_each_but_not_endlessly(load: Any) -> None:
    with pytest.raises(UserError) as caught:
        load(BASE + "seed: a\nname: 1\nevaluation: {batch_size: 0, calibration_batches: 0}\na: 1\nb: 1\nc: 1\nd: 1\n")
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert lines[-1].endswith("and 3 more. Mend these first.")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=-1", "--set: train.steps: -1 is out of range."),
        ("trian.steps=1", "--set: trian: no such setting. Did you mean 'train'?"),
        ("train.steps", "--set 'train.steps': is not of the form key=value."),
        ("=1", "--set '=1': is not of the form key=value."),
        ("train.steps.a=1", "--set train.steps.a: train.steps is 100, which has no settings below it."),
        ("train.steps=[", "--set train.steps: line 1, column 2: "),
    ],
)
def test_a_mistake_on_the_command_line_names_it(load: Any, override: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        load(BASE, override)
    assert str(caught.value).startswith(expected)


def test_a_mistake_in_the_file_is_not_blamed_on_an_override_beside_it(load: Any) -> None:
    with pytest.raises(UserError, match=r"my\.yaml: train\.batch_size: 0 is"):
        load("space: {family: vit}\ntrain: {batch_size: 0}", "train.steps=1")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: no such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="is a directory"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(UserError, match=r"latin\.yaml: byte 9 is not UTF-8"):
        load_config(tmp_path / "latin.yaml")
    (tmp_path / "nul.yaml").write_bytes(b"name: \x00\n")
    with pytest.raises(UserError, match=r"nul\.yaml: unacceptable character"):
        load_config(tmp_path / "nul.yaml")
    (tmp_path / "deep.yaml").write_text("[" * 5000, encoding="utf-8")
    with pytest.raises(UserError, match=r"deep\.yaml: "):
        load_config(tmp_path / "deep.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(UserError, match="too large"):
        load_config(tmp_path / "huge.yaml")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
TREES = st.dictionaries(
    st.text(min_size=1),
    st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12),
)


@given(TREES)
def test_what_is_written_as_yaml_reads_back_the_same(tree: dict[str, Any]) -> None:
    assert parse_yaml(dump_yaml(tree), "test") == tree


@dataclass(frozen=True)
class Settings:
    """Settings of every kind, one with the name of an attribute of pydantic's models."""

    size: tuple[tuple[int, float], ...]
    where: Path | None = None
    copy: bool = False


def test_settings_of_a_dataclass_take_its_types() -> None:
    assert settings_of(Settings, {"size": [[1, 2]], "where": "a"}) == {
        "size": ((1, 2.0),),
        "where": Path("a"),
        "copy": False,
    }
    assert settings_of(Settings, {"copy": True}, partial=True) == {"copy": True}
    assert settings_of(Settings, {}, without={"size"}) == {"where": None, "copy": False}
    with pytest.raises(ProblemsError, match=r"size\[0\]\[1\]: 'a' is not a number"):
        settings_of(Settings, {"size": [[1, "a"]]})
    with pytest.raises(ProblemsError, match=r"copy: 1 is not true or false"):
        settings_of(Settings, {"size": [], "copy": 1})
