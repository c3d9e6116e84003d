"""Tests of what holds for every data source: splits, limits, statistics, fingerprints, and their refusals."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data import SOURCES, load
from experiments.data.arrays import array_examples, checked_labels, class_names_of
from experiments.data.digits import Digits
from experiments.data.source import AnySource, Source, Splits
from experiments.data.splits import proportional_counts
from search_spaces.errors import UserError


@dataclasses.dataclass(frozen=True)
class Made(Source):
    """A source over arrays made up by a test; the first pixel of each training image is its number."""

    sizes: tuple[int, ...] = (40, 20, 10)
    own_validation: bool = False
    test_side: int = 4
    noise: int = 0

    def read(self) -> Splits:
        labels = np.repeat(np.arange(len(self.sizes)), self.sizes)
        names = tuple(f"class {label}" for label in range(len(self.sizes)))
        pixels = np.random.default_rng(self.noise).integers(0, 256, (len(labels), 4, 4, 2), np.uint8)
        pixels[:, 0, 0, 0] = np.arange(len(labels))
        test_labels = np.arange(len(self.sizes))
        side = self.test_side
        test = array_examples("made", np.zeros((len(names), side, side, 2), np.uint8), test_labels, len(names))
        own = array_examples("made", np.ones((len(names), 4, 4, 2), np.uint8), test_labels, len(names))
        return Splits(
            "made",
            array_examples("made", pixels, labels, len(names)),
            test,
            names,
            own if self.own_validation else None,
        )


def numbers(examples) -> list[int]:
    return examples.images(np.arange(len(examples)))[:, 0, 0, 0].tolist()


def refused(action, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_every_source_is_a_frozen_dataclass():
    assert {"cifar", "digits", "folder", "huggingface", "idx", "npz", "text"} <= set(SOURCES)
    for source in SOURCES.values():
        assert issubclass(source, AnySource)
        assert dataclasses.is_dataclass(source)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SOURCES["npz"]("a").path = "b"  # type: ignore[call-arg, attr-defined, misc]


def test_digits_are_exact_and_their_test_split_ignores_the_seed():
    from sklearn.datasets import load_digits

    first, second = (Digits().load(seed, 0.1) for seed in (0, 1))
    assert (len(first.train), len(first.validation), len(first.test)) == (1298, 144, 355)
    assert (first.image_shape, first.classes, first.class_names[9]) == ((8, 8, 1), 10, "9")
    everything = np.concatenate(
        [split.images(np.arange(len(split))) for split in (first.train, first.validation, first.test)]
    )
    original = np.rint(load_digits(return_X_y=True)[0] * (255 / 16)).astype(np.uint8)
    assert sorted(map(bytes, everything.reshape(1797, 64))) == sorted(map(bytes, original))
    shares = np.bincount(first.test.labels) / np.bincount(
        np.concatenate([first.train.labels, first.validation.labels, first.test.labels])
    )
    assert shares.min() > 0.19
    assert shares.max() <= 0.2
    assert np.array_equal(first.test.images(np.arange(355)), second.test.images(np.arange(355)))
    assert not np.array_equal(first.train.rows, second.train.rows)
    assert first.fingerprint == second.fingerprint


def test_validation_is_stratified_disjoint_and_from_the_seed():
    data, same, other = (Made().load(seed, 0.2) for seed in (5, 5, 6))
    assert np.bincount(data.validation.labels).tolist() == [8, 4, 2]
    assert np.bincount(data.train.labels).tolist() == [32, 16, 8]
    assert sorted(numbers(data.train) + numbers(data.validation)) == list(range(70))
    labels = np.repeat([0, 1, 2], [40, 20, 10])
    for split in (data.train, data.validation):
        assert split.labels.tolist() == labels[numbers(split)].tolist()
    assert numbers(data.validation) == numbers(same.validation)
    assert numbers(data.validation) != numbers(other.validation)


def test_a_validation_split_of_the_source_is_kept():
    data = Made(own_validation=True).load(0, 0.5)
    assert len(data.train) == 70
    assert (data.validation.images(np.arange(3)) == 1).all()


def test_train_limit_is_stratified_and_leaves_validation_alone():
    whole, few = Made().load(3, 0.2), Made().load(3, 0.2, train_limit=14)
    assert np.bincount(few.train.labels).tolist() == [8, 4, 2]
    assert set(numbers(few.train)) < set(numbers(whole.train))
    assert numbers(few.validation) == numbers(whole.validation)
    assert numbers(load(Made(), 3, 0.2, train_limit=1000).train) == numbers(whole.train)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.floats(0, 1))
def test_proportional_counts_share_all_of_the_total(sizes, share):
    sizes = np.asarray(sizes)
    total = round(share * int(sizes.sum()))
    counts = proportional_counts(sizes, total)
    assert counts.sum() == total
    assert (np.abs(counts - sizes * total / sizes.sum()) < 1).all()


def test_statistics_are_of_the_training_split_alone():
    data = Made().load(0, 0.2)
    pixels = data.train.images(np.arange(len(data.train))) / 255
    # Sums of 56 × 16 pixels in float64 are off by less than 1e-12; the figures themselves are exact.
    np.testing.assert_allclose(data.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std((0, 1, 2)), rtol=1e-12)


def test_a_constant_channel_has_deviation_one():
    examples = array_examples("x", np.full((3, 2, 2), 51, np.uint8), np.array([0, 1, 1]), 2)
    assert examples.statistics == ((51 / 255,), (1.0,))


def test_fingerprint_changes_with_a_pixel_a_label_or_a_shape_and_not_with_the_seed():
    fingerprint = Made().load(0, 0.2).fingerprint
    assert len(fingerprint) == 64
    assert Made().load(1, 0.3).fingerprint == fingerprint
    others = Made(noise=1), Made(sizes=(41, 19, 10)), Made(own_validation=True)
    assert len({fingerprint, *(other.load(0, 0.2).fingerprint for other in others)}) == 4


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_validation_fraction_must_lie_between_0_and_1(fraction):
    refused(lambda: Made().load(0, fraction), "data.validation_fraction", "between 0 and 1")


@pytest.mark.parametrize(("fraction", "split"), [(0.02, "validation"), (0.98, "training")])
def test_a_fraction_that_leaves_a_class_empty_is_refused(fraction, split):
    refused(
        lambda: Made().load(0, fraction), f"validation_fraction {fraction}", "class 1", f"without a {split} example"
    )


@pytest.mark.parametrize("limit", [0, -1, 2])
def test_a_train_limit_that_leaves_a_class_empty_is_refused(limit):
    refused(lambda: Made().load(0, 0.2, train_limit=limit), f"train_limit {limit}", "class")


def test_sources_that_cannot_be_learned_from_are_refused():
    refused(lambda: Made(sizes=(5,)).load(0, 0.2), "holds 1 class")
    refused(lambda: Made(sizes=(5, 0, 5)).load(0, 0.2), "class 1", "no training example")
    refused(lambda: Made(test_side=5).load(0, 0.2), "(5, 5, 2)", "(4, 4, 2)", "one size")


@pytest.mark.parametrize(
    ("images", "part"),
    [
        (np.zeros((2, 3, 3), np.float32), "images are float32; expected uint8"),
        (np.zeros((2, 9), np.uint8), "shape [2, 9]"),
        (np.zeros((2, 3, 32, 32), np.uint8), "channels last"),
        (np.zeros((2, 0, 3), np.uint8), "shape [2, 0, 3]"),
        (np.zeros((3, 3, 3), np.uint8), "3 images but 2 labels"),
    ],
)
def test_images_of_the_wrong_type_rank_size_or_count_are_refused(images, part):
    refused(lambda: array_examples("here", images, np.array([0, 1]), 2), "here: ", part)


def test_labels_out_of_range_are_refused():
    refused(lambda: checked_labels("here", np.array([0, 1, 7]), 2), "here: label 7 of example 2 is outside 0..1")
    refused(lambda: checked_labels("here", np.array([0, -1]), 2), "label -1")
    refused(lambda: checked_labels("here", np.array([0.0, 1.0]), 2), "float64")
    refused(lambda: checked_labels("here", np.zeros((2, 2), int), 2), "[2, 2]")
    refused(lambda: class_names_of("here", np.array([0, 2, 2]), ()), "without a gap")
    refused(lambda: class_names_of("here", np.array([1, 2]), ()), "from 1 to 2; expected 0 to 1")
    refused(lambda: class_names_of("here", np.array([], int), ()), "no label")
    refused(lambda: class_names_of("here", np.array(["a"]), ()), "integers")
