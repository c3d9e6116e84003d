"""Lineage: which supernet an exported network descends from, and on what its weights were trained.

Exports, what is finetuned from them and soups of these keep it in `report.json`. Networks of one parent began with the
same weights wherever they overlap, so their average means something; and only where none of them was trained on
examples that are held out now can the average be judged on these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from experiments.configuration.data_section import DataSection
from experiments.data import Dataset
from experiments.records.plain import JsonObject
from search_spaces import UserError
from search_spaces.sealed_json import read_json
from supernet.export.subnet import REPORT

LINEAGE = "lineage"
"""Key of the report that holds it."""
_REMEDY = "Export it again from its run."


@dataclass(frozen=True)
class TrainedOn:
    """Data that weights were trained on.

    Attributes:
        data: Fingerprint of the data.
        split: Hash of all that decides which of them were held out (`DataSection.split_identity`).
    """

    data: str
    split: str

    @classmethod
    def of(cls, section: DataSection, data: Dataset, seed: int) -> Self:
        """Describes data as they were loaded with a seed."""
        return cls(data.fingerprint, section.split_identity(data, seed))


@dataclass(frozen=True)
class Lineage:
    """Ancestry of an exported network: the run, and the data that each training saw.

    Attributes:
        parent: Identity of the supernet that the network, or the one that it was finetuned from, was cut from: hashes
            of its `config` and `weights`.
        trained_on: Data of all trainings, the first one first; of a mean those of all its networks, the one that they
            have in common last.
    """

    parent: Mapping[str, str]
    trained_on: tuple[TrainedOn, ...]

    def then(self, data: TrainedOn) -> "Lineage":
        """Returns the lineage after a further training."""
        return self if data == self.trained_on[-1] else replace(self, trained_on=(*self.trained_on, data))

    @staticmethod
    def of_mean(lineages: "Sequence[Lineage]") -> "Lineage":
        """Returns the lineage of the mean of networks that have one parent and were last trained on the same data.

        Args:
            lineages: Lineages of the networks, at least one.
        """
        first = lineages[0]
        if all(one == first for one in lineages):
            return first
        last = first.trained_on[-1]
        earlier = dict.fromkeys(data for one in lineages for data in one.trained_on if data != last)
        return replace(first, trained_on=(*earlier, last))

    def has_seen(self, data: TrainedOn) -> bool:
        """Returns whether a training had a split of the same data in which other examples were held out."""
        return any(before.data == data.data and before.split != data.split for before in self.trained_on)

    def as_json(self) -> JsonObject:
        """Returns the lineage as a report has it."""
        return asdict(self)

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Reads the lineage of an exported network; None where its report does not tell it.

        Raises:
            UserError: The report is damaged.
        """
        found = read_json(directory / REPORT, _REMEDY).get(LINEAGE)
        if found is None:
            return None
        try:
            trained = tuple(TrainedOn(str(one["data"]), str(one["split"])) for one in found["trained_on"])
            parent = {str(name): str(value) for name, value in found["parent"].items()}
        except (KeyError, TypeError, AttributeError):
            trained, parent = (), {}
        if not trained or not parent:
            raise UserError(f"{directory / REPORT}: {LINEAGE}: is damaged. {_REMEDY}")
        return cls(parent, trained)
