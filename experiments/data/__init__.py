"""Image data: sources (one file each), splits from the seed, batch order, augmentation.

`load(source, seed, validation_fraction)` gives a `Dataset`; a source is a frozen dataclass of its settings, registered
in `SOURCES` under the name that an experiment file uses. Search reads the validation split. The test split is read
once, at export.
"""

from experiments.data.examples import Examples
from experiments.data.source import SOURCES, Dataset, Source, load

__all__ = ["SOURCES", "Dataset", "Examples", "Source", "load"]
