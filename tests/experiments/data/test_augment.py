"""Tests of augmentation: what each operation does to pixels and targets, and that only the key decides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.augment import Augmentation, augment, normalise
from search_spaces.errors import UserError

B, H, W, C, CLASSES = 16, 12, 10, 3, 5
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
IMAGES = jnp.asarray(np.random.default_rng(0).integers(1, 256, (B, H, W, C), np.uint8))
LABELS = jnp.asarray(np.random.default_rng(1).integers(0, CLASSES, B), jnp.int32)
IDENTITY = (0.0,) * C, (1.0,) * C


@functools.partial(jax.jit, static_argnames=("settings", "smoothing", "mean", "std"))
def run(key, settings, images=IMAGES, labels=LABELS, smoothing=0.0, mean=MEAN, std=STD):
    return augment(key, images, labels, settings, CLASSES, smoothing, mean, std)


def raw(key, settings, images=IMAGES):
    """Returns augmented pixels as integers, and targets."""
    x, targets = run(key, settings, images, mean=IDENTITY[0], std=IDENTITY[1])
    return np.rint(np.asarray(x) * 255).astype(int), np.asarray(targets)


def keys(count: int):
    return jax.random.split(jax.random.key(7), count)


def test_normalise_is_its_formula():
    expected = (np.asarray(IMAGES) / 255 - MEAN) / STD
    x = normalise(IMAGES, MEAN, STD)
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, expected, atol=1e-5)  # values of at most 4, three fp32 roundings


def test_all_off_only_normalises_and_smooths():
    x, targets = run(jax.random.key(0), Augmentation(), smoothing=0.1)
    np.testing.assert_allclose(x, normalise(IMAGES, MEAN, STD), atol=1e-6)
    expected = np.eye(CLASSES)[np.asarray(LABELS)] * 0.9 + 0.1 / CLASSES
    np.testing.assert_allclose(targets, expected, atol=1e-6)


def test_flip_mirrors_about_half_of_the_images():
    flipped = 0
    for key in keys(20):
        images, _ = raw(key, Augmentation(flip=True))
        for image, original in zip(images, np.asarray(IMAGES), strict=True):
            mirrored = np.array_equal(image, original[:, ::-1])
            assert mirrored or np.array_equal(image, original)
            flipped += mirrored
    assert abs(flipped - 160) < 4 * 320**0.5 / 2  # 320 fair coins, four standard deviations


def test_crop_is_a_window_of_the_padded_image_and_every_window_occurs():
    border = 2
    padded = np.pad(np.asarray(IMAGES), ((0, 0), (border, border), (border, border), (0, 0)))
    seen = set()
    for key in keys(30):
        images, _ = raw(key, Augmentation(crop=border))
        for image, full in zip(images, padded, strict=True):
            corners = [
                (y, x)
                for y in range(2 * border + 1)
                for x in range(2 * border + 1)
                if np.array_equal(full[y : y + H, x : x + W], image)
            ]
            assert len(corners) == 1
            seen.update(corners)
    assert len(seen) == 25  # 480 draws of 25: one is missed with probability 25·(24/25)^480 < 1e-7


def test_crop_and_flip_of_an_example_depend_on_its_position_alone():
    settings = Augmentation(crop=3, flip=True)
    whole, _ = raw(jax.random.key(3), settings)
    part, _ = raw(jax.random.key(3), settings, IMAGES[:5])
    assert np.array_equal(whole[:5], part)


def partners_of(targets, share):
    """Returns the permutation that explains the targets of labels that are all different."""
    rest = targets - share * np.eye(CLASSES)
    return rest.argmax(1)


def test_mixup_blends_images_and_targets_alike():
    images, labels = IMAGES[:CLASSES], jnp.arange(CLASSES)
    blended = 0
    for key in keys(20):
        x, targets = run(key, Augmentation(mixup=1.0), images, labels)
        targets = np.asarray(targets)
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
        moved = np.flatnonzero(targets.diagonal() < 1 - 1e-6)
        if not len(moved):
            continue  # the permutation was the identity
        share = targets[moved[0], moved[0]]
        partner = partners_of(targets, share)
        assert sorted(partner) == list(range(CLASSES))
        plain = np.asarray(normalise(images, MEAN, STD))
        np.testing.assert_allclose(x, share * plain + (1 - share) * plain[partner], atol=1e-5)
        blended += 1
    assert blended > 10


def test_cutmix_pastes_a_box_whose_area_is_the_weight_of_the_other_label():
    images = jnp.asarray(
        np.broadcast_to(np.arange(1, CLASSES + 1, dtype=np.uint8)[:, None, None, None], (CLASSES, H, W, C))
    )
    labels = jnp.arange(CLASSES)
    areas = []
    for key in keys(40):
        x, targets = run(key, Augmentation(cutmix=1.0), images, labels, mean=IDENTITY[0], std=IDENTITY[1])
        pixels, targets = np.rint(np.asarray(x) * 255).astype(int), np.asarray(targets)
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
        for label in range(CLASSES):
            counts = np.bincount(pixels[label, :, :, 0].ravel(), minlength=CLASSES + 1)[1:] / (H * W)
            np.testing.assert_allclose(targets[label], counts, atol=1e-6)
            other = pixels[label, :, :, 0] != label + 1
            if other.any():
                rows, columns = np.flatnonzero(other.any(1)), np.flatnonzero(other.any(0))
                assert other[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
                assert other.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
                areas.append(other.mean())
    assert len(set(areas)) > 10


def test_a_batch_takes_mixup_or_cutmix_each_half_of_the_time():
    images = jnp.asarray(np.repeat([[0], [255]], B // 2, 0)[:, :, None, None] * np.ones((1, H, W, C)), jnp.uint8)
    settings = Augmentation(mixup=1.0, cutmix=1.0)
    kinds = []
    for key in keys(200):
        pixels, targets = raw(key, settings, images)
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
        within = [np.ptp(image) > 0 for image in pixels]
        between = [0 < image.mean() < 255 and np.ptp(image) == 0 for image in pixels]
        assert not (any(within) and any(between))
        if any(within) or any(between):
            kinds.append(any(within))
    assert len(kinds) > 150  # the others had an empty or a whole box, or a share that rounds away
    assert abs(np.mean(kinds) - 0.5) < 0.2


def test_smoothing_survives_the_blend():
    _, targets = run(jax.random.key(1), Augmentation(mixup=0.8, cutmix=1.0), smoothing=0.1)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    assert targets.min() >= 0.1 / CLASSES - 1e-6


def test_only_the_key_decides():
    settings = Augmentation(crop=2, flip=True, mixup=0.2, cutmix=1.0)
    first, again, other = (run(jax.random.key(seed), settings) for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)


def test_one_program_serves_every_key():
    traces = []

    @jax.jit
    def step(key):
        traces.append(key)
        return augment(key, IMAGES, LABELS, Augmentation(crop=1, flip=True, mixup=0.5), CLASSES, 0.0, MEAN, STD)

    for key in keys(3):
        step(key)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop", -1),
        ("crop", 1.5),
        ("crop", True),
        ("flip", "yes"),
        ("flip", 1),
        ("mixup", -0.1),
        ("mixup", float("nan")),
        ("mixup", "0.2"),
        ("cutmix", float("inf")),
        ("cutmix", True),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(UserError, match=rf"^augmentation\.{name}: .*Set .*\.$"):
        Augmentation(**{name: value})


def test_a_border_as_large_as_the_image_is_refused():
    with pytest.raises(UserError, match=r"augmentation\.crop: 10 is not less than the image"):
        run(jax.random.key(0), Augmentation(crop=10))
