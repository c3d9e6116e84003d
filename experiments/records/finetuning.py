"""Records of finetuning: what a network reaches before and after, and what was won."""

import dataclasses
from dataclasses import dataclass
from typing import Self

from experiments.records.plain import JsonObject


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval.

    Attributes:
        value: The figure.
        low: Lower end; None where there are too few examples for an interval.
        high: Upper end; None there, too.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def text(self, form: str) -> str:
        """Returns the figure, and its ends where they are known.

        Args:
            form: How numbers are written, such as `.2%`.
        """
        if self.low is None or self.high is None:
            return format(self.value, form)
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


@dataclass(frozen=True)
class SplitGain:
    """Gain of a finetuning on a split.

    Attributes:
        before: What the network reached.
        after: What it reaches.
        gain: The difference on the same examples.
    """

    before: Interval
    after: Interval
    gain: Interval


@dataclass(frozen=True)
class FinetunedNetwork:
    """A network that was trained on alone.

    Attributes:
        identity: Hash of everything that it follows from.
        source: The network that it was made of.
        objective: Names the figure that people read.
        steps: Training steps.
        learning_rate: Peak learning rate.
        teacher: What taught it; None where the labels alone did.
        validation: On the validation split.
        test: On the test split.
    """

    identity: str
    source: str
    objective: str
    steps: int
    learning_rate: float
    teacher: str | None
    validation: SplitGain
    test: SplitGain

    def as_json(self) -> JsonObject:
        """Returns the record as `report.json` has it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        splits = {
            split: SplitGain(**{name: Interval(**figure) for name, figure in content[split].items()})
            for split in ("validation", "test")
        }
        return cls(**{**content, **splits})
