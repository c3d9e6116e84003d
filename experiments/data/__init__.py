"""Data: sources of images and of text (one file each), splits, batch order, augmentation, tokenizers.

`SOURCES[name](**settings).load(seed, validation_fraction)` gives a `Dataset`; a source is a frozen dataclass of its
settings, registered under the name that an experiment file uses. Search reads the validation split. The test split is
read once, at export.
"""

from experiments.data.dataset import Dataset, Split
from experiments.data.examples import Examples
from experiments.data.images import ImageDataset
from experiments.data.source import SOURCES, AnySource, Source, load

__all__ = ["SOURCES", "AnySource", "Dataset", "Examples", "ImageDataset", "Source", "Split", "load"]
