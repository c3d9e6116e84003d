"""Augmentation on the device: crop, flip, mixup and cutmix as one pure function of a key, to be called under `jit`."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int, PRNGKeyArray, UInt8

from search_spaces.errors import UserError

Pixels = UInt8[Array, "b height width channels"]
Inputs = Float32[Array, "b height width channels"]
Targets = Float32[Array, "b c"]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images; hashable, so it can be a static argument of `jit`.

    Args:
        crop: Number of black pixels added on each side before a crop of the original size at a random place.
        flip: Mirror images left to right with probability 1/2.
        mixup: Parameter a of the distribution Beta(a, a) of one image's share in a blend with another of the batch; 0
            is off.
        cutmix: Parameter a of the distribution Beta(a, a) of one image's share of the area; a box of another image
            fills the rest. 0 is off. With mixup on too, each batch uses one of the two with probability 1/2.

    Raises:
        UserError: A value is of the wrong type or negative.

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2017, arXiv:1710.09412.
        Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", 2019,
        arXiv:1905.04899. An odd box keeps its full size here; theirs loses a pixel.
    """

    crop: int = 0
    flip: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.crop, bool) or not isinstance(self.crop, int) or not 0 <= self.crop <= 2**14:
            raise UserError(f"augmentation.crop: {self.crop!r} is not a number of pixels. Set 0 (off) or more.")
        if not isinstance(self.flip, bool):
            raise UserError(f"augmentation.flip: {self.flip!r} is not true or false. Set one of them.")
        for name, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= 1000:
                raise UserError(f"augmentation.{name}: {value!r} is not the parameter of a Beta. Set 0 (off) or more.")

    def refuse_for(self, kind: str) -> None:
        """Refuses changes of images for data of another kind.

        Args:
            kind: What the data are, in the message.

        Raises:
            UserError: Something is to be changed.
        """
        if self != Augmentation():
            raise UserError(f"data.augmentation: changes images, and the data are {kind}. Leave it out.")


def normalise(images: Pixels, mean: Sequence[float], std: Sequence[float]) -> Inputs:
    """Returns pixels scaled to 0..1, minus the mean, over the standard deviation of their channel.

    Args:
        images: uint8[b, height, width, channels].
        mean: Per channel, of pixels scaled to 0..1.
        std: Per channel, likewise.
    """
    return (images.astype(jnp.float32) / 255 - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def augment(
    key: PRNGKeyArray,
    images: Pixels,
    labels: Int[Array, " b"],
    settings: Augmentation,
    classes: int,
    label_smoothing: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[Inputs, Targets]:
    """Returns augmented, normalised inputs and the distribution over classes that each stands for.

    Crop and flip of example i follow from (key, i), whatever the size of the batch; the blend follows from the key.

    Args:
        key: The only source of randomness.
        images: uint8[b, height, width, channels].
        labels: Classes, integers[b].
        settings: Settings of the changes; static.
        classes: Number of classes; static.
        label_smoothing: Share of each target, in [0, 1), that is spread evenly over all classes.
        mean: Per channel, of pixels scaled to 0..1.
        std: Per channel, likewise.

    Raises:
        UserError: The crop's border is as large as the image, which could then vanish.
    """
    each, blend = jax.random.split(key)
    x = normalise(_crop_and_flip(each, images, settings), mean, std)
    targets = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    targets = targets * (1 - label_smoothing) + label_smoothing / classes
    if not settings.mixup and not settings.cutmix:
        return x, targets
    permutation_key, share_key = jax.random.split(blend)
    partner = jax.random.permutation(permutation_key, x.shape[0])
    mask = _share(share_key, x.shape[1], x.shape[2], settings)
    share = mask.mean()
    mask = mask[None, :, :, None]
    # The blended images are normalised already: the shares sum to one at each pixel, so the order does not matter.
    return mask * x + (1 - mask) * x[partner], share * targets + (1 - share) * targets[partner]


def _crop_and_flip(key: PRNGKeyArray, images: Pixels, settings: Augmentation) -> Pixels:
    border, shape = settings.crop, images.shape[1:]
    if border >= min(shape[:2]):
        raise UserError(
            f"augmentation.crop: {border} is not less than the image ({shape[0]} x {shape[1]}). Set fewer pixels."
        )
    if not border and not settings.flip:
        return images

    def one(position: Array, image: Array) -> Array:
        crop_key, flip_key = jax.random.split(jax.random.fold_in(key, position))
        if border:
            corner = jax.random.randint(crop_key, (2,), 0, 2 * border + 1)
            padded = jnp.pad(image, ((border, border), (border, border), (0, 0)))
            image = jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), shape)
        if settings.flip:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        return image

    return jax.vmap(one)(jnp.arange(images.shape[0]), images)


def _share(key: PRNGKeyArray, height: int, width: int, settings: Augmentation) -> Float32[Array, "height width"]:
    """Returns how much of each pixel is the image's own: one number for mixup, 0 inside a box and 1 outside for cutmix.

    One draw from a Beta serves both, because each costs a second to compile.
    """
    which, share_key, box_key = jax.random.split(key, 3)
    both = settings.mixup > 0 and settings.cutmix > 0
    cut = jax.random.bernoulli(which) if both else jnp.asarray(settings.cutmix > 0)
    alpha = jnp.where(cut, settings.cutmix, settings.mixup)
    share = jax.random.beta(share_key, alpha, alpha)
    return jnp.where(cut, _outside_box(box_key, height, width, share), share)


def _outside_box(
    key: PRNGKeyArray, height: int, width: int, share: Float32[Array, ""]
) -> Float32[Array, "height width"]:
    """Returns 1 outside and 0 inside a box of the image's aspect ratio and area 1 - share, less where it is cut off."""
    side = jnp.sqrt(1 - share)
    row_key, column_key = jax.random.split(key)

    def inside(centre_key: PRNGKeyArray, length: int) -> Array:
        box = jnp.floor(length * side).astype(jnp.int32)
        start = jax.random.randint(centre_key, (), 0, length) - box // 2
        position = jnp.arange(length)
        return (position >= start) & (position < start + box)

    box = inside(row_key, height)[:, None] & inside(column_key, width)[None, :]
    return 1 - box.astype(jnp.float32)
