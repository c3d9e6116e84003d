"""The answer for a new budget from what a run has evaluated."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from experiments.records.exported import ExportedNetwork
from experiments.records.plain import JsonObject, plain


@dataclass(frozen=True)
class FoundSubnet:
    """An evaluated subnet, beside the limits of a budget.

    Attributes:
        architecture: Readable form.
        genes: Its genes.
        value: Figure that the search minimises, on the validation split.
        costs: Metric to cost.
        uses: Limited metric to the share of the limit that it uses; more than 1 is over.
    """

    architecture: Mapping[str, Any]
    genes: Sequence[int]
    value: float
    costs: Mapping[str, float]
    uses: Mapping[str, float]


@dataclass(frozen=True)
class OnDevice:
    """The device that costs are of.

    Attributes:
        name: Name in its file.
        batch_size: Batch size that latency and memory refer to.
    """

    name: str
    batch_size: int


@dataclass(frozen=True)
class Answer:
    """The best evaluated subnet for a budget, or the nearest one where none meets it.

    Attributes:
        budget: The budget as it was asked for.
        name: Name of the budget's export.
        limits: Metric to the most that is allowed.
        evaluated: Subnets that were evaluated.
        objective: Figure that the search minimises.
        within: Subnets that meet the budget.
        best: The best of these; None where there is none.
        nearest: The one nearest to the limits, where none meets them.
        device: The device that costs are of; None without one.
        subnet: The export; None where nothing was exported.
    """

    budget: str
    name: str
    limits: Mapping[str, float]
    evaluated: int
    objective: str
    within: int
    best: FoundSubnet | None = None
    nearest: FoundSubnet | None = None
    device: OnDevice | None = None
    subnet: ExportedNetwork | None = None

    def as_json(self) -> JsonObject:
        """Returns the answer as `supernest export --show --json` prints it."""
        found = {name: self._subnet_as_json(getattr(self, name)) for name in ("best", "nearest")}
        exported = {} if self.subnet is None else {"subnet": self.subnet.as_json()}
        return plain(self) | found | exported

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        known = {field.name: content[field.name] for field in dataclasses.fields(cls) if field.name in content}
        key = f"validation_{content['objective']}"
        for name in ("best", "nearest"):
            if known[name] is not None:
                fields = dict(known[name])
                known[name] = FoundSubnet(value=fields.pop(key), **fields)
        if "device" in known:
            known["device"] = OnDevice(**known["device"])
        if "subnet" in known:
            known["subnet"] = ExportedNetwork.from_json(known["subnet"])
        return cls(**known)

    def _subnet_as_json(self, found: FoundSubnet | None) -> JsonObject | None:
        if found is None:
            return None
        fields = plain(found)
        return {f"validation_{self.objective}": fields.pop("value"), **fields}
