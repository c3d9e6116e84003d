"""ArrayDataset: float arrays of one shape in three splits, standardised by the training split; classes or numbers."""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int, Shaped

from experiments.data.augment import Augmentation
from experiments.data.class_names import class_numbers
from experiments.data.dataset import Dataset, MakeBatch, Split
from experiments.records.plain import JsonObject
from search_spaces import SearchSpace, UserError
from search_spaces.errors import did_you_mean
from supernet.export.subnet import Subnet
from supernet.tasks.arrays import Standardised
from supernet.tasks.numbers import Numbers
from supernet.tasks.outputs import Outputs

Arrays = Float32[np.ndarray, "n ..."]


@dataclass(frozen=True, eq=False)
class ArraySplit(Split):
    """Arrays with labels.

    Args:
        x: float32[n, ..., features].
        labels: Classes, int32[n]; or numbers, float64[n, c].
        features: Name of each entry along the last axis.
        targets: Name of each number to predict; none where labels are classes.
    """

    x: Arrays
    labels: Shaped[np.ndarray, "n ..."]
    features: tuple[str, ...]
    targets: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def of_classes(self) -> bool:
        """Whether labels are classes, not numbers."""
        return self.labels.dtype.kind == "i"

    @property
    def strata(self) -> Int[np.ndarray, " n"]:
        """See `Split.strata`."""
        return self.labels if self.of_classes else super().strata

    def read(self, rows: Int[np.ndarray, " n"]) -> tuple[Arrays, Shaped[np.ndarray, "n ..."]]:
        """See `Split.read`."""
        return self.x[rows], self.labels[rows]

    def take(self, indices: Int[np.ndarray, " n"]) -> "ArraySplit":
        """See `Split.take`."""
        return dataclasses.replace(self, x=self.x[indices], labels=self.labels[indices])

    def for_network(self, where: str, class_names: Sequence[str], subnet: Subnet) -> "ArraySplit":
        """See `Split.for_network`: classes, features and targets are matched by name."""
        known, outputs, x, labels = subnet.preprocessing, subnet.outputs, self.x, self.labels
        features, targets = self.features, self.targets
        if isinstance(known, Standardised) and known.names != features:
            x = x[..., _columns(where, "feature", "takes", known.names, features)]
            features = known.names
        if self.of_classes != bool(subnet.config["labels"]):
            have, wants = ("classes", "numbers") if self.of_classes else ("numbers", "classes")
            raise UserError(f"{where}: labels are {have}, and the network predicts {wants}. Set data.labels: {wants}.")
        if isinstance(outputs, Numbers) and outputs.names != targets:
            labels = labels[:, _columns(where, "target", "predicts", outputs.names, targets)]
            targets = outputs.names
        if self.of_classes and class_names:
            labels = class_numbers(where, class_names, subnet.config["labels"])[labels]
        return ArraySplit(x, labels, features, targets)


def _columns(where: str, kind: str, verb: str, wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Returns where each wanted name stands among `names`; kind and verb name a missing one in the message."""
    missing = next((name for name in wanted if name not in names), None)
    if missing is not None:
        raise UserError(f"{where}: no {kind} {missing!r}, which the network {verb}.{did_you_mean(missing, names)}")
    return [names.index(name) for name in wanted]


@dataclass(frozen=True, eq=False)
class ArrayDataset(Dataset[ArraySplit]):
    """Arrays of one shape.

    Args:
        train: As in `Dataset`.
        validation: Likewise.
        test: Likewise.
        outputs: As in `Dataset`: classes, or numbers.
        class_names: Name of each class; none where labels are numbers.
        mean: Mean of each feature, over the training split.
        std: Likewise.
        fingerprint: As in `Dataset`.
        notes: As in `Dataset`.
    """

    inputs = "arrays"
    tokenizer = None
    bos = False

    train: ArraySplit
    validation: ArraySplit
    test: ArraySplit
    outputs: Outputs
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an example."""
        return self.train.x.shape[1:]

    @property
    def targets(self) -> tuple[str, ...]:
        """Name of each number to predict; none where labels are classes."""
        return self.train.targets

    def settings(self, names: Collection[str]) -> JsonObject:
        """See `Dataset.settings`: the shape of an example, its features, and how many outputs a network has."""
        sizes = {
            "input_shape": self.shape,
            "features": self.shape[-1],
            "channels": self.shape[-1],
            "classes": len(self.class_names) or len(self.targets),
        }
        if "image_size" in names:
            if len(self.shape) != 3 or self.shape[0] != self.shape[1]:
                shown = "x".join(map(str, self.shape))
                raise UserError(f"data: arrays of {shown}; space.family takes squares with channels. Crop or pad them.")
            sizes["image_size"] = self.shape[0]
        return {name: value for name, value in sizes.items() if name in names}

    def _of_network(self, subnet: Subnet) -> dict[str, Any]:
        """See `Dataset.for_network`: statistics of features and targets, and classes."""
        own = subnet.preprocessing
        assert isinstance(own, Standardised)
        labels = tuple(subnet.config["labels"])
        return {"mean": own.mean, "std": own.std, "outputs": subnet.outputs, "class_names": labels}

    @property
    def chance(self) -> float:
        """See `Dataset.chance`: of the commonest class, or of the mean."""
        if self.train.of_classes:
            return 1 - float(np.bincount(self.train.labels).max()) / len(self.train)
        wrong = self.outputs.encode(self.validation.labels).astype(np.float64)
        return float(self.outputs.figure_of(np.mean(wrong**2)))

    @cached_property
    def _standardise(self) -> Any:
        return jax.jit(Standardised(self.train.features, self.mean, self.std))

    def prepared(self, examples: np.ndarray) -> jax.Array:
        """See `Dataset.prepared`: standardised."""
        return self._standardise(jnp.asarray(examples))

    def batches(
        self, seed: int, augmentation: Augmentation, label_smoothing: float, architecture: bool = False
    ) -> MakeBatch:
        """See `Dataset.batches`: nothing is drawn."""
        augmentation.refuse_for("arrays")
        if label_smoothing and not self.train.of_classes:
            raise UserError(f"train.label_smoothing: {label_smoothing}, but the labels are numbers. Set 0.")
        count = len(self.class_names)

        def make(step: int, split: Split, rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
            x, labels = split.read(rows)
            targets = jnp.asarray(self.outputs.encode(labels))
            if label_smoothing:
                targets = jax.nn.one_hot(targets, count) * (1 - label_smoothing) + label_smoothing / count
            return self.prepared(x), targets

        return make

    def preprocessing(self, space: SearchSpace, example: jax.ShapeDtypeStruct) -> Standardised:
        """See `Dataset.preprocessing`."""
        return Standardised(self.train.features, self.mean, self.std)

    def describe(self) -> JsonObject:
        """See `Dataset.describe`."""
        found: dict[str, Any] = {"shape": list(self.shape)}
        return {**found, "classes": len(self.class_names)} if self.class_names else {**found, "targets": self.targets}

    @property
    def examples_text(self) -> str:
        """See `Dataset.examples_text`."""
        shape = "x".join(map(str, self.shape))
        if self.class_names:
            return f"arrays of {shape}, {len(self.class_names)} classes"
        return f"arrays of {shape}, to predict {', '.join(self.targets)}"
