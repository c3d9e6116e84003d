"""What data and machine can hold: numbers beyond it are refused by `check`, and what is dear is said with figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.pipeline import demands
from experiments.pipeline.demands import in_bytes

YAML = "space: {family: vit, preset: small}\ntrain: {steps: 100}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the experiment `e.yaml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.yaml").write_text(YAML, "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "train.batch_size=1000000000",
            "--set: train.batch_size: 1000000000 is out of range. Give at most 16,777",
        ),
        ("train.batch_size=10000", "e.yaml: train.batch_size: 10000 is more than the 1,154 training examples."),
        ("evaluation.batch_size=1000000000", "--set: evaluation.batch_size: 1000000000 is out of range."),
        ("evaluation.calibration_batches=1000000000000000", "evaluation.calibration_batches: 1000000000000000 is out"),
        ("evaluation.calibration_batches=900000", "calibration_batches: 900000 read 230,400,000 images, of 1,154"),
        (
            "train.optimizer.learning_rate=1.0e+27",
            "train.optimizer.learning_rate: 1e+27 is out of range. Give",
        ),
        ("train.optimizer.clip_norm=1.0e+300", "train.optimizer.clip_norm: 1e+300 is out of range."),
        ("train={epochs: 1000000000}", "train.epochs: 1000000000 are 18,031,250,000 steps."),
        ("train.distillation.temperature=1.0e-300", "train.distillation.temperature: 1e-300 is not in 0.001..1000."),
        ("data.train_limit=1", "--set: data.train_limit: 1 is out of range. Give at least 2."),
        ("data.augmentation={mixup: 1.0e+20}", "data.augmentation.mixup: 1e+20 is not the parameter of a Beta."),
        ("rank.panel=1000000", "--set: rank.panel: 1000000 is out of range. Give at most 100,000."),
        ("rank.bins=1000000", "--set: rank.bins: 1000000 is out of range."),
        ("rank.cache=''", "--set: rank.cache: '' is empty. Give a path."),
        ("search.population=1000000", "e.yaml: search.population: 1000000 is out of range. Give at most 100,000."),
        ("search.evaluations=1000000000", "--set: search.evaluations: 1000000000 is out of range."),
        ("sampler.random_paths=1000000000", "e.yaml: sampler.random_paths: 1000000000 is out of range."),
        ("sampler={type: complexity_aware, levels: 1000000}", "e.yaml: sampler.levels: more than 1,000 levels."),
        ("ray={elastic: [1, 1000000000]}", "--set: ray.elastic[1]: 1000000000 is out of range."),
        ("space.width=[1000000]", "e.yaml: space: training takes "),
    ],
)
def test_numbers_beyond_data_and_machine_are_refused(supernest: Any, here: Path, setting: str, expected: str) -> None:
    code, out, err = supernest("check", "e.yaml", "--set", setting)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected in err
    assert {path.name for path in here.iterdir()} == {"e.yaml"}


def test_memory_of_the_machine_bounds_what_is_read(supernest: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demands, "device_bytes", lambda: 5e6)
    _, _, err = supernest("check", "e.yaml", "--set", "evaluation.calibration_batches=100")
    assert "the inputs of 25,600 examples take 6.55 MB, and this machine has 5 MB. Give a smaller number." in err
    code, out, _ = supernest("check", "e.yaml")
    assert code == 0
    assert "warning   space.patch_size: 2 makes 16 tokens of images of 8 pixels" in out


def test_weights_that_the_sharing_scheme_adds_are_counted(
    supernest: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two blocks has matrices of 25 x 25 and 9 x 9 beside its weights."""
    (here / "m.yaml").write_text(
        "space: {family: mobilenet, preset: small, resolution: [8], depth: [1, 2], kernel: [3, 5, 7], expand: [1],\n"
        "  widths: [8], strides: [1], squeeze_excite: [false], activations: [relu], stem_width: 8, first_width: 8,\n"
        "  final_width: 8, feature_width: 8}\ntrain: {steps: 100, batch_size: 4}\n"
        "evaluation: {calibration_batches: 1, calibration_batch_size: 8}\n"
    )
    monkeypatch.setattr(demands, "device_bytes", lambda: 4 * 4 * 2000)  # of 2,000 weights, gradients and moments
    assert supernest("check", "m.yaml")[0] == 0
    code, _, err = supernest("check", "m.yaml", "--set", "supernet.sharing=kernel_transform")
    assert (code, err.count("\n")) == (2, 1)
    assert "weights of the supernet (sharing kernel_transform) with gradients and moments, and this machine" in err


def test_small_patches_of_large_pictures_are_warned_of_with_a_size_that_would_do(supernest: Any, here: Path) -> None:
    images = np.zeros((8, 56, 56, 1), np.uint8)
    labels = np.arange(8) % 2
    np.savez(here / "a.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    arguments = ("--set", "data={source: npz, path: a.npz, validation_fraction: 0.5}")
    _, out, _ = supernest("check", "e.yaml", *arguments)
    assert "warning   space.patch_size: 2 makes 784 tokens of images of 56 pixels" in out
    assert "Patches of 4 make 196 tokens: --set space.patch_size=4" in out
    _, out, _ = supernest("check", "e.yaml", *arguments, "--set", "space.patch_size=4")
    assert "warning" not in out


def test_bytes_have_units() -> None:
    assert [in_bytes(count) for count in (0, 999, 1500, 15.3e9, 2e20)] == [
        "0 bytes", "999 bytes", "1.5 KB", "15.3 GB", "200 EB",
    ]  # fmt: skip
