"""ImageDataset: labelled images in three splits, normalised by the training split, augmented on the device."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.augment import Augmentation, augment, normalise
from experiments.data.dataset import Dataset, MakeBatch, Split
from experiments.data.examples import Examples
from experiments.records.plain import JsonObject
from search_spaces import SearchSpace, UserError
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key
from supernet.export.subnet import Subnet
from supernet.tasks.classes import CLASSES
from supernet.tasks.images import Preprocessing


@dataclass(frozen=True, eq=False)
class ImageDataset(Dataset[Examples]):
    """Images of one shape, each of one class.

    Args:
        train: As in `Dataset`.
        validation: Likewise.
        test: Likewise.
        image_shape: (height, width, channels).
        classes: Number of classes.
        class_names: Name of each class, in label order.
        mean: Per channel, of the training pixels scaled to 0..1.
        std: Per channel, likewise.
        notes: As in `Dataset`.
        fingerprint: As in `Dataset`; over shapes, labels and pixels, or over names and sizes where images are files.
    """

    inputs = "images"
    outputs = CLASSES
    tokenizer = None
    bos = False

    train: Examples
    validation: Examples
    test: Examples
    image_shape: tuple[int, int, int]
    classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()

    def settings(self, names: Collection[str]) -> JsonObject:
        """See `Dataset.settings`: image size, channels and classes."""
        height, width, channels = self.image_shape
        if "image_size" in names and height != width:
            raise UserError(
                f"data: images of {height} by {width} pixels; space.family takes squares. Crop or pad them."
            )
        sizes = {
            "input_shape": self.image_shape, "image_size": height, "channels": channels, "classes": self.classes,
        }  # fmt: skip
        return {name: value for name, value in sizes.items() if name in names}

    def _of_network(self, subnet: Subnet) -> dict[str, Any]:
        """See `Dataset.for_network`: normalisation and classes."""
        own = subnet.preprocessing
        assert isinstance(own, Preprocessing)
        labels = tuple(subnet.config["labels"])
        return {"mean": own.mean, "std": own.std, "classes": len(labels), "class_names": labels}

    @property
    def chance(self) -> float:
        """See `Dataset.chance`."""
        return 1 - 1 / self.classes

    @cached_property
    def _normalise(self) -> Any:
        return jax.jit(lambda images: normalise(images, self.mean, self.std))

    def prepared(self, examples: np.ndarray) -> jax.Array:
        """See `Dataset.prepared`: normalised."""
        return self._normalise(jnp.asarray(examples))

    def batches(
        self, seed: int, augmentation: Augmentation, label_smoothing: float, architecture: bool = False
    ) -> MakeBatch:
        """See `Dataset.batches`: augmented images, and distributions over the classes."""
        of_steps = key(seed, Purpose.ARCHITECTURE_AUGMENTATION if architecture else Purpose.AUGMENTATION)
        augmented = jax.jit(
            lambda step, images, labels: augment(
                jax.random.fold_in(of_steps, step), images, labels, augmentation, self.classes, label_smoothing,
                self.mean, self.std,
            )
        )  # fmt: skip

        def make(step: int, split: Split, rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
            return augmented(step, *split.read(rows))

        return make

    def preprocessing(self, space: SearchSpace, example: jax.ShapeDtypeStruct) -> Preprocessing:
        """See `Dataset.preprocessing`."""
        height, width, _ = example.shape
        return Preprocessing((height, width), self.mean, self.std, self.train.store.background)

    def describe(self) -> JsonObject:
        """See `Dataset.describe`."""
        return {"image_shape": list(self.image_shape), "classes": self.classes}

    @property
    def examples_text(self) -> str:
        """See `Dataset.examples_text`."""
        return f"images of {'x'.join(map(str, self.image_shape))}, {self.classes} classes"
