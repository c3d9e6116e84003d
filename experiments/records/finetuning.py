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
            form: Format of numbers, such as `.2%`.
        """
        if self.low is None or self.high is None:
            return format(self.value, form)
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


@dataclass(frozen=True)
class SplitGain:
    """Gain of a finetuning on a split.

    Attributes:
        before: Figure before.
        after: Figure after.
        gain: The difference on the same examples.
    """

    before: Interval
    after: Interval
    gain: Interval


@dataclass(frozen=True)
class StoppedFinetuning:
    """Why a finetuning ended before its last step.

    Attributes:
        planned_steps: Steps of the whole training.
        forecast: The validation figure that was forecast for its end, with the ends between which it was to lie with
            the confidence that was asked for.
        to_beat: Validation figure that it was not to beat by more than the tolerance.
        rival: Name of the variant that had reached that figure; None where the network itself had.
    """

    planned_steps: int
    forecast: Interval
    to_beat: float
    rival: str | None


@dataclass(frozen=True)
class FinetunedNetwork:
    """A network that was trained on alone.

    Attributes:
        identity: Hash of everything that it follows from.
        source: The network that it was made of.
        objective: Names the figure that people read.
        steps: Training steps that were done.
        learning_rate: Peak learning rate.
        teacher: Teacher; None where labels alone taught.
        validation: On the validation split.
        test: On the test split.
        stopped: Why its training ended before its last step; None where it did not.
    """

    identity: str
    source: str
    objective: str
    steps: int
    learning_rate: float
    teacher: str | None
    validation: SplitGain
    test: SplitGain
    stopped: StoppedFinetuning | None = None

    @property
    def planned_steps(self) -> int:
        """Steps of the whole training."""
        return self.steps if self.stopped is None else self.stopped.planned_steps

    def as_json(self) -> JsonObject:
        """Returns the record as `report.json` has it."""
        content = dataclasses.asdict(self)
        if self.stopped is None:
            del content["stopped"]
        return content

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        splits = {
            split: SplitGain(**{name: Interval(**figure) for name, figure in content[split].items()})
            for split in ("validation", "test")
        }
        stopped = content.get("stopped")
        if stopped is not None:
            stopped = StoppedFinetuning(**{**stopped, "forecast": Interval(**stopped["forecast"])})
        return cls(**{**content, **splits, "stopped": stopped})
