"""Source `digits`: 1,797 handwritten digits of 8×8 pixels that come with scikit-learn; needs no download."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.arrays import array_examples
from experiments.data.source import SOURCES, Source, Splits

TEST_EVERY = 5

_TEMPLATE = """\
data:
  source: digits           # 1,797 pictures that need no download; supernest list sources
  validation_fraction: 0.2 # held out from training; search compares subnets on it
  augmentation: {crop: 1}  # also flip, mixup, cutmix
"""


@SOURCES.register("digits")
@dataclass(frozen=True)
class Digits(Source):
    """The digits of `sklearn.datasets.load_digits`, 10 classes, 8×8×1.

    Every fifth example of a class is in the test split, so the split is stratified and the same for every seed.

    References:
        E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.
    """

    template = _TEMPLATE

    def read(self) -> Splits:
        """Returns 1,442 training and 355 test examples."""
        levels, labels = _levels_and_labels()
        pixels = ((levels * 255 + 8) // 16).astype(np.uint8)  # 0..16 to 0..255, rounded in integers
        test = np.zeros(len(labels), bool)
        for label in range(10):
            test[np.flatnonzero(labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
        return Splits(
            where="digits",
            train=array_examples("digits", pixels[~test], labels[~test], 10),
            test=array_examples("digits", pixels[test], labels[test], 10),
            class_names=tuple(str(label) for label in range(10)),
        )


def _levels_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Returns grey levels 0 to 16, int64[1797, 8, 8], and classes, int64[1797].

    They are read from the file that scikit-learn's `load_digits` reads, as importing scikit-learn takes more than a
    second of the processor.
    """
    package = importlib.util.find_spec("sklearn")
    places = () if package is None else package.submodule_search_locations or ()
    for place in places:
        file = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, np.int64, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn.datasets import load_digits  # a version that keeps them elsewhere

    bunch: Any = load_digits()
    return np.asarray(bunch["images"]).astype(np.int64), np.asarray(bunch["target"]).astype(np.int64)
