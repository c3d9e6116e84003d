"""The section `data`: a data source, how its examples are split, and what is done to training images."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer

from experiments.configuration.plugin_section import PluginSection, as_mapping, build_settings
from experiments.data import SOURCES, AnySource, Dataset, Source, Split
from experiments.data.augment import Augmentation
from experiments.user_input.paths import path_fault, shown
from experiments.user_input.problems import Problem, ProblemsError
from search_spaces import Registry
from search_spaces.sealed_json import JsonObject
from supernet.tasks.task import TASKS

Augmented = Annotated[
    InstanceOf[Augmentation], BeforeValidator(lambda v: build_settings(Augmentation, v)), PlainSerializer(as_mapping)
]


class DataSection(PluginSection):
    """Data source and split, and what is done to training images.

    Attributes:
        source: Name of a registered source; its settings are given beside this key.
        validation_fraction: Share of the training examples that search ranks subnets by; in (0, 1). Not used if the
            source has its own validation split.
        hold_out: Hold out that share even if the source has a validation split, which is then not used.
        train_limit: Largest number of training examples; null for all.
        augmentation: Random changes of training images.
    """

    selector: ClassVar[str] = "source"

    source: str = "digits"
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    hold_out: bool = False
    train_limit: Annotated[int, Field(ge=2, le=10**9)] | None = None
    augmentation: Augmented = Augmentation()

    @classmethod
    def registry(cls) -> Registry[Any]:
        return SOURCES

    @classmethod
    def _located(cls, plugin: Any, settings: JsonObject, directory: Path | None) -> JsonObject:
        if directory is None:
            return settings
        located = {name: _located(directory, settings, name, plugin.names) for name in plugin.paths if name in settings}
        return {**settings, **located}

    def build(self) -> AnySource:
        """Builds the source.

        Raises:
            UserError: The source refuses a setting.
        """
        return self.plugin(**self.settings)

    def load(self, seed: int) -> Dataset:
        """Reads, checks and splits the data.

        Raises:
            UserError: Something is missing, corrupt or cannot be split as wanted.
        """
        return self.build().load(seed, self.validation_fraction, self.train_limit, self.hold_out)

    def split_identity(self, data: Dataset, seed: int) -> str:
        """Returns the hash of all that decides which examples are held out.

        Networks that were trained with one hash have not seen the validation and test examples of each other. Where the
        data lie, how many examples are trained on and how these are changed do not count.

        Args:
            data: The data, as `load` gives them.
            seed: The seed that they were loaded with.
        """
        settings = {name: value for name, value in self.settings.items() if name not in self.plugin.paths}
        decides = {
            "source": self.source, "settings": settings, "fingerprint": data.fingerprint, "seed": seed,
            "validation_fraction": self.validation_fraction, "hold_out": self.hold_out,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def load_split(self, seed: int, split: str) -> tuple[Split, tuple[str, ...], str]:
        """Reads one split, its class names and the name of an example; a test split needs no other data.

        Raises:
            UserError: Something is missing, corrupt or cannot be split as wanted.
        """
        source = self.build()
        if split == "test" and isinstance(source, Source):
            return *source.read_test(), TASKS[source.inputs].unit
        data = self.load(seed)
        return getattr(data, split), data.class_names, data.unit


def _located(directory: Path, settings: Mapping[str, Any], name: str, names: Collection[str]) -> Any:
    """A path as an absolute one; one of `names` that is no path here stays what it is."""
    given = settings[name]
    if not isinstance(given, str):
        return given
    fault = path_fault(given)
    if fault is not None:
        raise ProblemsError([Problem((name,), f"{shown(given)} {fault}")])
    path = Path(directory, Path(given).expanduser())
    return given if name in names and not path.exists() else os.path.normpath(path)
